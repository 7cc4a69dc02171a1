"""A Conductor for tests of the door: our own interface, made of plain data that a test moves on by hand."""

import threading
from typing import Any

from symphony.conductor.door import Door
from symphony.model import score as scores
from symphony.model.errors import ExtensionError, RunNotFound
from symphony.shmem import names


class StageConductor:
    """Remembers what it was asked. Runs stay queued until `finish` moves them on."""

    def __init__(self) -> None:
        self.table: dict[int, dict[str, Any]] = {}
        self.ids: dict[bytes, int] = {}
        self.inputs: dict[int, dict[str, Any]] = {}
        self.outputs: dict[int, dict[str, tuple[int, bytes]]] = {}
        self.options: dict[int, dict[str, Any]] = {}
        self.plays = 0
        self.stopped = threading.Event()
        self.on_play = None
        self.door: Door

    def play(self, score, inputs, request_id, options):
        self.plays += 1
        if request_id in self.ids:
            return {"run": self.ids[request_id]}
        if inputs.get("break") == "typed":
            raise ExtensionError("nobody is called 'nowhere'", extension="nowhere")
        if inputs.get("break") == "bug":
            raise ZeroDivisionError("by a mistake of ours")
        serial = self.ids[request_id] = len(self.table) + 1
        self.inputs[serial], self.options[serial] = inputs, options
        name = scores.load(score).name
        step = {"step": "walk", "state": "pending", "nodes": 1, "done": 0, "failed": 0, "running": 0, "error": None}
        self.table[serial] = {
            "run": serial,
            "name": name,
            "state": "queued",
            "nodes": 2,
            "done": 0,
            "failed": 0,
            "running": 0,
            "submitted_ns": 1_000_000_000,
            "started_ns": 1_000_000_000,
            "ended_ns": 0,
            "steps": [step],
            "error": None,
        }
        if self.on_play is not None:
            self.on_play(self, serial)
        return {"run": serial}

    def move(self, serial, **fields):
        self.table[serial] = {**self.table[serial], **fields}
        self.door.notify(serial)

    def finish(self, serial, outputs, state="completed", error=None):
        self.outputs[serial] = outputs
        steps = [{**self.table[serial]["steps"][0], "state": "failed" if error else "done", "done": 1, "error": error}]
        self.move(serial, state=state, done=2, ended_ns=3_000_000_000, error=error, steps=steps)

    def run(self, serial):
        try:
            return self.table[serial]
        except KeyError:
            raise RunNotFound(f"no run {serial}") from None

    def runs(self):
        return list(self.table.values())

    def result(self, serial):
        return self.outputs[serial]

    def record(self, serial):
        return [
            {
                "step": "walk",
                "node": 0,
                "state": "done",
                "attempt": 1,
                "started_ns": 1,
                "ended_ns": 2,
                "extension": "explorer",
                "pid": 7,
                "inputs": [],
                "outputs": [],
            }
        ]

    def cancel(self, serial):
        self.move(serial, state="cancelled", ended_ns=2_000_000_000)

    def hold(self):
        self.held = True

    def status(self):
        return {
            "pid": 0,
            "keeper_pid": 0,
            "state": "ready",
            "level": 0,
            "extensions": [{"extension": "explorer", "players": 1, "level": 0}],
        }

    def stop(self):
        self.stopped.set()


def open_door(name: str) -> tuple[StageConductor, Door]:
    """A served door under an engine's name; the caller closes it."""
    conductor = StageConductor()
    conductor.door = Door(conductor, names.runtime_directory(name))
    conductor.door.start()
    return conductor, conductor.door


def small_score(name: str = "small") -> scores.Score:
    """A melody of one step with a path and a number as inputs."""
    step = scores.Step(name="walk", use="explorer.walk", extension="explorer", handler="walk")
    inputs = {
        "path": scores.InputType("path"),
        "top": scores.InputType("int", 5, False),
        "break": scores.InputType("text", "", False),
        "blob": scores.InputType("bytes", b"", False),
    }
    return scores.Score(
        name=name, inputs=inputs, input_order=list(inputs), steps=[step], outputs={"files": scores.Source("walk")}
    )
