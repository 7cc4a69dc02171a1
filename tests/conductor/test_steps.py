"""What a step may do wrong, and what the engine makes of it: reports, deaths, timeouts, cancels, retries, capacity."""

import os
import signal
import time

import pytest

from symphony.engine import Engine
from symphony.model.errors import RunCancelled, RunFailed, ScoreError
from symphony.native.layout import constants
from tests.conductor.conftest import START_S, TIMEOUT_S, await_files, await_gone, melody, play

pytestmark = [pytest.mark.leaves_behind("segments", "children", "descriptors"), pytest.mark.timeout(START_S)]

DEATHS = constants["SYM_LIMIT_DEATHS"]
WORDS = ("words", "trial.words", {"count": 3})


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "begun"
    place.mkdir()
    return place


def sound(engine):
    """The engine plays on, and nothing is taken that is not in use."""
    assert list(play(engine, WORDS)["words"]) == ["w0", "w1", "w2"]
    assert engine.pit.pool.validate() == []
    assert [line["used"] for line in engine.pit.arbiter.resources()] == [0]


def step(use, folder=None, **given):
    """A melody of one step; what the step's own keys are is told from the handler's arguments by name."""
    keys = ("retries", "backoff", "timeout", "once", "need", "batch")
    own = {key: given.pop(key) for key in keys if key in given}
    if folder is not None:
        given["folder"] = str(folder)
    return melody().step("a", use, with_=given, **own).output("a", "a")


# -- failures that a handler reports ----------------------------------------------------------------------


def test_a_failure_is_tried_as_often_as_the_step_allows(engine, folder):
    run = engine.play(step("trial.fail", folder, times=3, retries=3))
    assert run.result(TIMEOUT_S)["a"] == {"began": 4, "attempt": 4}
    assert [(line["attempt"], line["state"]) for line in run.record()] == [(4, "done")]
    sound(engine)


def test_without_retries_the_first_failure_fails_the_run(engine, folder):
    run = engine.play(step("trial.fail", folder, times=1))
    with pytest.raises(
        RunFailed, match=r"step 'a' failed: ValueError: attempt 1 fails on purpose(.|\n)*trial\.py"
    ) as told:
        run.result(TIMEOUT_S)
    assert told.value.facts["run"] == run.serial
    assert len(os.listdir(folder)) == 1
    sound(engine)


def test_the_back_off_doubles(engine, folder):
    run = engine.play(step("trial.fail", folder, times=3, retries=3, backoff=0.05))
    assert run.result(TIMEOUT_S)["a"]["attempt"] == 4
    state = run.state()
    assert state["ended_ns"] - state["started_ns"] >= (50 + 100 + 200) * 1_000_000
    sound(engine)


def test_what_depends_on_a_failed_step_is_skipped_and_what_does_not_may_end(engine, folder):
    built = step("trial.fail", folder, times=1).step("after", "trial.echo", data="{a}").output("after", "after")
    run = engine.play(built)
    with pytest.raises(RunFailed):
        run.result(TIMEOUT_S)
    assert {line["step"]: line["state"] for line in run.record()} == {"a": "failed", "after": "skipped"}
    assert {s["step"]: (s["state"], s["failed"]) for s in run.state()["steps"]}["a"] == ("failed", 1)


def test_one_failed_node_of_a_fan_out_fails_the_run_and_the_rest_is_not_begun(engine, folder):
    built = melody().step("_words", "trial.words", count=300).step("_sizes", "trial.echo", each="_words", data="{item}")
    built.step("bad", "trial.sized", each="_sizes", size="{item}").output("bad", "bad")
    run = engine.play(built)
    with pytest.raises(RunFailed, match="step 'bad' failed"):
        run.result(TIMEOUT_S)
    states = [line["state"] for line in run.record() if line["step"] == "bad"]
    assert "failed" in states and set(states) <= {"failed", "skipped"}
    sound(engine)


# -- deaths -----------------------------------------------------------------------------------------------


def test_a_killed_player_s_step_is_done_by_another(engine, folder):
    run = engine.play(step("trial.die", folder, times=1))
    result = run.result(TIMEOUT_S)["a"]
    pids = {int(name.split(".")[0]) for name in os.listdir(folder)}
    assert result["began"] == 2 and len(pids) == 2 and result["pid"] in pids
    sound(engine)


def test_deaths_are_bounded_and_the_last_words_are_told(engine, folder):
    run = engine.play(step("trial.die", folder, times=99))
    with pytest.raises(RunFailed, match=r"died in the middle 3 times(.|\n)*signal 9(.|\n)*these are my last words"):
        run.result(TIMEOUT_S)
    assert len(os.listdir(folder)) == DEATHS + 1
    sound(engine)


def test_once_means_once(engine, folder):
    run = engine.play(step("trial.die", folder, times=1, once=True))
    with pytest.raises(RunFailed, match="outcome unknown"):
        run.result(TIMEOUT_S)
    assert len(os.listdir(folder)) == 1
    sound(engine)


def test_nodes_that_only_waited_in_a_dead_players_window_are_not_counted(engine, folder):
    """A fan-out of which one node kills its player: its neighbours in the window ran once each."""
    built = melody().step("_words", "trial.words", count=40)
    built.step("out", "trial.echo", each="_words", data="{item}").output("out", "out")
    built.step("_die", "trial.die", folder=str(folder), times=2)
    run = engine.play(built)
    assert list(run.result(TIMEOUT_S)["out"]) == [f"w{number}" for number in range(40)]
    sound(engine)


def test_kill_9_from_outside_in_the_middle_of_a_step(engine, folder):
    run = engine.play(step("trial.nap", folder, seconds=0.5))
    [pid] = await_files(folder)
    os.kill(pid, signal.SIGKILL)
    assert run.result(TIMEOUT_S)["a"] != pid
    assert len(os.listdir(folder)) == 2
    sound(engine)


def test_what_a_player_had_started_ends_with_it(engine, folder):
    run = engine.play(step("trial.offspring", folder))
    deadline = time.monotonic() + TIMEOUT_S
    while not (folder / "child").exists():
        assert time.monotonic() < deadline
        os.sched_yield()
    child = int((folder / "child").read_text())
    run.cancel()
    assert run.wait(TIMEOUT_S)["state"] == "cancelled"
    await_gone(child)
    sound(engine)


# -- timeouts ---------------------------------------------------------------------------------------------


def test_a_handler_that_heeds_its_timeout_fails_the_step(engine, folder):
    run = engine.play(step("trial.heed", folder, timeout=0.2))
    with pytest.raises(RunFailed, match=r"step 'a' failed: [a-z.]*Cancelled; its timeout is 0\.2 s"):
        run.result(TIMEOUT_S)
    assert len(os.listdir(folder)) == 1
    sound(engine)


def test_a_handler_that_does_not_is_ended_with_its_player(engine, folder):
    run = engine.play(step("trial.deaf", folder, timeout=0.2))
    with pytest.raises(RunFailed, match=r"died in the middle 3 times; its timeout is 0\.2 s"):
        run.result(TIMEOUT_S)
    pids = {int(name.split(".")[0]) for name in os.listdir(folder)}
    assert len(pids) == DEATHS + 1
    sound(engine)


def test_once_and_a_timeout(engine, folder):
    run = engine.play(step("trial.deaf", folder, timeout=0.2, once=True))
    with pytest.raises(RunFailed, match=r"outcome unknown(.|\n)*its timeout is 0\.2 s"):
        run.result(TIMEOUT_S)
    assert len(os.listdir(folder)) == 1
    sound(engine)


def test_a_timeout_is_retried_like_any_failure(engine, folder):
    run = engine.play(step("trial.heed", folder, timeout=0.1, retries=2))
    with pytest.raises(RunFailed, match=r"timeout is 0\.1 s"):
        run.result(TIMEOUT_S)
    assert len(os.listdir(folder)) == 3
    sound(engine)


def test_a_timeout_does_not_count_the_wait_for_a_player(engine, folder):
    """More nodes than players, each within its own time, all together far beyond it."""
    built = melody().step("_words", "trial.words", count=8)
    built.step("out", "trial.nap", each="_words", seconds=0.15, timeout=1.0, after=["_words"]).output("out", "out")
    assert len(engine.play(built).result(TIMEOUT_S)["out"]) == 8
    sound(engine)


# -- cancels ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", ["heed", "deaf", "nap"])
def test_a_run_is_cancelled_in_the_middle(engine, folder, handler):
    given = {"seconds": 600.0} if handler == "nap" else {}
    built = step(f"trial.{handler}", folder, **given).step("after", "trial.echo", data="{a}").output("after", "after")
    run = engine.play(built)
    await_files(folder)
    run.cancel()
    run.cancel()
    with pytest.raises(RunCancelled):
        run.result(TIMEOUT_S)
    assert {line["state"] for line in run.record()} == {"cancelled"}
    sound(engine)


def test_a_cancel_hurts_no_other_run_on_the_same_player(own_runtime_directory, extensions, folder):
    with Engine(players=1) as engine:
        held = engine.play(step("trial.nap", folder, seconds=0.4))
        await_files(folder)
        queued = [engine.play(melody(WORDS)) for _ in range(4)]
        queued[1].cancel()
        assert queued[1].wait(TIMEOUT_S)["state"] == "cancelled"
        assert [run.wait(TIMEOUT_S)["state"] for run in (queued[0], *queued[2:])] == ["completed"] * 3
        assert held.result(TIMEOUT_S)["a"] and len(os.listdir(folder)) == 1
        sound(engine)


def test_a_run_that_has_ended_cannot_be_cancelled(engine):
    run = engine.play(melody(WORDS))
    run.wait(TIMEOUT_S)
    run.cancel()
    assert run.state()["state"] == "completed"
    sound(engine)


def test_cancelled_before_anything_began(own_runtime_directory, extensions):
    with Engine(players=1) as engine:
        for _ in range(30):
            run = engine.play(melody(WORDS))
            run.cancel()
            assert run.wait(TIMEOUT_S)["state"] in ("cancelled", "completed")
        sound(engine)


# -- players that cannot be had ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extension", "words"),
    [
        ("broken", "No module named 'a_module_that_is_nowhere'"), ("quits", "I will not play today"),
        ("missing", "missing.py"), ("restless", "not a single step"),
    ],
)  # fmt: skip
def test_an_extension_that_does_not_start_fails_its_run_with_its_last_words(engine, extension, words):
    run = engine.play(step(f"{extension}.go"))
    bystander = engine.play(melody(WORDS))
    with pytest.raises(RunFailed, match=words):
        run.result(TIMEOUT_S)
    assert len(bystander.result(TIMEOUT_S)["words"]) == 3
    again = engine.play(step(f"{extension}.go"))  # a later run tries again, and is told the same
    with pytest.raises(RunFailed, match=words):
        again.result(TIMEOUT_S)
    sound(engine)


def test_an_extension_that_is_not_there_is_refused_with_the_nearest(engine):
    with pytest.raises(Exception, match=r"trail.*'trial'"):
        engine.play(step("trail.words", count=1))


# -- capacity ---------------------------------------------------------------------------------------------


def test_capacities_of_several_kinds_bound_what_runs_together(own_runtime_directory, extensions):
    """I1 of the arbiter's README, seen from outside: by the stamps of the players, not by the engine's own count."""
    with Engine(players=3, capacity={"cpu": 8, "gpu": 1}) as engine:
        built = melody().step("_words", "trial.words", count=9)
        built.step("wide", "trial.nap", each="_words", seconds=0.03, need={"cpu": 3}).output("wide", "wide")
        built.step("lone", "trial.nap", each="_words", seconds=0.03, need={"cpu": 1, "gpu": 1}).output("lone", "lone")
        run = engine.play(built)
        run.result(TIMEOUT_S)
        lines = [line for line in run.record() if line["step"] in ("wide", "lone")]
        for line in lines:
            beside = [o for o in lines if o["started_ns"] <= line["started_ns"] < o["ended_ns"]]
            wide, lone = (sum(o["step"] == name for o in beside) for name in ("wide", "lone"))
            assert lone <= 1 and 3 * wide + lone <= 8
        resources = {line["name"]: line for line in engine.pit.arbiter.resources()}
        assert [resources[name]["used"] for name in ("cpu", "gpu")] == [0, 0]
        assert resources["gpu"]["granted"] == 9
        sound_with(engine)


def sound_with(engine):
    assert list(play(engine, WORDS)["words"]) == ["w0", "w1", "w2"] and engine.pit.pool.validate() == []


def test_why_a_vector_is_not_granted(own_runtime_directory, extensions, folder):
    with Engine(players=2, capacity={"cpu": 4, "gpu": 1}) as engine:
        explain = engine.pit.arbiter.explain
        assert explain({}) is None and explain({"cpu": 4, "gpu": 1}) is None
        assert explain({"disk": 1}) == "this engine has no capacity of 'disk'"
        assert explain({"cpu": 5}) == "5 of 'cpu' is more than the capacity of 4"
        run = engine.play(step("trial.heed", folder, need={"gpu": 1}))
        await_files(folder)
        assert explain({"gpu": 1}) == "1 of 1 of 'gpu' are used" and explain({"cpu": 4}) is None
        waiting = engine.play(step("trial.nap", seconds=0.0, need={"gpu": 1}))
        run.cancel()
        assert waiting.wait(TIMEOUT_S)["state"] == "completed"
        assert explain({"gpu": 1}) is None


@pytest.mark.parametrize(("need", "words"), [({"gpu": 1}, "gpu"), ({"cpu": 10**6}, "in all")])
def test_what_can_never_be_met_is_refused_at_once(engine, need, words):
    with pytest.raises(ScoreError, match=words):
        engine.play(step("trial.nap", seconds=0.0, need=need))


def test_capacity_comes_back_from_the_dead(own_runtime_directory, extensions, folder):
    with Engine(players=2, capacity={"cpu": 1}) as engine:
        run = engine.play(step("trial.die", folder, times=2, need={"cpu": 1}))
        other = engine.play(step("trial.nap", seconds=0.0, need={"cpu": 1}))
        assert run.wait(TIMEOUT_S)["state"] == other.wait(TIMEOUT_S)["state"] == "completed"
        sound(engine)
