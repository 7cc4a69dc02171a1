"""The Conductor's loop, killed in the middle of what it does for one record, one message, one burst of dispatches.

The judge comes back as the next Conductor does and lets the loop turn; the player, which lives on, sees nothing of it
but its rings. Whatever instruction the first one was killed at, it comes to the same: each completion applied once,
each node sent once, seats and capacities those of the nodes in flight. So the truth is the same before and after, and
what could tell the two apart is asked of every image: a record that is visible has its word behind it, a record that
is released has been applied.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from symphony.conductor import state
from symphony.conductor.tables import OWNER_SELF
from symphony.native import ffi
from symphony.native.kernels import loading
from symphony.native.layout import constants
from symphony.pit.tables import RESOURCE, SEAT
from symphony.shmem.segment import Segment
from tools.stepping.calls import kernel_call
from tools.stepping.core import Case, Operation
from tools.stepping.operations.bench import (
    FIRST_ARENA,
    GOING,
    SPARE_ARENA,
    UNKNOWN_TAIL,
    WINDOW,
    Bench,
    Extension,
    Gathered,
    Loop,
)
from tools.stepping.operations.run import GENERATION, Run, score, step

with loading():
    from symphony.conductor import loop as kernels
    from symphony.conductor import reattach
    from symphony.pit.dag import machine
    from symphony.pit.dag import word as words

CPU = {"need": {"cpu": 1}}
PLAIN = score(step("a", **CPU), step("b", "a", **CPU), step("c", "a", **CPU), step("d", "b", "c", **CPU))
FAN = score(step("a", **CPU), step("b", each="a", **CPU), step("c", "b", **CPU))
WIDE = score(*(step(name, **CPU) for name in "abcd"))
RETRIED = score(step("a", retries=2, **CPU), step("b", "a", **CPU))
DELAYED = score(step("a", retries=2, backoff_s=100.0, **CPU), step("b", "a", **CPU))
ONCE = score(step("a", once=True, **CPU), step("b", "a", **CPU))
LAST = score(step("a", **CPU))
TWICE = score(*(step(name, once=name == "b", **CPU) for name in "abcd"))
"""One of its steps must not be run twice."""
TURNS = 8


class There:
    """The judge's mappings of a bench."""

    def __init__(self, bench: Bench) -> None:
        def attach(segment: Segment) -> Segment:
            return Segment.attach(segment.name, writable=True)

        self.table, self.out = attach(bench.table), attach(bench.channel.out)
        self.segment = attach(bench.run.segment)
        self.arenas = {number: attach(segment) for number, segment in bench.arenas.items()}
        self.geometry = bench.run.geometry
        self.own = Segment.attach_fd(bench.channel.in_.descriptor)
        self.player_side = Segment.attach_fd(bench.channel.in_.descriptor, writable=True)

    def run(self) -> Run:
        return Run(self.segment, self.table, self.geometry)


class LoopCase(Case):
    """An engine on the bench, and one call of one of the loop's kernels. `dead`: its player is, too."""

    unseen = True
    dead = False
    """Whether the player is dead too, its memory kept."""
    lost = False
    """Whether its memory is gone with it."""
    liar = False
    """Whether it did send what no honest one sends."""

    def __init__(self, home: Any, melody: Any = PLAIN, *, ready: bool = True, started: bool = True) -> None:
        self.bench = Bench(home, melody)
        self.loop, self.run, self.extension = self.bench.loop, self.bench.run, self.bench.extension
        self.segments = self.bench.segments
        if ready:
            self.loop.player_ready()
        if started:
            self.loop.run_started()
        self.loop.told()

    def allocated(self, segment: Segment) -> dict[str, int]:
        return self.run.allocated() if segment is self.run.segment else {}

    def steps(self, kernel: Any, *arguments: Any) -> "LoopCase":
        self.working = int(self.extension.words.working)
        self.act = kernel_call(kernel, *arguments)
        return self

    def drains(self) -> "LoopCase":
        return self.steps(kernels.drain, *self.loop.all, 0)

    # -- what the player has done -----------------------------------------------------------------------------

    def sent(self) -> list[dict[str, int]]:
        """Nodes that are dispatched now, in the order of their records."""
        self.loop.turn()
        self.loop.told()
        return self.extension.received()

    def answered(self, record: dict[str, int], outputs: list[Any], outcome: int = 0) -> None:
        self.extension.answer(record["node"], record["attempt"], outputs, GENERATION, outcome)

    # -- the judge ----------------------------------------------------------------------------------------------

    def attach(self) -> There:
        return There(self.bench)

    def live(self, there: There) -> Iterable[Any]:
        loop = Loop(there.table, there.run(), there.out, there.own)
        try:
            return loop.violations()
        finally:
            loop.close()

    def judge(self, there: There) -> tuple[Any, Iterable[Any]]:
        run = there.run()
        extension = Extension(there.out, there.player_side)
        extension.words.working = self.working
        problems = self._as_found(there, run, extension)
        loop = Loop(there.table, run, there.out, there.own)
        try:
            loop.give_arena(SPARE_ARENA, there.arenas[SPARE_ARENA])
            was_going = run.state in GOING
            loop.take_up(self.dead, self.lost)
            kinds = []
            for _ in range(TURNS):
                self._ask(loop)
                loop.turn()
                told = loop.told()
                self._serve(loop, told)
                kinds += [kind for kind, _ in told]
            problems += [str(violation) for violation in loop.violations()]
            if int(loop.players[0]["refused"]) and not self.liar:
                problems.append("its player is taken for a liar")
            if was_going and run.state not in GOING and state.RUN_ENDED not in kinds:
                problems.append("the run has ended and the clerk is not told")
            return self._truth(there, run, loop, extension), problems
        finally:
            loop.close()

    def _ask(self, loop: Loop) -> None:
        """What the Conductor that has come back asks of its loop, by what is written in the run's row."""
        if int(loop.run.row["wanted"]) and loop.run.state in (words.RUN_RUNNING, words.RUN_FAILING):
            loop.tell(state.RUN_CANCEL, 0, int(loop.maps[0]["serial"]))

    def _serve(self, loop: Loop, told: list[tuple[int, tuple[int, ...]]]) -> None:
        """The clerk of the Conductor that has come back: here it has nothing to copy but what is copied."""
        for kind, given in told:
            if kind == state.STORE:
                r, _, node, attempt, p = given[:5]
                first = int(loop.run.nodes[node]["output"])
                loop.run.outputs[
                    first : first + int(loop.run.steps[int(loop.run.nodes[node]["step"])]["output_count"])
                ]["slot"] = 0
                loop.tell(state.STORED, r, node, attempt, self.memory, p)
            elif kind == state.PART:
                loop.tell(state.STORED, 0, -1, 0, 1, given[0])

    memory = 1
    """Whether the clerk finds memory for outputs."""

    def _as_found(self, there: There, run: Run, extension: Extension) -> list[str]:
        """What the player, which lives on, may rely on at this very instant."""
        problems = []
        for record in extension.received():
            if record["kind"] != kernels.RECORD_DISPATCH:
                continue
            if words.attempt_of(run.word(record["node"])) < record["attempt"]:
                problems.append(f"node {record['node']} is sent and its word does not say so")
        consumer = ffi.cast("sym_ring_consumer_t *", there.out.address("command_head"))
        word = run.word(max(0, self.answers_for))
        waiting = words.state_of(word) == words.DISPATCHED and words.attempt_of(word) == 1
        if int(consumer.head) and self.answers_for >= 0 and waiting:
            problems.append("the completion is released and was not applied")
        return problems

    answers_for = -1

    def _truth(self, there: There, run: Run, loop: Loop, extension: Extension) -> Any:
        _, nodes, groups = run.truth()
        sent: dict[int, int] = {}
        for record in extension.received():
            if record["kind"] == kernels.RECORD_DISPATCH:
                sent[record["node"]] = sent.get(record["node"], 0) + 1
        told = []
        for node, row in enumerate(nodes):
            state_, flags = row[1], row[2]
            tries = tuple(int(run.cold[node][name]) for name in ("failures", "deaths"))
            waits = bool(int(run.cold[node]["not_before_ns"]))
            told.append((node, state_, flags, tries, waits, sent.get(node, 0), self._outputs(there, run, node)))
        seats = tuple(int(loop.seats[seat]["word"]) >> 61 for seat in range(WINDOW))
        rings = ffi.cast("sym_ring_consumer_t *", there.out.address("command_head"))
        left = int(ffi.cast("sym_ring_producer_t *", there.own.address("command")).tail) - int(rings.head)
        states = (int(loop.instances[0]["state"]), int(loop.players[0]["state"]))
        refused = int(loop.players[0]["refused"]) > 0
        return run.state, tuple(told), groups, tuple(sorted(seats)), states, left, refused

    @staticmethod
    def _outputs(there: There, run: Run, node: int) -> Any:
        """A done node's outputs as bytes, wherever they lie."""
        if run.state_of(node) != words.DONE or words.flags_of(run.word(node)) & words.FLAG_GROUP:
            return ()
        found = []
        for k in range(int(run.steps[int(run.nodes[node]["step"])]["output_count"])):
            ref = run.outputs[int(run.nodes[node]["output"]) + k]
            data = b""
            if int(ref["segment"]) in there.arenas:
                at = int(ref["offset_bytes"])
                data = bytes(there.arenas[int(ref["segment"])].buffer[at : at + int(ref["size_bytes"])])
            found.append((int(ref["kind"]), int(ref["count"]), data))
        return tuple(found)

    def close(self) -> None:
        del self.loop, self.run, self.extension
        self.act = None  # type: ignore[assignment]
        self.bench.close()


# -- completions ----------------------------------------------------------------------------------------------

ERROR = b"\x83\xa4type"
COMPLETIONS: dict[str, tuple[Any, list[Any], int]] = {
    "inline": (PLAIN, [b"forty-two"], 0),
    "arena": (PLAIN, [("arena", b"from the player's arena " * 9)], 0),
    "fan-out": (FAN, [3], 0),
    "last of the run": (LAST, [b"all"], 0),
    "failed, again at once": (RETRIED, [ERROR], kernels.OUTCOME_FAILED),
    "failed, again later": (DELAYED, [ERROR], kernels.OUTCOME_FAILED),
    "failed for good": (PLAIN, [ERROR], kernels.OUTCOME_FAILED),
    "no list to fan out over": (FAN, [b"no list"], 0),
}


def completion(home: Any, what: str) -> Case:
    """One record of the player's is drained: copied, checked, applied, passed on, released."""
    melody, outputs, outcome = COMPLETIONS[what]
    case = LoopCase(home, melody)
    (record,) = case.sent()
    case.answered(record, outputs, outcome)
    case.answers_for = record["node"]
    return case.drains()


def completions(effort: str) -> Iterator[dict[str, str]]:
    yield from ({"what": what} for what in COMPLETIONS)


def completion_cancelled(home: Any, heeded: bool) -> Case:
    """In a run that is being cancelled: the player heeded it, or was done before it heard."""
    case = LoopCase(home, PLAIN)
    (record,) = case.sent()
    kernels.cancel_run(case.loop.control, case.loop.maps, case.loop.active, case.loop.pmaps, 0)
    if heeded:
        case.answered(record, [ERROR], kernels.OUTCOME_CANCELLED)
        # An error value is what a cancelled handler leaves.
    else:
        case.answered(record, [b"done before"])
    case.answers_for = record["node"]
    return case.drains()


def several_completions(home: Any) -> Case:
    """Three records in one turn."""
    case = LoopCase(home, WIDE)
    for number, record in enumerate(case.sent()):
        case.answered(record, [bytes([number]) * 9])
    return case.drains()


def ready_record(home: Any) -> Case:
    """The player says that it is ready: its seats open."""
    case = LoopCase(home, PLAIN, ready=False)
    case.extension.send(kernels.RECORD_READY, b"")
    return case.drains()


def _part_of(node: int, at: int, size: int, total: int) -> bytes:
    told = ffi.new("sym_part_t *")
    told.node, told.run_generation, told.attempt, told.total_bytes = node, GENERATION, 1, total
    told.at_bytes, told.offset_bytes, told.size_bytes = at, at, size
    return bytes(ffi.buffer(told))


def piece(home: Any, copied: bool) -> Case:
    """A piece of a large output comes: it is the clerk's until he has copied it, and its record stays so long."""
    case = LoopCase(home, PLAIN)
    (record,) = case.sent()
    case.extension.send(kernels.RECORD_PART, _part_of(record["node"], 0, 512, 1024))
    if copied:
        case.loop.turn()
        case.loop.told()
        case.loop.tell(state.STORED, 0, -1, 0, 1, 0)
        kernels.read_inbox(*case.loop.all)
    return case.drains()


def in_pieces(home: Any) -> Case:
    """A completion whose first output was gathered from pieces, and whose second rides in the record: storing."""
    case = LoopCase(home, score(step("a", outputs=2, **CPU), step("b", "a", **CPU)))
    (record,) = case.sent()
    first = int(case.run.nodes[record["node"]]["output"])
    place = case.bench.arenas[FIRST_ARENA].offset("bytes") + 1024
    ref = case.run.outputs[first]
    ref["slot"], ref["size_bytes"], ref["segment"] = kernels.GATHERING, 512, FIRST_ARENA
    ref["first"], ref["count"] = -(-place // 64), 8
    case.answered(record, [Gathered(512), b"beside it"])
    return case.drains()


def lie(home: Any) -> Case:
    """A record that no honest player sends: counted, released, and nothing else."""
    case = LoopCase(home, PLAIN)
    case.sent()
    case.extension.answer(2, 1, [b"of a node that it was never sent"], GENERATION)
    case.liar, case.unseen = True, False
    return case.drains()


# -- dispatch -------------------------------------------------------------------------------------------------


def dispatch(home: Any, melody: str) -> Case:
    """What is ready goes out: capacity, seat, record, word, tail. One node, several in one burst, a fan-out's."""
    case = LoopCase(home, {"one": PLAIN, "several": WIDE, "members": FAN}[melody])
    if melody == "members":
        (record,) = case.sent()
        case.answered(record, [WINDOW])
        case.loop.turn(dispatching=False)
        case.loop.told()
    return case.steps(kernels.dispatch_ready, *case.loop.all)


def dispatches(effort: str) -> Iterator[dict[str, str]]:
    yield from ({"melody": melody} for melody in ("one", "several", "members"))


# -- messages of the clerk ------------------------------------------------------------------------------------


def start(home: Any) -> Case:
    """A run was queued: it begins."""
    case = LoopCase(home, PLAIN, started=False)
    case.loop.tell(state.RUN_START, 0)
    return case.steps(kernels.read_inbox, *case.loop.all)


def cancel(home: Any, flying: bool) -> Case:
    """Cancelled with nodes in flight, which are told, and with none, when it ends at once."""
    case = LoopCase(home, PLAIN, ready=flying)
    if flying:
        case.sent()
    case.run.row["wanted"] = 1
    case.loop.tell(state.RUN_CANCEL, 0, int(case.loop.maps[0]["serial"]))
    return case.steps(kernels.read_inbox, *case.loop.all)


def stored(home: Any, ok: int) -> Case:
    """The clerk says that a node's outputs are copied, or that there is no memory for them."""
    case = LoopCase(home, PLAIN)
    case.memory = ok
    (record,) = case.sent()
    node = record["node"]
    ref = case.run.outputs[int(case.run.nodes[node]["output"])]
    at = case.bench.arenas[FIRST_ARENA].offset("bytes")
    ref["kind"], ref["segment"], ref["offset_bytes"], ref["size_bytes"], ref["slot"] = 1, FIRST_ARENA, at, 16, 0
    machine.store(case.run.maps, 0, node, case.run.word(node), kernels.REASON_COMPLETED, 5)
    kernels.give_seat(case.loop.control, case.run.maps, case.loop.pmaps, 0, 0, node)
    case.loop.pmaps[0]["arena_outstanding"] = 1
    case.loop.tell(state.STORED, 0, node, 1, ok, 0)
    return case.steps(kernels.read_inbox, *case.loop.all)


def no_memory(home: Any, kind: str) -> Case:
    """The clerk finds no memory for the run's outputs, or for its fan-out: it fails."""
    case = LoopCase(home, PLAIN, ready=False)
    case.unseen = False
    if kind == "grown":
        case.loop.maps[0]["blocked"] = 1
        case.loop.tell(state.GROWN, 0, 0)
    else:
        case.loop.tell(state.ARENA, 0, int(case.loop.maps[0]["serial"]), 0)
    return case.steps(kernels.read_inbox, *case.loop.all)


def grown_at_start(home: Any) -> Case:
    """The run could not begin for want of room; there is room now."""
    case = LoopCase(home, PLAIN)
    case.loop.maps[0]["blocked"] = 2
    case.loop.tell(state.GROWN, 0, 1)
    return case.steps(kernels.read_inbox, *case.loop.all)


def no_player(home: Any) -> Case:
    """No player of the model can be had: runs that need one fail."""
    case = LoopCase(home, PLAIN, ready=False)
    case.unseen = False
    kernels.unlink_player(case.loop.pmaps, case.loop.mmaps, 0)
    case.loop.players[0]["state"] = constants["SYM_PLAYER_DEAD"]
    case.loop.instances[0]["state"] = 0
    case.lost = True
    case.loop.tell(state.MODEL_FAILED, 0)
    return case.steps(kernels.read_inbox, *case.loop.all)


def wake_delayed(home: Any) -> Case:
    """A back-off is over: the node is ready again."""
    case = LoopCase(home, DELAYED)
    (record,) = case.sent()
    case.answered(record, [ERROR], kernels.OUTCOME_FAILED)
    kernels.drain(*case.loop.all, 0)
    case.run.cold[record["node"]]["not_before_ns"] = 5
    return case.steps(kernels.wake_delayed, case.loop.control, case.loop.maps, case.loop.active)


def set_sleeping(home: Any, value: int) -> Case:
    """About to park, and awake again."""
    case = LoopCase(home, PLAIN)
    kernels.set_sleeping(case.loop.control, case.loop.pmaps, 1 - value)
    case.least_changes = 1
    return case.steps(kernels.set_sleeping, case.loop.control, case.loop.pmaps, value)


def player_dead(home: Any, what: str) -> Case:
    """A player died: nodes never begun are ready again, the one begun as its step allows, the seats close."""
    case = LoopCase(home, {"idle": PLAIN, "begun": WIDE, "once": ONCE}[what])
    case.dead = True
    records = case.sent()
    if what != "idle":
        case.extension.words.working = records[0]["position"]
    case.loop.tell(state.PLAYER_DEAD, 0)
    kernels.read_inbox(*case.loop.all)
    case.loop.told()
    return case.steps(kernels.bury, *case.loop.all)


def turn(home: Any) -> Case:
    """One whole turn of the loop, as its thread makes it: a completion comes, and the next nodes go out."""
    case = LoopCase(home, PLAIN)
    (record,) = case.sent()
    case.answered(record, [b"forty-two"])
    case.answers_for = record["node"]
    case.loop.tell(state.STOP)
    return case.steps(kernels.run_loop, *case.loop.all)


# -- coming back ----------------------------------------------------------------------------------------------


class ComingBack(LoopCase):
    """The first Conductor is dead; the second, killed in the middle of taking over, is the one that is stepped."""

    least_changes = 1

    def __init__(self, home: Any, melody: Any) -> None:
        super().__init__(home, melody)
        self.second: Loop | None = None

    def second_life(self) -> Loop:
        """What the second Conductor has of private memory when it begins."""
        self.run.fresh_maps()
        self.second = Loop(self.bench.table, self.run, self.bench.channel.out, self.bench.channel.in_)
        self.second.give_arena(SPARE_ARENA, self.bench.arenas[SPARE_ARENA])
        return self.second

    def live(self, there: There) -> Iterable[Any]:
        return ()

    def close(self) -> None:
        if self.second is not None:
            self.second.close()
        del self.second
        super().close()


def _left_in_flight(home: Any, melody: Any = WIDE) -> ComingBack:
    """Killed after a burst whose tail was not published, with one completion waiting: all sorts of nodes in flight."""
    case = ComingBack(home, melody)
    loop = case.loop
    for _ in range(2):
        vertex = machine.first_ready(loop.maps, 0, 0)
        assert kernels.send(loop.control, loop.maps, loop.pmaps, 0, 0, vertex) == 1
        machine.take_head(loop.maps, 0, vertex, vertex)
    kernels.publish(loop.control, loop.pmaps, 0)
    vertex = machine.first_ready(loop.maps, 0, 0)
    assert kernels.send(loop.control, loop.maps, loop.pmaps, 0, 0, vertex) == 1
    first = case.extension.received()[0]
    case.answered(first, [b"while nobody was there"])
    return case


def settle(home: Any) -> Case:
    """What becomes of each node that was in flight."""
    case = _left_in_flight(home)
    loop = case.second_life()
    resources, named = loop.resources.view(RESOURCE), np.zeros(WINDOW + 1, np.uint8)
    reattach.take_up_player(loop.control, loop.pmaps, loop.mmaps, 0, True, False)
    return case.steps(reattach.settle_run, loop.control, loop.maps, loop.pmaps, named, resources, 1, 0)


def settle_lost(home: Any) -> Case:
    """The same when the player's memory is gone with it: what it had may have been begun."""
    case = _left_in_flight(home, TWICE)
    case.lost = True
    loop = case.second_life()
    loop.pmaps[0]["tail"] = UNKNOWN_TAIL
    resources, named = loop.resources.view(RESOURCE), np.zeros(WINDOW + 1, np.uint8)
    return case.steps(reattach.settle_run, loop.control, loop.maps, loop.pmaps, named, resources, 1, 0)


def give_back_seats(home: Any) -> Case:
    """Seats that no node in flight names are free."""
    case = _left_in_flight(home)
    loop = case.second_life()
    resources, named = loop.resources.view(RESOURCE), np.zeros(WINDOW + 1, np.uint8)
    reattach.take_up_player(loop.control, loop.pmaps, loop.mmaps, 0, True, False)
    reattach.settle_run(loop.control, loop.maps, loop.pmaps, named, resources, 1, 0)
    return case.steps(reattach.give_back_seats, loop.seats.view(SEAT), WINDOW + 1, OWNER_SELF, named)


def resume(home: Any) -> Case:
    """The run goes on."""
    case = _left_in_flight(home)
    loop = case.second_life()
    resources, named = loop.resources.view(RESOURCE), np.zeros(WINDOW + 1, np.uint8)
    reattach.take_up_player(loop.control, loop.pmaps, loop.mmaps, 0, True, False)
    reattach.settle_run(loop.control, loop.maps, loop.pmaps, named, resources, 1, 0)
    reattach.give_back_seats(loop.seats.view(SEAT), WINDOW + 1, OWNER_SELF, named)
    return case.steps(reattach.resume_run, loop.control, loop.maps, loop.active, loop.pmaps, 0)


_L, _A = "symphony.conductor.loop.", "symphony.conductor.reattach."
_COMPLETES = tuple(
    _L + name
    for name in ("drain", "on_completion", "settle", "retry_or_fail", "outputs_fit", "copy_outputs", "give_seat")
)
OPERATIONS = (
    Operation("loop.drain", _COMPLETES, completion, completions),
    Operation("loop.drain, cancelled", _COMPLETES, completion_cancelled, lambda e: [{"heeded": h} for h in (False, True)]),
    Operation("loop.drain, several", _COMPLETES, several_completions),
    Operation("loop.drain, ready", (_L + "on_ready",), ready_record),
    Operation("loop.drain, piece", (_L + "on_part",), piece, lambda e: [{"copied": c} for c in (False, True)]),
    Operation("loop.drain, in pieces", (_L + "hand_to_clerk",), in_pieces),
    Operation("loop.drain, lie", (_L + "bad_player", _L + "applied_before"), lie),
    Operation("loop.dispatch_ready", (_L + "dispatch_ready",), dispatch, dispatches),
    Operation("loop.read_inbox, start", (_L + "read_inbox", _L + "start_run"), start),
    Operation("loop.read_inbox, cancel", (_L + "cancel_run",), cancel, lambda e: [{"flying": f} for f in (False, True)]),
    Operation("loop.read_inbox, stored", (_L + "on_stored",), stored, lambda e: [{"ok": ok} for ok in (0, 1)]),
    Operation("loop.read_inbox, no memory", (_L + "on_grown", _L + "give_run_arena"), no_memory,
              lambda e: [{"kind": kind} for kind in ("grown", "arena")]),
    Operation("loop.read_inbox, grown", (_L + "on_grown",), grown_at_start),
    Operation("loop.read_inbox, no player", (_L + "model_failed",), no_player),
    Operation("loop.wake_delayed", (_L + "wake_delayed",), wake_delayed),
    Operation("loop.set_sleeping", (_L + "set_sleeping",), set_sleeping, lambda e: [{"value": value} for value in (0, 1)]),
    Operation("loop.bury", (_L + "bury", _L + "take_back"), player_dead,
              lambda e: [{"what": what} for what in ("idle", "begun", "once")]),
    Operation("loop.turn", (_L + "run_loop",), turn),
    Operation("loop.settle_run", (_A + "settle_run", _A + "settle_unseen"), settle),
    Operation("loop.settle_run, lost", (_A + "settle_lost",), settle_lost),
    Operation("loop.give_back_seats", (_A + "give_back_seats",), give_back_seats),
    Operation("loop.resume_run", (_A + "resume_run", _A + "take_up_player"), resume),
)  # fmt: skip
