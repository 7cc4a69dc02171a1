"""A run on real segments, as the tracker's kernels drive it and as somebody who comes later finds it.

What the killed process was in the middle of is judged like this: rebuild, validate, then the truth (words, and what
stands beside them in that state), then the run is played to its end: every node once, and nothing left.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from symphony.conductor.plan import plan_run
from symphony.model.score import InputType, Score, Slot, Source, Step
from symphony.native.kernels import loading
from symphony.native.layout import constants
from symphony.pit.dag import graph as graphs
from symphony.pit.dag.validate import validate
from symphony.pit.tables import UNSET
from symphony.shmem.segment import Region, Segment
from tools.stepping.calls import kernel_call
from tools.stepping.core import Case

with loading():
    from symphony.pit.dag import machine
    from symphony.pit.dag import word as words

LIST, BYTES = constants["SYM_VALUE_LIST"], constants["SYM_VALUE_BYTES"]
GENERATION = 7
PLAYER, SEAT = 3, 2
NOW = 1_000_000
ITEMS = 2
IN_FLIGHT = (words.DISPATCHED, words.STORING)
BEGUN = (*IN_FLIGHT, words.DONE, words.FAILED)
GROWTH = 2


def step(name: str, *needs: str, each: str | None = None, batch: int = 0, outputs: int = 1, **options: Any) -> Step:
    """A step of a test melody: it needs the outputs of others, and may fan out over one."""
    slots = [Slot(source=Source(need)) for need in needs]
    if each is not None:
        slots.append(Slot(each=True, many=batch > 0))
    named = [""] if outputs == 1 else [f"o{k}" for k in range(outputs)]
    source = None if each is None else Source(each)
    return Step(name, "test.work", "test", "work", slots=slots, each=source, batch=batch, outputs=named, **options)


def score(*steps: Step) -> Score:
    return Score("stepped", {"items": InputType("list")}, ["items"], list(steps))


class Run:
    """A run's two segments in this process: its own, and the one that its row lies in."""

    def __init__(self, segment: Segment, table: Segment, geometry: dict[str, tuple[int, int]]) -> None:
        self.segment, self.table, self.geometry = segment, table, geometry
        self.row = table.table("runs")[0]
        self.nodes, self.cold = segment.table("nodes"), segment.table("cold")
        self.outputs, self.groups = segment.table("outputs"), segment.table("groups")
        self.graph = segment.table("graph")[0]
        self.steps = segment.table("steps")
        self.fresh_maps()

    def fresh_maps(self) -> None:
        """Private memory as a process has it that has just attached."""
        self.maps = graphs.new_map(1)
        graphs.attach_map(self.maps[0], self.segment, self.geometry, 0, self.table.address("runs"))

    @classmethod
    def create(
        cls, home: Any, made: Score | graphs.Graph, state: int = words.RUN_RUNNING, table: Segment | None = None
    ) -> "Run":
        """A run of a melody or of a raw graph, its row the first of `table` (one of its own if there is none)."""
        graph = plan_run(made, {"test": 0}, {"cpu": 0}).graph if isinstance(made, Score) else made
        prepared = graphs.prepare(graph)
        geometry = prepared.geometry()
        segment = Segment.create(home.registry, home.name, "run", graphs.regions(geometry))
        table = table or Segment.create(home.registry, home.name, "state", [Region("runs", "sym_run_t", 1)])
        graphs.write(prepared, segment, geometry, 0, GENERATION)
        row = table.table("runs")[0]
        row["node_count"] = row["total_count"] = len(graph.vertex_steps)
        row["failed_node"], row["word"] = UNSET, words.run_word(state, GENERATION) & (1 << 64) - 1
        run = cls(segment, table, geometry)
        for index in range(int(run.steps[0]["output_count"])):
            run.write_output(index, ITEMS)
        machine.rebuild(run.maps, 0, NOW)
        return run

    def write_output(self, index: int, items: int, kind: int = LIST) -> None:
        ref = self.outputs[index]
        ref["kind"], ref["count"], ref["segment"] = kind, items if kind == LIST else 0, 1
        ref["size_bytes"], ref["offset_bytes"] = 8 + 17 * items, 64 * index

    def write_outputs(self, node: int, items: int = ITEMS) -> None:
        """A node's outputs beside its word: lists of so many items."""
        for k in range(int(self.steps[int(self.nodes[node]["step"])]["output_count"])):
            self.write_output(int(self.nodes[node]["output"]) + k, items)

    def allocated(self) -> dict[str, int]:
        """Rows of each region that have memory behind them, growth included."""
        rows = {name: have for name, (_, have) in self.geometry.items()}
        nodes = int(self.graph["node_capacity"])
        return rows | {"nodes": nodes, "cold": nodes, "marks": nodes, "outputs": int(self.graph["output_capacity"])}

    # -- driving it ---------------------------------------------------------------------------------------

    def word(self, node: int) -> int:
        return int(self.nodes[node]["word"])

    def state_of(self, node: int) -> int:
        return self.word(node) >> words.STATE_SHIFT & 15

    @property
    def state(self) -> int:
        return int(self.row["word"]) >> words.RUN_STATE_SHIFT

    def next_ready(self) -> int:
        """Take the best ready node out of the ready sets; -1: none is ready."""
        for lane in range(int(self.maps[0]["lane_count"])):
            vertex = machine.first_ready(self.maps, 0, lane)
            if vertex >= 0:
                node = machine.head_node(self.maps, 0, vertex)
                machine.take_head(self.maps, 0, vertex, node)
                return node
        return -1

    def dispatch(self, node: int) -> int:
        return machine.dispatch(self.maps, 0, node, PLAYER, 64, SEAT, NOW)

    def dispatch_next(self) -> int:
        node = self.next_ready()
        assert node >= 0 and self.dispatch(node) > 0
        return node

    def complete(self, node: int, items: int = ITEMS) -> int:
        self.write_outputs(node, items)
        return self.with_room(lambda: machine.complete(self.maps, 0, node, self.word(node), 3, NOW))

    def with_room(self, operation: Callable[[], int]) -> int:
        while (verdict := operation()) == machine.NO_ROOM:
            nodes, outputs = int(self.graph["node_capacity"]), int(self.graph["output_capacity"])
            graphs.room_for(self.segment, nodes * GROWTH, outputs * GROWTH)
        return verdict

    def play_until(self, name: str, items: int = ITEMS) -> int:
        """Dispatch and complete everything until the step of that name has a node dispatched: that node."""
        while True:
            node = self.dispatch_next()
            if self.name_of(node) == name:
                return node
            assert self.complete(node, items) == machine.OK

    def name_of(self, node: int) -> str:
        return bytes(self.steps[int(self.nodes[node]["step"])]["name"]).split(b"\0")[0].decode()

    # -- finding it ---------------------------------------------------------------------------------------

    def violations(self) -> list[Any]:
        return validate(self.segment, self.row)

    def truth(self) -> tuple[Any, ...]:
        """The run's word, each node's with what stands beside it in that state, each group's row while it holds."""
        count = int(self.row["node_count"])
        return (
            ("run", self.state, int(self.row["word"]) & words.GENERATION_MASK),
            tuple(self._node(node) for node in range(count)),
            tuple(self._group(group) for group in self.groups[: int(self.graph["group_count"])]),
        )

    def _node(self, node: int) -> tuple[Any, ...]:
        word, row, cold = self.word(node), self.nodes[node], self.cold[node]
        state = words.state_of(word)
        told = [node, state, words.flags_of(word), words.attempt_of(word), words.generation_of(word), int(row["step"])]
        told.append(int(row["group"]))
        if not words.flags_of(word) & words.FLAG_GROUP:
            told += [int(cold[name]) for name in ("not_before_ns", "item_node", "item_first", "item_count", *TRIES)]
        if state in IN_FLIGHT:
            told += [words.player_of(word), int(row["position"]), int(row["seat"])]
        if state in (words.DONE, words.STORING) and not words.flags_of(word) & words.FLAG_GROUP:
            first, width = int(row["output"]), int(self.steps[int(row["step"])]["output_count"])
            told += [bytes(self.outputs[first + k]) for k in range(width)]
        return tuple(told)

    def _group(self, group: np.void) -> tuple[int, ...]:
        return tuple(int(group[name]) for name in ("expanded", "first", "count")) if group["expanded"] else (0,)

    def story(self) -> dict[int, bytes]:
        """The records that a reader believes, by number: those that bear it, but for the one whose place the next
        record is being written into."""
        count, capacity = int(self.graph["story_count"]), int(self.graph["story_capacity"])
        rows = self.segment.table("story")
        found = {}
        for number in range(max(0, count - capacity + 1), count + 1):
            record = rows[number % capacity]
            if int(record["sequence"]) == number + 1:
                found[number] = bytes(record)
        return found

    def play_to_end(self) -> list[str]:
        """Go on from here as a Conductor does that has come back. What is wrong, if anything."""
        if self.state == words.RUN_RUNNING:
            return self._play_on()
        if self.state not in (words.RUN_FAILING, words.RUN_CANCELLING):
            return []
        for node in self._flying():
            self.complete(node)
        failing = self.state == words.RUN_FAILING
        machine.abandon(self.maps, 0, words.SKIPPED if failing else words.CANCELLED, 8, NOW)
        machine.move_run(self.maps, 0, words.RUN_FAILED if failing else words.RUN_CANCELLED, 8, NOW)
        return [f"at its end: {violation}" for violation in self.violations()]

    def _flying(self) -> list[int]:
        return [n for n in range(int(self.row["node_count"])) if self.state_of(n) in IN_FLIGHT]

    def _play_on(self) -> list[str]:
        problems = []
        ahead = self._flying()
        for node in range(int(self.row["node_count"])):
            self.cold[node]["not_before_ns"] = 0
        with_delay = self.with_room(lambda: machine.rebuild(self.maps, 0, NOW))
        if with_delay != machine.OK:
            return [f"rebuild says {with_delay}"]
        given: set[int] = set(ahead)
        while True:
            if ahead:
                verdict = self.complete(ahead.pop())
                if verdict != machine.OK:
                    problems.append(f"a completion afterwards says {verdict}")
                continue
            node = self.next_ready()
            if node < 0:
                break
            if node in given:
                problems.append(f"node {node} is handed out twice")
                break
            given.add(node)
            if self.dispatch(node) <= 0:
                problems.append(f"node {node} is ready and cannot be dispatched")
                break
            ahead.append(node)
        if int(self.graph["vertices_left"]):
            problems.append(f"{int(self.graph['vertices_left'])} vertices are left when nothing is ready any more")
        return problems + [f"at its end: {violation}" for violation in self.violations()]


TRIES = ("failures", "deaths")


class RunCase(Case):
    """A run, somewhere in its life, and one call of a kernel on it."""

    def __init__(self, home: Any, made: Score | graphs.Graph, state: int = words.RUN_RUNNING) -> None:
        self.run = Run.create(home, made, state)
        self.segments = [self.run.segment, self.run.table]
        self.known_story: dict[int, set[bytes]] = {}

    def allocated(self, segment: Segment) -> dict[str, int]:
        return self.run.allocated() if segment is self.run.segment else {}

    def kernel(self, kernel: Any, *arguments: Any) -> "RunCase":
        self.act = kernel_call(kernel, self.run.maps, 0, *arguments)
        return self

    def attach(self) -> Run:
        segment = Segment.attach(self.run.segment.name, writable=True, kind="run")
        return Run(segment, Segment.attach(self.run.table.name, writable=True, kind="state"), self.run.geometry)

    def live(self, there: Run) -> Iterable[Any]:
        for number, record in there.story().items():
            self.known_story.setdefault(number, set()).add(record)
        return there.violations()

    def judge(self, there: Run) -> tuple[Any, Iterable[Any]]:
        problems = [
            f"record {number} of the story is of no transition that was"
            for number, record in there.story().items()
            if record not in self.known_story.get(number, ())
        ]
        there.fresh_maps()
        verdict = there.with_room(lambda: machine.rebuild(there.maps, 0, NOW))
        if verdict != machine.OK:
            problems.append(f"rebuild says {verdict}")
        problems += map(str, there.violations())
        truth = there.truth()
        return truth, problems + there.play_to_end()

    def close(self) -> None:
        del self.run
        self.act = None  # type: ignore[assignment]
        super().close()
