"""What the loop chooses: pure functions, and that the loop heeds them."""

import itertools
import random

import pytest

from symphony.engine import Engine
from symphony.native.kernels import loading
from tests.conductor.conftest import START_S, TIMEOUT_S, melody

with loading():
    from symphony.conductor.policy import PREFETCH_NS, depth, prefer


def plain(priority, rank, serial):
    """The order as a key: what comes first is smallest."""
    return (-priority, -rank, serial)


def test_priority_then_the_longest_way_to_the_end_then_the_older_run(seed):
    rng = random.Random(seed)
    nodes = [(rng.choice((1000, 0, -100)), rng.choice((0, 1, 7)), serial) for serial in range(40)]
    for one, other in itertools.permutations(nodes, 2):
        assert prefer(*one, *other) == (plain(*one) < plain(*other))
    assert not prefer(0, 1, 1, 0, 1, 1)


def test_a_window_is_filled_for_short_nodes_and_not_for_long_ones():
    assert depth(8, 0) == 8
    assert depth(8, 1) == 8
    assert depth(8, PREFETCH_NS // 3) == 4
    assert depth(8, PREFETCH_NS) == 2
    assert depth(8, PREFETCH_NS + 1) == 1
    assert depth(1, 1) == depth(1, 10 * PREFETCH_NS) == 1
    depths = [depth(256, mean) for mean in range(1, 2 * PREFETCH_NS, 10_001)]
    assert depths == sorted(depths, reverse=True) and set(depths) >= {256, 1}


@pytest.fixture(scope="module")
def narrow(own_runtime_directory, extensions):
    """One player with one place: what is sent first runs first."""
    with Engine(players=1, window=1) as opened:
        yield opened


pytestmark = [pytest.mark.leaves_behind("segments", "children", "descriptors"), pytest.mark.timeout(START_S)]


def order_of(run):
    lines = run.record()
    return [line["step"] for line in sorted(lines, key=lambda line: line["started_ns"])]


def test_the_longest_way_to_the_end_goes_first(narrow, tmp_path):
    """Behind a step that keeps the only player busy, the head of the long chain goes before the single steps."""
    built = melody(("_gate", "trial.nap", {"seconds": 0.2}))
    for number in range(3):
        built.step(f"single{number}", "trial.echo", data="x", after=["_gate"])
    built.step("c0", "trial.echo", data="x", after=["_gate"])
    for number in range(1, 4):
        built.step(f"c{number}", "trial.echo", data=f"{{c{number - 1}}}")
    run = narrow.play(built)
    run.result(TIMEOUT_S)
    order = order_of(run)
    assert order[:2] == ["_gate", "c0"]
    assert [step for step in order if step.startswith("c")] == ["c0", "c1", "c2", "c3"]


def test_a_run_of_higher_priority_goes_first(narrow, tmp_path):
    holding = narrow.play(melody(("held", "trial.nap", {"seconds": 0.3})))
    steps = [(f"s{number}", "trial.echo", {"data": "x"}) for number in range(5)]
    low, high = narrow.play(melody(*steps), priority=-100), narrow.play(melody(*steps), priority=1000)
    for run in (holding, low, high):
        run.result(TIMEOUT_S)
    assert max(line["ended_ns"] for line in high.record()) <= min(line["started_ns"] for line in low.record())
