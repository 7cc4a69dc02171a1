"""From a score to a graph: which vertex, lane, group and input each step becomes.

Vertex 0 stands for the run's inputs: it is done from birth and its outputs are the inputs' values, so that a
fan-out over an input and a fan-out over a step are one case.
"""

from dataclasses import dataclass

import numpy as np

from symphony.model.errors import ScoreError
from symphony.model.score import Score, Source, Step
from symphony.native.layout import constants
from symphony.pit.dag.graph import Graph
from symphony.pit.tables import GROUP, INPUT, NONE, STEP

INPUT_VERTEX = constants["SYM_INPUT_VERTEX"]
INPUT_ITEM = constants["SYM_INPUT_ITEM"]
ONCE = constants["SYM_NODE_ONCE"]
NAME_BYTES = 47
NS = 1_000_000_000


@dataclass
class Plan:
    """A graph, and the bindings that its steps' rows still need memory for: (row of steps, msgpack)."""

    graph: Graph
    bindings: list[tuple[int, bytes]]


def cut(name: str) -> bytes:
    """A name cut to what a table's column holds, never inside a character."""
    return name.encode()[:NAME_BYTES].decode(errors="ignore").encode()


class _Planner:
    def __init__(self, score: Score, models: dict[str, int], resources: dict[str, int]) -> None:
        self.score, self.models, self.resources = score, models, resources
        self.vertex = {"": 0} | {step.name: number for number, step in enumerate(score.steps, 1)}
        self.groups: dict[str, int] = {}
        self.lanes: dict[tuple, int] = {}
        self.edges: list[tuple[int, int]] = []
        self.inputs: list[tuple] = []

    def plan(self) -> Plan:
        steps = np.zeros(len(self.score.steps) + 1, STEP)
        steps[0]["output_count"], steps[0]["group"], steps[0]["name"] = (
            len(self.score.input_order),
            NONE,
            np.frombuffer(b"inputs".ljust(48, b"\0"), np.uint8),
        )
        group_rows = []
        bindings = []
        for number, step in enumerate(self.score.steps, 1):
            self.fill(steps[number], step, number, group_rows)
            bindings.append((number, step.binding()))
        if not self.lanes:
            self.lanes[(0, (), False)] = 0
        return Plan(
            Graph(
                vertex_steps=np.arange(len(steps), dtype=np.uint32),
                edges=np.array(sorted(set(self.edges)), np.int64).reshape(-1, 2),
                steps=steps,
                inputs=self.input_rows(),
                groups=self.rows_of_groups(group_rows),
                lane_models=[key[0] for key in self.lanes],
                done=[0],
                names=lambda vertex: self.score.steps[vertex - 1].name if vertex else "inputs",
            ),
            bindings,
        )

    def fill(self, row: np.void, step: Step, vertex: int, group_rows: list) -> None:
        row["model"] = self.models[step.extension]
        need = self.need(step)
        row["need"] = need
        # Steps with a timeout have lanes of their own: their nodes are not sent ahead of their turn.
        row["lane"] = self.lanes.setdefault((int(row["model"]), tuple(need), step.timeout_s > 0), len(self.lanes))
        row["output_count"], row["retries"] = len(step.outputs), step.retries
        row["flags"] = ONCE if step.once else 0
        row["vertex"], row["group"] = vertex, NONE
        row["backoff_ns"], row["timeout_ns"] = int(step.backoff_s * NS), int(step.timeout_s * NS)
        row["estimate_ns"] = int(step.estimate_s * NS)
        row["name"] = np.frombuffer(cut(step.name).ljust(48, b"\0"), np.uint8)
        for name in step.dependencies():
            self.edges.append((self.vertex[name], vertex))
        if step.each is not None:
            self.add_group(row, step, vertex, group_rows)
        self.add_inputs(row, step)

    def need(self, step: Step) -> list[int]:
        need = [0] * constants["SYM_LIMIT_RESOURCES"]
        for name, amount in step.need.items():
            if name not in self.resources:
                known = ", ".join(sorted(self.resources)) or "none"
                raise ScoreError(
                    f"step {step.name!r} needs {name!r}, which this engine has no capacity of (it has: {known})"
                )
            need[self.resources[name]] = amount
        return need

    def add_group(self, row: np.void, step: Step, vertex: int, group_rows: list) -> None:
        source = self.source_vertex(step.each)
        self.groups[step.name] = len(group_rows)
        row["group"] = len(group_rows)
        group_rows.append((vertex, source, step.each.output, max(1, step.batch), self.groups.get(step.each.step, NONE)))
        if source == 0:
            self.edges.append((0, vertex))

    def source_vertex(self, source: Source) -> int:
        return self.vertex[source.step]

    def add_inputs(self, row: np.void, step: Step) -> None:
        row["input_first"], row["input_count"] = len(self.inputs), len(step.slots)
        for number, slot in enumerate(step.slots):
            if slot.each:
                self.inputs.append((INPUT_ITEM, 0, 0, number, 0, 0))
            else:
                self.inputs.append(
                    (INPUT_VERTEX, self.source_vertex(slot.source), slot.source.output, number, slot.first, slot.count)
                )

    def input_rows(self) -> np.ndarray:
        rows = np.zeros(len(self.inputs), INPUT)
        if self.inputs:
            columns = np.array(self.inputs, np.uint32)
            for at, name in enumerate(("kind", "vertex", "output", "slot", "first", "count")):
                rows[name] = columns[:, at]
        return rows

    def rows_of_groups(self, group_rows: list) -> np.ndarray:
        rows = np.zeros(len(group_rows), GROUP)
        for row, values in zip(rows, group_rows, strict=True):
            for name, value in zip(
                ("template", "source", "source_output", "batch", "source_group"), values, strict=True
            ):
                row[name] = value
            row["again"] = NONE
        return rows


def refuse_unmeetable(score: Score, capacity: dict[str, int]) -> None:
    """Refuse a step that needs more than there is: it would wait for ever. Raises ScoreError."""
    for step in score.steps:
        for name, amount in step.need.items():
            if amount > capacity.get(name, amount):
                raise ScoreError(
                    f"step {step.name!r} needs {amount} of {name!r}, this engine has {capacity[name]} in all"
                )


def plan_run(score: Score, models: dict[str, int], resources: dict[str, int]) -> Plan:
    """The graph of a validated score.

    `models`: the pool's row of each extension (a player is an instance of the model that its extension is);
    `resources`: index of each named capacity. Raises ScoreError.
    """
    return _Planner(score, models, resources).plan()
