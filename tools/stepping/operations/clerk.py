"""What the clerk does beside the loop: large outputs copied out of a player's arena, pieces of one gathered, tables
grown. Python code; its writes are let through one by one.

The judge is the clerk of the next Conductor, which does the job again: whatever the first had done of it, the bytes
are the output's in the end.
"""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from symphony.conductor.clerk import Clerk
from symphony.native import ffi
from symphony.native.kernels import loading
from symphony.pit.artifact.store import Store
from symphony.pit.dag.graph import room_for
from symphony.shmem.segment import Region, Segment
from tools.stepping.core import Case, Operation
from tools.stepping.operations.loop import LAST, LoopCase, There
from tools.stepping.operations.run import NOW, Run, RunCase, score, step
from tools.stepping.tracer import Scripted

with loading():
    from symphony.conductor import loop as kernels
    from symphony.pit.dag import machine

ROWS = [
    Region("engine", "sym_engine_t", 1),
    Region("segments", "sym_segment_t", 8),
    Region("artifacts", "sym_artifact_t", 1),
]
LARGE = bytes(range(192))
"""Few enough bytes to be copied by a handful of instructions; the code does not look at how many there are."""
PIECES = (LARGE[:64], LARGE[64:])
PLACE_BYTES = 64


class ClerkCase(LoopCase):
    """A clerk with a store of its own, and one node with an output in its player's arena."""

    unseen = True

    def __init__(self, home: Any) -> None:
        super().__init__(home, LAST)
        self.home = home
        self.rows = Segment.create(home.registry, home.name, "state", ROWS)
        self.made: list[Segment] = []
        self.store = Store(self._make, *(self.rows.table(name) for name in ("segments", "artifacts", "engine")))
        self.store.block(64, 0)
        (record,) = self.sent()
        self.node = record["node"]
        self.row = int(self.run.nodes[self.node]["output"])
        ffi.memmove(ffi.cast("char *", self.extension.at["arena"]), LARGE, len(LARGE))

    def _make(self, kind: str, regions: list[Region]) -> Segment:
        made = Segment.create(self.home.registry, self.home.name, kind, regions)
        self.made.append(made)
        return made

    def clerk(self, run: Any, store: Store, arena: int) -> Clerk:
        """A clerk that needs of its Conductor only this run, this store, this player."""
        channel = SimpleNamespace(arena_bytes=1 << 15, addresses=lambda: {"arena": arena})
        players = SimpleNamespace(live={0: SimpleNamespace(channel=channel)})
        clerk = Clerk.__new__(Clerk)
        told = SimpleNamespace(tell=lambda *words: None)
        clerk.conductor = SimpleNamespace(run_at=lambda r, serial: run, store=store, players=players, inbox=told)
        return clerk

    def does(self, job: Any) -> "ClerkCase":
        self.job = job
        self.segments = [self.run.segment, self.rows, *self.made]
        clerk = self.clerk(self.run, self.store, self.extension.at["arena"])
        self.act = Scripted(lambda: job(clerk))
        return self

    def live(self, there: There) -> Iterable[Any]:
        return ()

    def judge(self, there: There) -> tuple[Any, Iterable[Any]]:
        run = there.run()
        rows = Segment.attach(self.rows.name, writable=True)
        fresh: list[Segment] = []

        def make(kind: str, regions: list[Region]) -> Segment:
            fresh.append(Segment.create(self.home.registry, self.home.name, kind, regions))
            return fresh[-1]

        store = Store(make, *(rows.table(name) for name in ("segments", "artifacts", "engine")))
        store.resume(lambda name: Segment.attach(name, writable=True), {0})
        try:
            self.job(self.clerk(run, store, there.own.address("arena")))
            return self._found(run, store), ()
        finally:
            for segment in fresh:
                segment.unlink()
                segment.close()

    def _found(self, run: Run, store: Store) -> Any:
        ref = run.outputs[self.row]
        at = int(ref["offset_bytes"]) if not int(ref["slot"]) else int(ref["first"]) * PLACE_BYTES
        data = bytes(store.bytes_at(int(ref["segment"]), at, int(ref["size_bytes"])))
        return (int(ref["slot"]), int(ref["size_bytes"]), data == LARGE[: len(data)])

    def close(self) -> None:
        del self.store
        super().close()
        for segment in (self.rows, *self.made):
            segment.unlink()
            segment.close()


def store(home: Any) -> Case:
    """An output in the player's arena is brought into the run's memory."""
    case = ClerkCase(home)
    ref = case.run.outputs[case.row]
    ref["kind"], ref["size_bytes"], ref["segment"], ref["offset_bytes"] = 1, len(LARGE), 0, 0
    ref["slot"], ref["first"], ref["count"] = kernels.IN_ARENA, 0, 0
    machine.store(case.run.maps, 0, case.node, case.run.word(case.node), kernels.REASON_COMPLETED, NOW)
    return case.does(lambda clerk: clerk._store(0, 0, case.node, 1, 0))


def part(home: Any, number: int) -> Case:
    """A piece of an output larger than the arena is added to those that are there."""
    case = ClerkCase(home)
    clerk = case.clerk(case.run, case.store, case.extension.at["arena"])
    for before in range(number):
        clerk._part(_part(case.node, before))
    return case.does(lambda clerk: clerk._part(_part(case.node, number)))


def _part(node: int, number: int) -> bytes:
    """The record of a piece, as the loop hands it over: two words of its own, then the player's."""
    told = ffi.new("sym_part_t *")
    told.node, told.attempt, told.total_bytes = node, 1, len(LARGE)
    told.at_bytes = sum(map(len, PIECES[:number]))
    told.offset_bytes, told.size_bytes = told.at_bytes, len(PIECES[number])
    return bytes(16) + bytes(ffi.buffer(told))


class Grown(RunCase):
    """More memory behind a run's tables: what is said to be there is there, and the run goes on."""

    def judge(self, there: Run) -> tuple[Any, Iterable[Any]]:
        capacity = int(there.graph["node_capacity"]), int(there.graph["output_capacity"])
        problems = []
        for name, rows in (
            ("nodes", capacity[0]),
            ("cold", capacity[0]),
            ("marks", capacity[0]),
            ("outputs", capacity[1]),
        ):
            there.segment.table(name)[:rows].copy()  # SIGBUS where there is no memory: the judge would end
        truth, more = super().judge(there)
        return truth, [*problems, *more]


def grow(home: Any) -> Case:
    case = Grown(home, score(step("a"), step("b", each="a")))
    case.unseen = True
    run = case.run
    nodes, outputs = int(run.graph["node_capacity"]), int(run.graph["output_capacity"])
    case.least_changes = 2
    case.act = Scripted(lambda: room_for(run.segment, 2 * nodes, 2 * outputs))
    return case


OPERATIONS = (
    Operation("clerk.store", ("symphony.conductor.clerk.Clerk._store",), store),
    Operation("clerk.part", ("symphony.conductor.clerk.Clerk._part",), part, lambda e: [{"number": n} for n in (0, 1)]),
    Operation("clerk.room_for", ("symphony.pit.dag.graph.room_for",), grow),
)
