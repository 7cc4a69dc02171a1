"""The tracker's kernels, each from every state of a run that it can meet."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from symphony.native.kernels import loading
from symphony.pit.dag.room import raw_graph
from tools.stepping.core import Case, Operation
from tools.stepping.operations.run import NOW, PLAYER, SEAT, RunCase, score, step

with loading():
    from symphony.pit.dag import machine, raw
    from symphony.pit.dag import word as words

PLAIN = score(step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c"))
FAN = score(step("a"), step("b", each="a"), step("c", "b"))
BATCHED = score(step("a"), step("b", each="a", batch=2, outputs=2), step("c", each="b"), step("d", "c"))
CHAIN = score(step("a"), step("b", each="a"), step("c", each="b"), step("d", each="c"), step("e", "d"))
"""With empty lists every fan-out of it completes at once, one through the other."""
TWO_FANS = score(step("s"), step("t"), step("f", each="t"), step("g", each="s"), step("end", "f", "g"))
RETRIED = score(step("a", retries=2, backoff_s=1.0), step("b", "a"))


# -- dispatch ---------------------------------------------------------------------------------------------


def dispatch(home: Any, what: str) -> Case:
    """A node taken out of the ready set, about to be committed: the first try, a member of a fan-out, a further try."""
    case = RunCase(home, FAN if what == "member" else PLAIN)
    run = case.run
    if what == "member":
        run.complete(run.dispatch_next())
        run.dispatch_next()
    node = run.next_ready()
    case.half_done = True
    if what == "again":
        run.dispatch(node)
        machine.release(run.maps, 0, node, run.word(node), 5, NOW)
    return case.kernel(machine.dispatch, node, PLAYER, 128, SEAT, NOW)


def dispatch_done(home: Any) -> Case:
    """A node that is not pending: refused."""
    case = RunCase(home, PLAIN)
    node = case.run.dispatch_next()
    case.unseen = True
    return case.kernel(machine.dispatch, node, PLAYER, 128, SEAT, NOW)


# -- completion -------------------------------------------------------------------------------------------


def _plain(case: RunCase) -> int:
    return case.run.dispatch_next()


def _last_dependency(case: RunCase) -> int:
    run = case.run
    run.complete(run.dispatch_next())
    first, second = run.dispatch_next(), run.dispatch_next()
    run.complete(first)
    return second


def _member(case: RunCase) -> int:
    case.run.complete(case.run.dispatch_next(), 3)
    case.run.dispatch_next()
    return case.run.dispatch_next()


def _last_member(case: RunCase) -> int:
    run = case.run
    run.complete(run.dispatch_next())
    first, second = run.dispatch_next(), run.dispatch_next()
    run.complete(first)
    return second


def _last_of_all(case: RunCase) -> int:
    return case.run.play_until("d")


COMPLETIONS: dict[str, tuple[Any, Callable[[RunCase], int], int]] = {
    "plain": (PLAIN, _plain, 2),
    "last dependency": (PLAIN, _last_dependency, 2),
    "last of all": (PLAIN, _last_of_all, 2),
    "fan-out": (FAN, _plain, 3),
    "fan-out in batches": (BATCHED, _plain, 5),
    "fan-out of nothing": (FAN, _plain, 0),
    "fan-outs of nothing, chained": (CHAIN, _plain, 0),
    "member": (FAN, _member, 2),
    "last member": (FAN, _last_member, 2),
    "fan-out over a fan-out": (BATCHED, lambda case: case.run.play_until("b", 2), 3),
    "no list": (FAN, _plain, -1),
}


def _ready_to_complete(home: Any, what: str) -> tuple[RunCase, int]:
    made, reach, items = COMPLETIONS[what]
    case = RunCase(home, made)
    node = reach(case)
    if items < 0:
        case.unseen = True
        case.run.write_output(int(case.run.nodes[node]["output"]), 0, kind=1)
    else:
        case.run.write_outputs(node, items)
    return case, node


def complete(home: Any, what: str) -> Case:
    case, node = _ready_to_complete(home, what)
    return case.kernel(machine.complete, node, case.run.word(node), 3, NOW)


def stored(home: Any, what: str) -> Case:
    """The same for a node whose outputs had to be copied first."""
    case, node = _ready_to_complete(home, what)
    machine.store(case.run.maps, 0, node, case.run.word(node), 3, NOW)
    return case.kernel(machine.complete, node, case.run.word(node), 10, NOW)


def completions(effort: str) -> Iterator[dict[str, str]]:
    yield from ({"what": what} for what in COMPLETIONS)


def complete_early_end(home: Any, state: int, what: str) -> Case:
    """In a run that fails or is cancelled: the result is kept and nothing follows from it."""
    case = RunCase(home, {"plain": PLAIN, "last member": FAN, "fan-out": TWO_FANS}[what])
    if what == "fan-out":
        # One fan-out is there, the other's source completes only now.
        run = case.run
        first, node = run.dispatch_next(), run.dispatch_next()
        if run.name_of(first) == "s":
            first, node = node, first
        run.complete(first)
    else:
        node = (_plain if what == "plain" else _last_member)(case)
    case.run.write_outputs(node)
    machine.move_run(case.run.maps, 0, state, 8, NOW)
    return case.kernel(machine.complete, node, case.run.word(node), 3, NOW)


def early_ends(effort: str) -> Iterator[dict[str, Any]]:
    for state in (words.RUN_FAILING, words.RUN_CANCELLING):
        yield from ({"state": state, "what": what} for what in ("plain", "last member", "fan-out"))


def finish(home: Any) -> Case:
    """The word says done and nothing more was done: what a completion by another thread leaves to the driver."""
    case = RunCase(home, PLAIN)
    node = case.run.dispatch_next()
    case.run.write_outputs(node)
    machine.move_node(case.run.maps, 0, node, case.run.word(node), words.DONE, 1, PLAYER, 3, NOW)
    case.run.row["flight_count"] -= 1
    case.unseen, case.half_done = True, True
    return case.kernel(machine.finish, node)


# -- other edges ------------------------------------------------------------------------------------------


def _in_flight(home: Any, made: Any = PLAIN) -> tuple[RunCase, int]:
    case = RunCase(home, made)
    return case, case.run.dispatch_next()


def store(home: Any) -> Case:
    case, node = _in_flight(home)
    case.run.write_outputs(node)
    return case.kernel(machine.store, node, case.run.word(node), 3, NOW)


def fail(home: Any) -> Case:
    case, node = _in_flight(home)
    return case.kernel(machine.fail, node, case.run.word(node), 4, NOW)


def fail_stored(home: Any) -> Case:
    case, node = _in_flight(home)
    case.run.write_outputs(node)
    machine.store(case.run.maps, 0, node, case.run.word(node), 3, NOW)
    return case.kernel(machine.fail, node, case.run.word(node), 12, NOW)


def cancel(home: Any) -> Case:
    case, node = _in_flight(home)
    machine.move_run(case.run.maps, 0, words.RUN_CANCELLING, 9, NOW)
    return case.kernel(machine.cancel_node, node, case.run.word(node), NOW)


def release(home: Any) -> Case:
    """A retry, first half: the node goes back."""
    case, node = _in_flight(home, RETRIED)
    case.half_done = True
    return case.kernel(machine.release, node, case.run.word(node), 5, NOW)


def put_back(home: Any, what: str) -> Case:
    """Second half: it is ready again, alone or in the chain of its fan-out."""
    case = RunCase(home, FAN if what == "member" else PLAIN)
    run = case.run
    if what == "member":
        run.complete(run.dispatch_next(), 3)
        first = run.dispatch_next()
        machine.release(run.maps, 0, first, run.word(first), 5, NOW)
        machine.put_back(run.maps, 0, first)
        run.next_ready()
        run.dispatch(first)
        run.dispatch_next()
        node = first
    else:
        node = run.dispatch_next()
    machine.release(run.maps, 0, node, run.word(node), 5, NOW)
    case.unseen, case.half_done = True, True
    return case.kernel(machine.put_back, node)


def take_head(home: Any, what: str) -> Case:
    """Out of the ready set, ahead of the dispatch: nobody can tell."""
    case = RunCase(home, FAN if what == "member" else PLAIN)
    run = case.run
    if what == "member":
        run.complete(run.dispatch_next(), 2)
    vertex = machine.first_ready(run.maps, 0, 0)
    node = machine.head_node(run.maps, 0, vertex)
    case.unseen, case.half_done = True, True
    return case.kernel(machine.take_head, vertex, node)


def singles_and_members(effort: str) -> Iterator[dict[str, str]]:
    yield from ({"what": what} for what in ("single", "member"))


def push_ready(home: Any) -> Case:
    case = RunCase(home, PLAIN)
    case.unseen, case.half_done = True, True
    vertex = machine.first_ready(case.run.maps, 0, 0)
    machine.drop_ready(case.run.maps, 0, vertex)
    return case.kernel(machine.push_ready, vertex)


def drop_ready(home: Any) -> Case:
    case = RunCase(home, PLAIN)
    case.unseen, case.half_done = True, True
    return case.kernel(machine.drop_ready, machine.first_ready(case.run.maps, 0, 0))


def clear_ready(home: Any) -> Case:
    case = RunCase(home, PLAIN)
    case.unseen, case.half_done = True, True
    return case.kernel(machine.clear_ready)


def expand(home: Any, items: int) -> Case:
    """A fan-out's nodes and row are written before its source's word: without the word they are dropped."""
    case = RunCase(home, FAN)
    node = case.run.dispatch_next()
    case.run.write_outputs(node, items)
    case.unseen, case.half_done = True, True
    return case.kernel(machine.expand, 0)


def tell(home: Any, full: bool) -> Case:
    """One record of the story, with room and over the oldest one: what a reader believes is never half of two."""
    case = RunCase(home, PLAIN)
    if full:
        for number in range(int(case.run.graph["story_capacity"]) + 5):
            machine.tell(case.run.maps, 0, number & 3, 0, 1, 2, number, number, NOW + number)
    case.unseen = True
    case.least_changes = 4
    return case.kernel(machine.tell, 1, 0, 1, 2, PLAYER, 1, NOW)


def moves(effort: str) -> Iterator[dict[str, Any]]:
    for before in range(10):
        for after in range(10):
            if words.RUN_EDGES[before] >> after & 1:
                yield {"before": before, "after": after}


def move_run(home: Any, before: int, after: int) -> Case:
    """Every edge of a run's table."""
    case = RunCase(home, PLAIN, before)
    return case.kernel(machine.move_run, after, 1, NOW)


def node_edges(effort: str) -> Iterator[dict[str, int]]:
    for before in range(8):
        for after in range(8):
            if words.NODE_EDGES[before] >> after & 1:
                yield {"before": before, "after": after}


def move_node(home: Any, before: int, after: int) -> Case:
    """Every edge of a node's table."""
    case = RunCase(home, PLAIN)
    run = case.run
    node = 1
    if before != words.PENDING:
        assert run.dispatch_next() == node
        run.write_outputs(node)
    if before == words.STORING:
        machine.store(run.maps, 0, node, run.word(node), 3, NOW)
    if after in (words.SKIPPED, words.CANCELLED):
        machine.move_run(run.maps, 0, words.RUN_FAILING if after == words.SKIPPED else words.RUN_CANCELLING, 8, NOW)
    case.half_done = True
    return case.kernel(machine.move_node, node, run.word(node), after, max(1, before), PLAYER, 3, NOW)


class Several(RunCase):
    """A kernel that commits one node after the other: between two of them it may be found, with all before it done."""

    def between(self, before: Any, after: Any) -> list[Any]:
        (run, nodes, groups), (_, later, _) = before, after
        changed = [index for index, pair in enumerate(zip(nodes, later, strict=True)) if pair[0] != pair[1]]
        found = []
        for done in range(len(changed) + 1):
            mixed = tuple(later[i] if i in changed[:done] else row for i, row in enumerate(nodes))
            found.append((run, mixed, groups))
        return [*found[:-1], after]


def abandon(home: Any, state: int, word: int) -> Case:
    """A run that is over early: what is pending is skipped, or cancelled, one by one."""
    case = Several(home, FAN)
    run = case.run
    run.complete(run.dispatch_next(), 3)
    machine.move_run(run.maps, 0, state, 8, NOW)
    return case.kernel(machine.abandon, word, 8, NOW)


def abandoning(effort: str) -> Iterator[dict[str, int]]:
    yield {"state": words.RUN_FAILING, "word": words.SKIPPED}
    yield {"state": words.RUN_CANCELLING, "word": words.CANCELLED}


# -- recovery itself --------------------------------------------------------------------------------------


def _at_start(case: RunCase) -> None:
    pass


def _half_way(case: RunCase) -> None:
    run = case.run
    run.complete(run.dispatch_next(), 3)
    first, second = run.dispatch_next(), run.dispatch_next()
    run.complete(first, 2)
    machine.release(run.maps, 0, second, run.word(second), 5, NOW)


def _failing(case: RunCase) -> None:
    run = case.run
    first, second = run.dispatch_next(), run.dispatch_next()
    run.complete(first)
    machine.move_run(run.maps, 0, words.RUN_FAILING, 8, NOW)
    run.complete(second)


REBUILDS: dict[str, tuple[Any, Callable[[RunCase], None]]] = {
    "at the start": (BATCHED, _at_start),
    "half way": (BATCHED, _half_way),
    "plain": (PLAIN, lambda case: case.run.play_until("c") and None),
    "failing": (TWO_FANS, _failing),
    "over an input": (score(step("b", each=""), step("c", "b"), step("d", each="b")), _at_start),
}


def rebuild(home: Any, what: str) -> Case:
    """Killed at every instruction and done again: what recovery leaves is recovered."""
    made, reach = REBUILDS[what]
    case = RunCase(home, made)
    reach(case)
    case.unseen, case.least_changes, case.half_done = True, 4, True
    return case.kernel(machine.rebuild, NOW)


def rebuilding(effort: str) -> Iterator[dict[str, str]]:
    yield from ({"what": what} for what in REBUILDS)


# -- raw graphs -------------------------------------------------------------------------------------------

DIAMOND = ([(0, 1), (0, 2), (1, 3), (2, 3)], 4)


class RawCase(RunCase):
    """A raw graph, which its submitter drives: several commits in a call. Each state between two commits is that of
    the same call made shorter, done to its end."""

    def __init__(self, home: Any) -> None:
        super().__init__(home, raw_graph(*DIAMOND))

    def between(self, before: Any, after: Any) -> list[Any]:
        return self.states


def _truths(case: RawCase, *calls: Callable[[], Any]) -> None:
    """The truths after each of these calls, which end where the stepped one does; the memory is put back."""
    run = case.run
    kept = [(table, table.copy()) for table in (run.segment.table(name) for name in run.segment.regions)]
    row, maps = run.row.copy(), run.maps.copy()
    case.states = [run.truth()]
    for call in calls:
        call()
        case.states.append(run.truth())
    for table, copy in kept:
        table[:] = copy
    run.table.table("runs")[0] = row
    run.maps[:] = maps


def hand_out(home: Any) -> Case:
    """Two ready nodes in one call."""
    case = RawCase(home)
    run = case.run
    run.complete(run.dispatch_next())
    one = np.zeros(1, np.int64)
    _truths(case, lambda: raw.hand_out(run.maps, 0, one, NOW), lambda: raw.hand_out(run.maps, 0, one, NOW))
    return case.kernel(raw.hand_out, np.zeros(4, np.int64), NOW)


def complete_many(home: Any, last: bool) -> Case:
    """Two nodes in one call; or the last one, and with it the run."""
    case = RawCase(home)
    run = case.run
    run.complete(run.dispatch_next())
    nodes = [run.dispatch_next(), run.dispatch_next()]
    if last:
        for node in nodes:
            run.complete(node)
        nodes = [run.dispatch_next()]
    calls = [lambda node=node: run.complete(node) for node in nodes]
    if last:
        calls.append(lambda: machine.move_run(run.maps, 0, words.RUN_COMPLETED, 3, NOW))
    for node in nodes:
        run.write_outputs(node)
    _truths(case, *calls)
    return case.kernel(raw.complete_many, np.array(nodes, np.int64), NOW)


def play_through(home: Any) -> Case:
    case = RawCase(home)
    run = case.run
    calls = []
    for node in range(4):
        run.write_outputs(node)
        calls += [run.dispatch_next, lambda node=node: run.complete(node)]
    calls.append(lambda: machine.move_run(run.maps, 0, words.RUN_COMPLETED, 3, NOW))
    order: list[Any] = []

    def dispatched() -> None:
        node = run.next_ready()
        machine.dispatch(run.maps, 0, node, 0, 0, -1, NOW)
        order.append(node)

    calls = []
    for _ in range(4):
        calls += [dispatched, lambda: run.complete(order[-1])]
    calls.append(lambda: machine.move_run(run.maps, 0, words.RUN_COMPLETED, 3, NOW))
    _truths(case, *calls)
    return case.kernel(raw.play_through, NOW)


_M, _R = "symphony.pit.dag.machine.", "symphony.pit.dag.raw."
OPERATIONS = (
    Operation("dag.dispatch", (_M + "dispatch",), dispatch, lambda e: [{"what": w} for w in ("single", "member", "again")]),
    Operation("dag.dispatch, refused", (_M + "dispatch",), dispatch_done),
    Operation("dag.complete", (_M + "complete",), complete, completions),
    Operation("dag.complete, stored", (_M + "complete",), stored, completions),
    Operation("dag.complete, run at its end", (_M + "complete",), complete_early_end, early_ends),
    Operation("dag.finish", (_M + "finish",), finish),
    Operation("dag.store", (_M + "store",), store),
    Operation("dag.fail", (_M + "fail",), fail),
    Operation("dag.fail, stored", (_M + "fail",), fail_stored),
    Operation("dag.cancel_node", (_M + "cancel_node",), cancel),
    Operation("dag.release", (_M + "release",), release),
    Operation("dag.put_back", (_M + "put_back",), put_back, singles_and_members),
    Operation("dag.take_head", (_M + "take_head",), take_head, singles_and_members),
    Operation("dag.push_ready", (_M + "push_ready",), push_ready),
    Operation("dag.drop_ready", (_M + "drop_ready",), drop_ready),
    Operation("dag.clear_ready", (_M + "clear_ready",), clear_ready),
    Operation("dag.expand", (_M + "expand",), expand, lambda effort: [{"items": items} for items in (0, 1, 5)]),
    Operation("dag.tell", (_M + "tell",), tell, lambda effort: [{"full": full} for full in (False, True)]),
    Operation("dag.move_node", (_M + "move_node",), move_node, node_edges),
    Operation("dag.move_run", (_M + "move_run",), move_run, moves),
    Operation("dag.abandon", (_M + "abandon",), abandon, abandoning),
    Operation("dag.rebuild", (_M + "rebuild",), rebuild, rebuilding),
    Operation("dag.hand_out", (_R + "hand_out",), hand_out),
    Operation("dag.complete_many", (_R + "complete_many",), complete_many, lambda e: [{"last": last} for last in (False, True)]),
    Operation("dag.play_through", (_R + "play_through",), play_through),
)  # fmt: skip
