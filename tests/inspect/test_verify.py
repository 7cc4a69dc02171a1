"""What holds together is called whole; each invariant that is broken is named, with its row."""

import pytest

from symphony.inspect.verify import verify
from symphony.native.layout import constants
from symphony.shmem.segment import Region
from tests.inspect.conftest import NONE, node_word


def problems(view):
    return [f"{check['check']}: {text}" for check in verify(view)["checks"] for text in check["problems"]]


@pytest.fixture
def dead(monkeypatch):
    """As if the maker were gone: then derived counts are compared too."""
    monkeypatch.setattr("symphony.inspect.verify.alive", lambda stamp: False)


def test_what_is_whole_is_called_whole(run, state, look, dead):
    for made in (run, state):
        assert problems(look(made.name)) == []
        told = verify(look(made.name))
        assert told["ok"] and told["build"] == "this" and len(told["checks"]) > 5


BROKEN_RUN = [
    (lambda t: t.nodes["word"].__setitem__(1, node_word(3, attempt=1) + 1), "nodes: node 1: bears generation 8"),
    (lambda t: t.nodes["word"].__setitem__(1, node_word(15)), "nodes: node 1: is in state 15"),
    (lambda t: t.nodes["word"].__setitem__(4, node_word(1)), "nodes: node 4: is dispatched without an attempt"),
    (lambda t: t.nodes["step"].__setitem__(3, 77), "nodes: node 3: is of step 77 of 3"),
    (lambda t: t.nodes["group"].__setitem__(4, 5), "nodes: node 4: is of group 5 of 1"),
    (lambda t: t.nodes["group"].__setitem__(3, NONE), "groups: group 0: has nodes that are not its own"),
    (lambda t: t.marks.__setitem__(4, 1), "marks: node 4: is dispatched and marked"),
    (lambda t: t.marks.__setitem__(0, 0), "marks: node 0: is done and not marked"),
    (lambda t: t.marks.__setitem__(2, 1), "marks: node 2: is pending and marked"),
    (lambda t: t.groups["remaining"].__setitem__(0, 2), "groups: group 0: has 1 nodes not done, its row says 2"),
    (lambda t: t.groups["source"].__setitem__(0, 9), "groups: group 0: names vertices 2 and 9 of 3"),
    (lambda t: t.groups["count"].__setitem__(0, 500), "groups: group 0: has nodes beyond the memory"),
    (lambda t: t.edges.__setitem__(0, 3), "graph: edge 0: leads to vertex 3 of 3"),
    (lambda t: t.edge_first.__setitem__(1, 3), "graph: edge_first: does not lead from 0 to 2"),
    (lambda t: t.steps["input_count"].__setitem__(1, 9), "graph: step 1: has inputs up to 9 of 2"),
    (lambda t: t.lanes["order_first"].__setitem__(0, 63), "graph: lane 0: has positions 63 to 66 of 64"),
    (lambda t: t.story["sequence"].__setitem__(3, 11), "story: record 3: has the number 11, of 10 written"),
    (lambda t: t.graph["story_capacity"].__setitem__(0, 7), "story: story_capacity: is 7"),
]


@pytest.mark.parametrize(("break_it", "told"), BROKEN_RUN, ids=[told.split(": ", 1)[1] for _, told in BROKEN_RUN])
def test_a_run_that_is_broken(run, look, dead, break_it, told):
    break_it(run.table)
    assert any(told in problem for problem in problems(look(run.name))), problems(look(run.name))


HELD, FREE, CLOSED = (constants[f"SYM_SEAT_{name}"] << 61 for name in ("HELD", "FREE", "CLOSED"))
BROKEN_STATE = [
    (lambda t: t.engine["seats_used"].__setitem__(0, 65), "engine: seats_used: is 65, the table has 64 rows"),
    (lambda t: t.models["extension"].__setitem__(0, 1), "references: models, row 0: names extension 1, 1 are in use"),
    (lambda t: t.instances["player"].__setitem__(0, 4), "references: instances, row 0: names player 4"),
    (lambda t: t.players["instance"].__setitem__(0, 3), "references: players, row 0: names instance 3"),
    (lambda t: t.seats["word"].__setitem__(1, FREE | 1 << 48), "seats: seat 1: is free and names owner 1"),
    (lambda t: t.seats["word"].__setitem__(0, HELD | 2 << 48), "seats: seat 0: is held by owner 2, whose slot is free"),
    (lambda t: t.seats["word"].__setitem__(1, CLOSED), "seats: instance 0: is ready with a closed seat"),
    (lambda t: t.instances["state"].__setitem__(0, 0), "seats: instance 0: is cold with a free seat"),
    (lambda t: t.instances["seat_first"].__setitem__(0, 1), "seats: instance 0: has seats outside its model's block"),
    (lambda t: t.runs["word"].__setitem__(0, 15 << 60), "runs: run 4 (row 0): is in a state that does not exist"),
    (lambda t: t.runs["segment"].__setitem__(0, 1), "runs: run 4 (row 0): lies in segment 1, which is no live segment"),
    (lambda t: t.runs["failed_count"].__setitem__(0, 5), "runs: run 4 (row 0): counts more nodes"),
    (lambda t: t.runs.__setitem__(1, t.runs[0]), "runs: run 4 (row 1): has the number of row 0"),
    (lambda t: t.artifacts["size_bytes"].__setitem__(0, 4097), "artifacts: artifact 0: ends behind the end of segment"),
    (lambda t: t.artifacts["segment"].__setitem__(0, 9), "artifacts: artifact 0: lies in segment 9, which is not live"),
    (lambda t: t.segments["used_bytes"].__setitem__(1, 8193), "segments: segment 1: has 8193 bytes taken of 8192"),
]


@pytest.mark.parametrize(("break_it", "told"), BROKEN_STATE, ids=[told.split(": ", 1)[1] for _, told in BROKEN_STATE])
def test_a_state_that_is_broken(state, look, dead, break_it, told):
    break_it(state.table)
    assert any(told in problem for problem in problems(look(state.name))), problems(look(state.name))


def test_of_a_living_engine_only_what_lasts_is_a_problem(run, look, monkeypatch):
    """A node that is between two states at the first look, and consistent at the next."""
    run.table.nodes[4]["word"] = node_word(15)
    assert any("state 15" in problem for problem in problems(look(run.name))), "it lasts"
    before = look(run.name)
    from symphony.inspect import verify as module

    class Mended(module.Memory):
        def __init__(self, *what):
            run.table.nodes[4]["word"] = node_word(1, attempt=1)
            super().__init__(*what)

    monkeypatch.setattr(module, "Memory", Mended)
    assert problems(before) == []


def test_derived_counts_of_a_living_engine_are_not_compared(run, look):
    run.table.marks[4] = 1
    run.table.groups[0]["remaining"] = 2
    assert problems(look(run.name)) == []


def test_a_ring_whose_positions_cannot_be(make, look, dead):
    segment = make(
        "ring",
        [
            Region("producer", "sym_ring_producer_t", 1),
            Region("consumer", "sym_ring_consumer_t", 1),
            Region("data", "u8", 4096),
        ],
    )
    producer, consumer, data = (segment.table(name) for name in ("producer", "consumer", "data"))
    record = (5).to_bytes(4, "little") + (16).to_bytes(2, "little") + bytes(2) + b"hello"
    data[: len(record)] = list(record)
    producer["tail"] = 16
    assert problems(look(segment.name)) == []
    data[0] = 200
    assert "records: the one at position 0 has 200 bytes" in problems(look(segment.name))[0]
    producer["tail"], consumer["head"] = 8192, 8
    assert "cannot be of a ring of 4096 bytes" in problems(look(segment.name))[0]
    consumer["head"] = 4
    assert "no multiples of 8" in problems(look(segment.name))[0]
