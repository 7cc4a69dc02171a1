"""A run of a score in a real segment, driven by hand through the kernels."""

import random

import pytest

from symphony.conductor.plan import plan_run
from symphony.model.score import InputType, Score, Slot, Source, Step
from symphony.native.kernels import loading
from symphony.native.layout import constants
from symphony.pit.dag import graph as graphs
from symphony.pit.dag.validate import validate
from symphony.pit.tables import RUN, UNSET
from symphony.shmem.registry import Registry
from symphony.shmem.segment import Region, Segment

with loading():
    from symphony.pit.dag import machine
    from symphony.pit.dag.word import run_word

RUNNING, LIST, BYTES = constants["SYM_RUN_RUNNING"], constants["SYM_VALUE_LIST"], constants["SYM_VALUE_BYTES"]


@pytest.fixture
def registry(tmp_path, monkeypatch):
    monkeypatch.setenv("SYMPHONY_RUNTIME_DIR", str(tmp_path / "runtime"))
    return Registry("pit-test")


class Driven:
    """A run whose driver is the test. `log`: how often each node was completed."""

    def __init__(self, registry, score: Score, generation: int = 7) -> None:
        plan = plan_run(score, {step.extension: 0 for step in score.steps}, {})
        prepared = graphs.prepare(plan.graph)
        self.geometry = prepared.geometry()
        self.segment = Segment.create(registry, "pit-test", "run", graphs.regions(self.geometry))
        self.table = Segment.create(registry, "pit-test", "state", [Region("runs", "sym_run_t", 1)])
        graphs.write(prepared, self.segment, self.geometry, 0, generation)
        row = self.table.table("runs")[0]
        row["node_count"] = row["total_count"] = len(plan.graph.vertex_steps)
        row["failed_node"], row["word"] = UNSET, run_word(RUNNING, generation) & (1 << 64) - 1
        for index in range(len(score.input_order)):
            ref = self.segment.table("outputs")[index]
            ref["kind"], ref["count"], ref["segment"] = LIST, 3, 1
        self.maps = graphs.new_map(1)
        graphs.attach_map(self.maps[0], self.segment, self.geometry, 0, self.table.address("runs"))
        self.row = self.table.table("runs").view(RUN)
        self.flying: list[int] = []
        self.completed: dict[int, int] = {}
        self.rebuild()

    def rebuild(self) -> None:
        self.grow(lambda: machine.rebuild(self.maps, 0, 1))

    def grow(self, operation) -> int:
        """Do an operation, with more room as often as it asks for it."""
        while (verdict := operation()) == machine.NO_ROOM:
            graph = self.segment.table("graph")[0]
            graphs.room_for(self.segment, int(graph["node_capacity"]) * 2, int(graph["output_capacity"]) * 2)
        return verdict

    def dispatch_one(self) -> int:
        """Dispatch the best ready node of a random lane with something ready; -1: nothing is."""
        lanes = [
            lane for lane in range(int(self.maps[0]["lane_count"])) if machine.first_ready(self.maps, 0, lane) >= 0
        ]
        if not lanes:
            return -1
        vertex = machine.first_ready(self.maps, 0, lanes[0])
        node = machine.head_node(self.maps, 0, vertex)
        assert node >= 0
        machine.take_head(self.maps, 0, vertex, node)
        assert machine.dispatch(self.maps, 0, node, 3, 0, 0, 1) >= 1
        self.flying.append(node)
        return node

    def word(self, node: int) -> int:
        return int(self.segment.table("nodes")[node]["word"])

    def complete(self, node: int, items: int) -> int:
        """Write its outputs beside it (lists of `items`), then complete it."""
        nodes, outputs = self.segment.table("nodes"), self.segment.table("outputs")
        width = int(self.segment.table("steps")[int(nodes[node]["step"])]["output_count"])
        for k in range(width):
            ref = outputs[int(nodes[node]["output"]) + k]
            ref["kind"], ref["count"], ref["segment"] = LIST, items, 1
        verdict = self.grow(lambda: machine.complete(self.maps, 0, node, self.word(node), 3, 1))
        if verdict == machine.OK:
            self.flying.remove(node)
            self.completed[node] = self.completed.get(node, 0) + 1
        return verdict

    def give_back(self, node: int) -> None:
        machine.release(self.maps, 0, node, self.word(node), 5, 1)
        machine.put_back(self.maps, 0, node)
        self.flying.remove(node)

    def violations(self):
        return validate(self.segment, self.table.table("runs")[0])

    def close(self) -> None:
        self.row = self.maps = None
        for segment in (self.segment, self.table):
            segment.unlink()
            segment.close()


@pytest.fixture
def driven(registry):
    made = []

    def make(score: Score, **options) -> Driven:
        made.append(Driven(registry, score, **options))
        return made[-1]

    yield make
    for run in made:
        run.close()


def random_score(rng: random.Random, steps: int) -> Score:
    """A melody of so many steps: edges, fan-outs over steps and over fan-outs, batches, joins, an input list."""
    made: list[Step] = []
    for number in range(steps):
        before = [step.name for step in made]
        slots = [Slot(source=Source(name)) for name in rng.sample(before, min(len(before), rng.randint(0, 2)))]
        each = None
        batch = 0
        if rng.random() < 0.4:
            each = Source(rng.choice(before)) if before and rng.random() < 0.8 else Source("", 0)
            batch = rng.choice((0, 0, 2, 3))
            slots.append(Slot(each=True, many=batch > 0))
        after = rng.sample(before, min(len(before), rng.randint(0, 1)))
        made.append(Step(f"s{number}", "test.work", "test", "work", slots=slots, each=each, batch=batch, after=after))
    return Score("random", {"items": InputType("list")}, ["items"], made)
