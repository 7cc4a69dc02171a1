"""A player that writes whatever it likes into its own half of the channel: it is found out and ended, and hurts
nobody's run, not even its own step, which another process does."""

import random
import re

import pytest

from symphony.model.errors import RunFailed, ValueDamaged
from tests.conductor.conftest import EXTENSIONS, START_S, TIMEOUT_S, melody, play

pytestmark = [pytest.mark.leaves_behind("segments", "children", "descriptors"), pytest.mark.timeout(START_S)]

WAYS = re.findall(r"^def way_(\w+)", (EXTENSIONS / "hostile" / "hostile.py").read_text(), re.MULTILINE)
SILENT = {"head_lies", "text_count", "parts_never", "part_order", "part_total", "twice", "noise", "garbage", "storm"}
"""Ways that need not be refused as records: they are lies that come to nothing, or are caught elsewhere."""
DEATHS = 3
TURNS = 4


def refused(engine):
    return engine.status()["counters"]["refused"]


@pytest.mark.parametrize("way", WAYS)
def test_a_way_to_lie_is_found_out_and_the_step_done_elsewhere(engine, way, seed):
    before = refused(engine)
    for turn in range(TURNS):
        lie(engine, way, seed + turn)
        if way in SILENT or refused(engine) > before:
            break
    else:
        pytest.fail(f"{way}: not refused in {TURNS} turns")
    sound(engine)


def lie(engine, way, seed):
    """Play one attack beside honest steps. It may be spared: the player that it is given to may be the one that the
    attack before is about to end, and a second attempt behaves."""
    steps = [("out", "hostile.attack", {"way": way, "seed": seed % 2**31}), ("by", "trial.words", {"count": 50})]
    run = engine.play(melody(*steps))
    bystander = engine.play(melody(("words", "trial.words", {"count": 500})))
    try:
        out = run.result(TIMEOUT_S)
        # Random records may be true by chance: an honest-looking result, or failure, is the player's to give.
        assert out["out"] == "behaved" or way in SILENT
        assert len(out["by"]) == 50
    except (RunFailed, ValueDamaged) as error:
        assert way in SILENT, error
    assert len(bystander.result(TIMEOUT_S)["words"]) == 500


def test_one_that_always_lies_fails_its_own_run_and_no_other(engine):
    run = engine.play(melody(("out", "hostile.attack", {"way": "run", "always": True})))
    bystander = engine.play(melody(("words", "trial.words", {"count": 500})))
    with pytest.raises(RunFailed, match=f"died in the middle {DEATHS} times"):
        run.result(TIMEOUT_S)
    assert len(bystander.result(TIMEOUT_S)["words"]) == 500
    sound(engine)


@pytest.mark.slow
@pytest.mark.parametrize("turn", range(30))
def test_many_seeds_of_noise(engine, seed, turn):
    rng = random.Random(seed + turn)
    for way in ("noise", "garbage", "storm"):
        run = engine.play(melody(("out", "hostile.attack", {"way": way, "seed": rng.randrange(2**31)})))
        try:
            run.result(TIMEOUT_S)
        except (RunFailed, ValueDamaged):
            pass  # a random record can be a true one: what it says is the step's own result then, readable or not
        sound(engine)


def sound(engine):
    """Nothing is taken that is not in use, and it plays."""
    assert list(play(engine, ("words", "trial.words", {"count": 3}))["words"]) == ["w0", "w1", "w2"]
    assert engine.pit.pool.validate() == []
    assert [line["used"] for line in engine.pit.arbiter.resources()] == [0]
