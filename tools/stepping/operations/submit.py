"""How a run or a raw graph comes in and goes: Conductor's code over small tables, its writes let through one by one.

Until the run's word says queued nothing of it counts; from then on everything that whoever goes on with it needs is
there: its segment's row, its graph, its melody, its inputs.
"""

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from symphony.conductor import conductor as conductors
from symphony.conductor.tables import Tables
from symphony.model import score as scores
from symphony.model import value
from symphony.model.score import InputType, Score, Slot, Source, Step
from symphony.native.kernels import loading
from symphony.native.layout import constants
from symphony.pit.artifact.store import Store
from symphony.pit.dag import graph as graphs
from symphony.pit.dag.room import raw_graph
from symphony.pit.stale.sweep import Swept
from symphony.shmem.segment import Region, Segment
from tools.stepping.core import Case, Operation
from tools.stepping.operations.run import NOW, Run, RunCase
from tools.stepping.tracer import Scripted

with loading():
    from symphony.pit.dag import machine
    from symphony.pit.dag import word as words

TABLES = {
    "engine": ("sym_engine_t", 1), "counters": ("sym_counter_t", constants["SYM_COUNTER_COUNT"]),
    "owners": ("sym_owner_t", 4), "extensions": ("sym_extension_t", 2), "players": ("sym_player_t", 2),
    "models": ("sym_model_t", 2), "instances": ("sym_instance_t", 2), "seats": ("sym_seat_t", 16),
    "requests": ("sym_request_t", 1), "resources": ("sym_resource_t", 2), "artifacts": ("sym_artifact_t", 2),
    "segments": ("sym_segment_t", 8), "runs": ("sym_run_t", 2),
}  # fmt: skip
DIAMOND = ([(0, 1), (0, 2), (1, 3), (2, 3)], 4)
SCORE = Score(
    "stepped", {"items": InputType("list")}, ["items"],
    [
        Step("each", "test.work", "test", "work", slots=[Slot(each=True)], each=Source("", 0)),
        Step("join", "test.work", "test", "work", slots=[Slot(source=Source("each"), many=True)]),
    ],
    {"all": Source("join")},
)  # fmt: skip
INPUTS = {"items": [1, 2, 3]}


class Desk(Case):
    """A Conductor without threads, Keeper and players, over a state segment of few rows."""

    def __init__(self, home: Any) -> None:
        self.home, self.made = home, []
        every = {region.name: region for region in _regions()}
        self.table = Segment.create(home.registry, home.name, "state", every.values())
        manifest = SimpleNamespace(id="test", models=(), instances_max=1, window=4, directory=Path())
        c = conductors.Conductor(home.name, keeper=lambda: None, catalogue={"test": manifest}, capacity={"cpu": 2})
        c.registry, c.tables = home.registry, Tables(self.table)
        c.claim = SimpleNamespace(swept=Swept())  # type: ignore[assignment]
        c._make_private()
        c._fill_state()
        c.tables.engine[0]["next_serial"] = 1
        c.store = Store(self._make, c.tables.segments, c.tables.artifacts, c.tables.engine)
        c._make_segment = self._make  # type: ignore[method-assign]
        self.conductor = c

    def _make(self, kind: str, regions: Iterable[Region]) -> Segment:
        made = Segment.create(self.home.registry, self.home.name, kind, list(regions))
        self.made.append(made)
        return made

    def does(self, function: Any) -> "Desk":
        self.segments = [self.table, *self.made]
        self.act = Scripted(function)
        return self

    def allocated(self, segment: Segment) -> dict[str, int]:
        if "nodes" not in segment.regions:
            return {}
        graph = segment.table("graph")[0]
        nodes = int(graph["node_capacity"])
        return {"nodes": nodes, "cold": nodes, "marks": nodes, "outputs": int(graph["output_capacity"])}

    def attach(self) -> dict[str, Segment]:
        return {segment.name: Segment.attach(segment.name, writable=True) for segment in self.segments}

    def judge(self, there: dict[str, Segment]) -> tuple[Any, Iterable[Any]]:
        table = there[self.table.name]
        problems: list[str] = []
        live = {}
        for row in table.table("segments"):
            if row["word"]:
                live[int(row["id"])] = there[bytes(row["name"]).split(b"\0")[0].decode()]
        row = table.table("runs")[0]
        state = int(row["word"]) >> words.RUN_STATE_SHIFT
        if state == words.RUN_FREE:
            return "free", problems
        segment = live[int(row["segment"])]
        run = Run(segment, table, self._geometry(segment))
        told: tuple[Any, ...] = (bytes(row["name"]).split(b"\0")[0], int(row["serial"]), int(row["step_count"]))
        if int(row["score"]["segment"]):
            told += self._melody(row, run, live)
        if state == words.RUN_QUEUED:
            machine.move_run(run.maps, 0, words.RUN_RUNNING, 1, NOW)
        if (verdict := run.with_room(lambda: machine.rebuild(run.maps, 0, NOW))) != machine.OK:
            problems.append(f"rebuild says {verdict}")
        problems += map(str, run.violations())
        told += (state, *run.truth()[1:])
        return told, problems + run.play_to_end()

    @staticmethod
    def _geometry(segment: Segment) -> dict[str, tuple[int, int]]:
        graph = segment.table("graph")[0]
        have = {name: int(graph["node_capacity"]) for name in ("nodes", "cold", "marks")}
        have["outputs"] = int(graph["output_capacity"])
        return {name: (place.count, have.get(name, place.count)) for name, place in segment.regions.items()}

    @staticmethod
    def _melody(row: Any, run: Run, live: dict[int, Segment]) -> tuple[Any, ...]:
        """The score that the row names, and the run's inputs: whole, or this raises."""

        def payload(ref: Any) -> bytes:
            at = int(ref["offset_bytes"])
            return bytes(live[int(ref["segment"])].buffer[at : at + int(ref["size_bytes"])])

        score = scores.load(payload(row["score"]))
        items = value.decode(int(run.outputs[0]["kind"]), payload(run.outputs[0]))
        return (score.name, tuple(items), int(row["priority"]), bytes(row["id"]))

    def close(self) -> None:
        c = self.conductor
        c.tables = c.control = c.maps = c.store = None  # type: ignore[assignment]
        c.inbox.close()
        c.outbox.close()
        c._epoll.close()
        self.act = None  # type: ignore[assignment]
        del self.conductor
        for segment in (self.table, *self.made):
            segment.unlink()
            segment.close()


def _regions() -> list[Region]:
    return [Region(name, kind, rows) for name, (kind, rows) in TABLES.items()]


def enter_graph(home: Any) -> Case:
    """A raw graph, into a segment that another one left."""
    case = Desk(home)
    c = case.conductor
    prepared = graphs.prepare(raw_graph(*DIAMOND))
    segment, _, row, _ = c.enter_graph(graphs.prepare(raw_graph([(0, 1), (1, 2), (2, 3), (1, 3)], 4)))
    c.leave_graph(segment, row)
    return case.does(lambda: c.enter_graph(prepared))


def leave_graph(home: Any) -> Case:
    case = Desk(home)
    c = case.conductor
    segment, _, row, _ = c.enter_graph(graphs.prepare(raw_graph(*DIAMOND)))
    return case.does(lambda: c.leave_graph(segment, row))


def play(home: Any) -> Case:
    """A melody's run, into memory that an earlier one left."""
    case = Desk(home)
    c = case.conductor
    dumped = scores.dump(SCORE)
    c.play(dumped, {"items": [9]}, bytes(range(16)), {})
    c._retire(c.runs_by_serial[1])
    return case.does(lambda: c.play(dumped, INPUTS, bytes(16), {"priority": 3}))


def retire(home: Any) -> Case:
    """A run that has ended is forgotten."""
    case = Desk(home)
    c = case.conductor
    c.play(scores.dump(SCORE), INPUTS, bytes(16), {})
    return case.does(lambda: c._retire(c.runs_by_serial[1]))


class Written(RunCase):
    """A graph written into a run's segment while the run's row is free: nobody looks."""

    unseen, half_done, least_changes = True, True, 4

    def judge(self, there: Run) -> tuple[Any, Iterable[Any]]:
        return ("free", there.state), [] if there.state == words.RUN_FREE else ["the row is not free"]


def write(home: Any) -> Case:
    case = Written(home, raw_graph(*DIAMOND), words.RUN_FREE)
    prepared = graphs.prepare(raw_graph([(0, 1), (1, 2), (2, 3), (1, 3)], 4))
    run = case.run
    case.act = Scripted(lambda: graphs.write(prepared, run.segment, run.geometry, 0, 9))
    return case


_C, _G = "symphony.conductor.conductor.Conductor.", "symphony.pit.dag.graph."
OPERATIONS = (
    Operation("submit.write", (_G + "write", _G + "store_release_one"), write),
    Operation("submit.enter_graph", (_C + "enter_graph", "symphony.pit.dag.room.Tracker.submit"), enter_graph),
    Operation("submit.leave_graph", (_C + "leave_graph", "symphony.pit.dag.room.RawGraph.close"), leave_graph),
    Operation("submit.play", (_C + "play",), play),
    Operation("submit.retire", (_C + "_retire",), retire),
)
