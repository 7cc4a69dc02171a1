"""The tracker's machine: whatever the order of completions, retries and rebuilds, its invariants hold after each."""

import random

import pytest

from symphony.model.score import InputType, Score, Slot, Source, Step
from symphony.native.kernels import loading
from symphony.native.layout import constants
from symphony.pit.tables import NONE
from tests.pit.conftest import random_score

with loading():
    from symphony.pit.dag import machine
    from symphony.pit.dag.word import (
        CANCELLED,
        DISPATCHED,
        DONE,
        FAILED,
        PENDING,
        SKIPPED,
        STORING,
        attempt_of,
        state_of,
    )

SEEDS = [random.SystemRandom().randrange(1 << 32) for _ in range(12)]


def step(name, *needs, each=None, batch=0, outputs=1, **options):
    slots = [Slot(source=Source(need)) for need in needs]
    if each is not None:
        slots.append(Slot(each=True, many=batch > 0))
    return Step(
        name, "test.work", "test", "work", slots=slots, each=None if each is None else Source(each), batch=batch,
        outputs=[""] if outputs == 1 else [f"o{k}" for k in range(outputs)], **options,
    )  # fmt: skip


def score(*steps):
    return Score("test", {"items": InputType("list")}, ["items"], list(steps))


def play(run, rng, items=lambda: 2):
    """Until nothing is left: dispatch and complete in random order."""
    while True:
        assert run.violations() == []
        if run.flying and rng.random() < 0.5:
            assert run.complete(rng.choice(run.flying), items()) == machine.OK
        elif run.dispatch_one() < 0:
            if not run.flying:
                return
            assert run.complete(rng.choice(run.flying), items()) == machine.OK


@pytest.mark.parametrize("seed", SEEDS)
def test_any_melody_in_any_order_completes_each_node_once(driven, seed):
    print(f"seed {seed}")
    rng = random.Random(seed)
    run = driven(random_score(rng, rng.randint(1, 12)))
    play(run, rng, lambda: rng.choice((0, 1, 2, 5)))
    assert int(run.segment.table("graph")[0]["vertices_left"]) == 0
    assert set(run.completed.values()) <= {1}
    states = {state_of(run.word(node)) for node in run.completed}
    assert states <= {DONE}


@pytest.mark.parametrize("seed", SEEDS[:6])
def test_retries_and_rebuilds_in_between_change_nothing(driven, seed):
    print(f"seed {seed}")
    rng = random.Random(seed)
    run = driven(random_score(rng, rng.randint(2, 10)))
    while True:
        assert run.violations() == []
        act = rng.random()
        if act < 0.15:
            run.rebuild()
        elif act < 0.3 and run.flying:
            run.give_back(rng.choice(run.flying))
        elif act < 0.65 and run.flying:
            assert run.complete(rng.choice(run.flying), rng.choice((0, 1, 3))) == machine.OK
        elif run.dispatch_one() < 0 and not run.flying:
            break
    assert int(run.segment.table("graph")[0]["vertices_left"]) == 0
    assert set(run.completed.values()) <= {1}


def test_a_dependent_waits_for_all_it_needs(driven):
    run = driven(score(step("a"), step("b"), step("c", "a", "b")))
    first, second = run.dispatch_one(), run.dispatch_one()
    assert run.dispatch_one() == -1
    run.complete(first, 1)
    assert run.dispatch_one() == -1
    run.complete(second, 1)
    assert run.dispatch_one() == 3


def test_the_longest_way_goes_first(driven):
    run = driven(
        score(step("short", estimate_s=1.0), step("long", estimate_s=2.0), step("end", "short", estimate_s=5.0))
    )
    assert [run.dispatch_one(), run.dispatch_one()] == [1, 2]


def test_a_fan_out_over_a_fan_out_is_flattened_once(driven):
    run = driven(score(step("a"), step("b", each="a"), step("c", each="b", batch=4), step("join", "c")))
    run.complete(run.dispatch_one(), 5)
    members = [run.dispatch_one() for _ in range(5)]
    assert run.dispatch_one() == -1
    for items, node in zip((3, 0, 0, 4, 2), members, strict=True):
        run.complete(node, items)
    batches = [run.dispatch_one() for _ in range(3)]
    cold = run.segment.table("cold")
    first = int(run.segment.table("nodes")[members[0]]["output"])
    places = [
        (int(cold[n]["item_node"]) - first, int(cold[n]["item_first"]), int(cold[n]["item_count"])) for n in batches
    ]
    assert places == [(0, 0, 4), (3, 1, 4), (4, 1, 1)]
    for node in batches:
        run.complete(node, 1)
    assert run.dispatch_one() == 4
    assert run.violations() == []


def test_a_chain_of_empty_fan_outs_completes_at_once(driven):
    run = driven(score(step("a"), step("b", each="a"), step("c", each="b"), step("d", each="c"), step("end", "d")))
    run.complete(run.dispatch_one(), 0)
    assert run.violations() == []
    end = run.dispatch_one()
    assert end == 5
    run.complete(end, 0)
    assert int(run.segment.table("graph")[0]["vertices_left"]) == 0


def test_a_fan_out_larger_than_its_room_asks_for_more_and_goes_on(driven):
    run = driven(score(step("a"), step("b", each="a")))
    capacity = int(run.segment.table("graph")[0]["node_capacity"])
    run.complete(run.dispatch_one(), 3 * capacity)
    assert int(run.row[0]["node_count"]) == 3 + 3 * capacity
    assert run.violations() == []


def test_a_completion_of_another_attempt_player_or_generation_is_refused(driven):
    run = driven(score(step("a")))
    node = run.dispatch_one()
    word = run.word(node)
    attempt = attempt_of(word)
    assert machine.check(run.maps, 0, node, 7, attempt, 3) == word
    for generation, tried, player in ((8, attempt, 3), (7, attempt + 1, 3), (7, attempt, 4), (7, 0, 3)):
        assert machine.check(run.maps, 0, node, generation, tried, player) == machine.REFUSED
    for nowhere in (-1, 2, 1 << 30):
        assert machine.check(run.maps, 0, nowhere, 7, attempt, 3) == machine.REFUSED
    run.complete(node, 1)
    assert machine.check(run.maps, 0, node, 7, attempt, 3) == machine.REFUSED


def test_finishing_twice_counts_once(driven):
    run = driven(score(step("a"), step("b", "a"), step("c", "b")))
    run.complete(run.dispatch_one(), 1)
    before = run.segment.table("remaining").copy()
    assert machine.finish(run.maps, 0, 1) == machine.OK
    assert (run.segment.table("remaining") == before).all()


def test_edges_that_the_table_does_not_list_are_refused(driven):
    run = driven(score(step("a")))
    node = run.dispatch_one()
    listed = {PENDING: {DISPATCHED, SKIPPED, CANCELLED, 7}, DISPATCHED: {DONE, STORING, FAILED, PENDING, CANCELLED},
              STORING: {DONE, FAILED, PENDING}}  # fmt: skip
    words = run.segment.table("nodes")["word"]
    low = run.word(node) & (1 << 60) - 1
    for before in range(8):
        for after in range(8):
            words[node] = before << 60 | low
            verdict = machine.move_node(run.maps, 0, node, before << 60 | low, after, 1, 3, 0, 1)
            assert (verdict == 1) == (after in listed.get(before, set())), (before, after)
    words[node] = DISPATCHED << 60 | low


def test_a_step_that_fans_out_over_no_list_is_refused_and_changes_nothing(driven):
    run = driven(score(step("a"), step("b", each="a")))
    node = run.dispatch_one()
    before = run.word(node)
    assert machine.complete(run.maps, 0, node, before, 3, 1) == machine.NOT_A_LIST
    assert run.word(node) == before
    assert run.violations() == []


FAILING, CANCELLING = constants["SYM_RUN_FAILING"], constants["SYM_RUN_CANCELLING"]


@pytest.mark.parametrize("early_end", [FAILING, CANCELLING])
def test_a_run_that_goes_no_further_keeps_its_fan_outs_apart_when_rebuilt(driven, early_end):
    """The source of the one fan-out comes to its end when nothing is expanded any more; the other's nodes stay."""
    run = driven(score(step("s"), step("t"), step("late", each="s"), step("there", each="t")))
    flying = [run.dispatch_one(), run.dispatch_one()]
    run.complete(2, 3)
    assert sorted(flying) == [1, 2]
    member = run.dispatch_one()
    machine.move_run(run.maps, 0, early_end, 8, 1)
    run.complete(1, 3)
    before = run.word(member)
    run.rebuild()
    assert run.violations() == []
    assert run.word(member) == before
    assert not run.segment.table("groups")[0]["expanded"]


@pytest.mark.parametrize("early_end", [FAILING, CANCELLING])
def test_the_last_member_completes_its_fan_out_in_a_run_that_goes_no_further(driven, early_end):
    run = driven(score(step("a"), step("b", each="a"), step("c", "b")))
    run.complete(run.dispatch_one(), 2)
    members = [run.dispatch_one(), run.dispatch_one()]
    machine.move_run(run.maps, 0, early_end, 8, 1)
    for member in members:
        assert run.complete(member, 1) == machine.OK
        assert run.violations() == []
    assert run.dispatch_one() == -1


def test_a_driver_that_died_between_a_failure_and_its_runs_word_leaves_a_failing_run(driven):
    run = driven(score(step("a"), step("b", "a")))
    node = run.dispatch_one()
    assert machine.fail(run.maps, 0, node, run.word(node), 4, 1) == 1
    assert machine.run_state(run.maps, 0) == constants["SYM_RUN_RUNNING"]
    run.rebuild()
    assert machine.run_state(run.maps, 0) == FAILING
    assert run.violations() == []


def test_validate_sees_what_is_broken(driven):
    run = driven(score(step("a"), step("b", "a"), step("c", each="b")))
    run.complete(run.dispatch_one(), 1)
    graph, nodes = run.segment.table("graph")[0], run.segment.table("nodes")
    for invariant, table, index in (
        ("I2", run.segment.table("marks"), 1), ("I3", run.segment.table("remaining"), 3),
        ("I6", run.segment.table("ready"), 0), ("I7", run.segment.table("summary"), 0),
    ):  # fmt: skip
        kept = table[index]
        table[index] = kept ^ kept.dtype.type(1)
        assert invariant in {violation.invariant for violation in run.violations()}, invariant
        table[index] = kept
    kept = int(nodes[1]["word"])
    nodes[1]["word"] = kept ^ 1
    assert "I1" in {violation.invariant for violation in run.violations()}
    nodes[1]["word"] = kept
    graph["vertices_left"] += 1
    assert "I4" in {violation.invariant for violation in run.violations()}
    graph["vertices_left"] -= 1
    assert run.violations() == []
    assert run.segment.table("groups")[0]["again"] == NONE & 0xFFFFFFFF
