"""What goes wrong in a step and in its process, on one live engine that must come through all of it."""

import os
import signal
import time
from pathlib import Path

import pytest

from symphony.engine import Engine
from symphony.model.errors import RunCancelled, RunFailed, ScoreError

pytestmark = pytest.mark.leaves_behind("segments", "children", "descriptors")

FOLDER = Path(__file__).resolve().parents[1] / "data" / "extensions"
WAIT_S = 60
HOSTILE = [
    "tail", "backwards", "length", "kind", "run", "negative run", "node", "generation", "many outputs", "offset", "size",
    "arena", "home", "list",
]  # fmt: skip


@pytest.fixture(scope="module")
def engine():
    before = os.environ.get("SYMPHONY_EXTENSION_PATH")
    os.environ["SYMPHONY_EXTENSION_PATH"] = str(FOLDER)
    try:
        with Engine(players=2) as made:
            yield made
    finally:
        if before is None:
            del os.environ["SYMPHONY_EXTENSION_PATH"]
        else:
            os.environ["SYMPHONY_EXTENSION_PATH"] = before


@pytest.fixture
def play(engine, tmp_path):
    """Play steps written in TOML with the inputs given; the run."""

    def begin(steps, outputs="{ out = 'a' }", inputs="{}", **given):
        path = tmp_path / "melody.toml"
        path.write_text(f'[melody]\nname = "t"\ninputs = {inputs}\noutputs = {outputs}\n{steps}')
        return engine.play(path, **given)

    return begin


def healthy(engine, play):
    """The engine still plays."""
    run = play("[steps.a]\nuse = 'faulty.several'\nwith = { count = 3 }")
    assert list(run.result(WAIT_S)["out"]) == ["item 0", "item 1", "item 2"]
    assert engine.pit.pool.validate() == []


def test_a_step_whose_player_is_killed_runs_again_elsewhere(engine, play, tmp_path):
    run = play(f"[steps.a]\nuse = 'faulty.kill_once'\nwith = {{ marker = '{tmp_path}/m' }}")
    assert run.result(WAIT_S)["out"] == "alive"
    pids = (tmp_path / "m.log").read_text().split()
    assert len(pids) == 2 and len(set(pids)) == 2
    assert [line["attempt"] for line in run.record()] == [2]
    healthy(engine, play)


def test_a_step_that_may_run_once_is_not_run_again(engine, play, tmp_path):
    run = play(f"[steps.a]\nuse = 'faulty.kill_once'\nonce = true\nwith = {{ marker = '{tmp_path}/m' }}")
    with pytest.raises(RunFailed, match="outcome unknown"):
        run.result(WAIT_S)
    assert len((tmp_path / "m.log").read_text().split()) == 1
    healthy(engine, play)


def test_a_step_that_kills_every_player_fails_and_is_named(engine, play):
    run = play(
        "[steps.a]\nuse = 'faulty.kill_always'\n[steps.b]\nuse = 'faulty.several'\nwith = { count = 1 }\nafter = ['a']"
    )
    with pytest.raises(RunFailed, match=r"step 'a' failed: its player died in the middle 3 times(.|\n)*signal 9"):
        run.result(WAIT_S)
    assert {line["step"]: line["state"] for line in run.record()} == {"a": "failed", "b": "skipped"}
    healthy(engine, play)


def test_reported_failures_are_tried_again_with_back_off(play, tmp_path):
    run = play(
        f"[steps.a]\nuse = 'faulty.fail'\nretries = 2\nbackoff = '20ms'\nwith = {{ times = 2, marker = '{tmp_path}/m' }}"
    )
    assert run.result(WAIT_S)["out"] == "done"
    line = run.record()[0]
    assert line["attempt"] == 3 and line["ended_ns"] - run.state()["started_ns"] >= 60_000_000


def test_a_step_out_of_retries_fails_with_the_remote_traceback(engine, play, tmp_path):
    run = play(f"[steps.a]\nuse = 'faulty.fail'\nretries = 1\nwith = {{ times = 9, marker = '{tmp_path}/m' }}")
    with pytest.raises(RunFailed, match=r"step 'a' failed: ValueError: attempt 2 of 9(.|\n)*faulty.py"):
        run.result(WAIT_S)
    healthy(engine, play)


def test_an_extension_that_cannot_start_fails_its_run_with_its_last_words(engine, play):
    run = play("[steps.a]\nuse = 'stillborn.work'")
    with pytest.raises(RunFailed, match="it was never to be"):
        run.result(WAIT_S)
    healthy(engine, play)


@pytest.mark.parametrize("what", HOSTILE)
def test_an_extension_that_lies_hurts_only_itself(engine, play, tmp_path, what):
    run = play(f"[steps.a]\nuse = 'faulty.scribble'\nwith = {{ what = '{what}', marker = '{tmp_path}/m' }}")
    assert run.result(WAIT_S)["out"] == "well behaved"
    healthy(engine, play)


@pytest.mark.parametrize("handler", ["linger", "deaf"])
def test_a_run_is_cancelled_in_the_middle_of_a_step(engine, play, handler):
    run = play(
        f"[steps.a]\nuse = 'faulty.{handler}'\nwith = {{ seconds = 600.0 }}\n"
        "[steps.b]\nuse = 'faulty.length'\nwith = { values = '{a}' }"
    )
    for event in run.events(WAIT_S):
        if event["running"]:
            break
    run.cancel()
    with pytest.raises(RunCancelled):
        run.result(WAIT_S)
    states = {line["step"]: line["state"] for line in run.record()}
    assert states["b"] == "cancelled" and states["a"] in ("done", "cancelled")
    healthy(engine, play)


def test_a_stopped_player_does_not_keep_a_cancelled_run(engine, play, tmp_path):
    run = play(f"[steps.a]\nuse = 'faulty.linger'\nwith = {{ seconds = 600.0, marker = '{tmp_path}/m' }}")
    deadline = time.monotonic() + WAIT_S
    while not (tmp_path / "m").exists() and time.monotonic() < deadline:
        os.sched_yield()
    busy = [player["pid"] for player in engine.status()["players"] if player["held"]]
    assert busy
    for pid in busy:
        os.kill(pid, signal.SIGSTOP)
    run.cancel()
    with pytest.raises(RunCancelled):
        run.result(WAIT_S)
    healthy(engine, play)


def test_the_same_request_again_is_the_same_run(engine, tmp_path):
    path = tmp_path / "melody.toml"
    path.write_text(
        "[melody]\nname = 't'\noutputs = { out = 'a' }\n[steps.a]\nuse = 'faulty.several'\nwith = { count = 1 }"
    )
    runs = {engine.play(path, request_id=b"0123456789abcdef").serial for _ in range(3)}
    assert len(runs) == 1


@pytest.mark.parametrize("size", [0, 1, 64, 4096, 4097, 100_000, 262_145, 5 << 20, 100 << 20])
def test_outputs_of_every_size_arrive_whole(play, size):
    run = play(f"[steps.a]\nuse = 'faulty.make'\nwith = {{ size = {size} }}")
    out = bytes(run.result(WAIT_S)["out"])
    assert (
        len(out) == size and out[:256] == (bytes(range(256)) * 1)[: len(out[:256])] if size >= 256 else len(out) == size
    )


@pytest.mark.parametrize("count", [0, 1, 10, 3000])
def test_fan_outs_of_every_width(play, count):
    run = play(
        f"[steps.s]\nuse = 'faulty.several'\nwith = {{ count = {count} }}\n"
        "[steps.p]\nuse = 'faulty.pair'\neach = 's'\nwith = { item = '{item}' }\n"
        "[steps.q]\nuse = 'faulty.length'\neach = 'p.second'\nbatch = 7\nwith = { values = '{item}' }\n"
        "[steps.joined]\nuse = 'faulty.length'\nwith = { values = '{p.first}' }\n"
        "[steps.end]\nuse = 'faulty.length'\nwith = { values = '{q}' }\n",
        outputs="{ first = 'p.first', batches = 'q', joined = 'joined', end = 'end' }",
    )
    result = run.result(WAIT_S)
    assert list(result["first"]) == [f"item {number}" for number in range(count)]
    lengths = [item["length"] for item in result["batches"]]
    assert sum(lengths) == 2 * count and len(lengths) == -(-2 * count // 7)
    assert result["joined"] == {"length": count} and result["end"] == {"length": len(lengths)}
    assert {line["attempt"] for line in run.record()} == {1}


def test_a_fan_out_over_a_run_input_keeps_the_order(play):
    items = [f"w{number}" for number in range(500)]
    run = play("[steps.a]\nuse = 'faulty.pair'\neach = '{items}'\nwith = { item = '{item}' }", "{ out = 'a.first' }",
               '{ items = "list" }', items=items)  # fmt: skip
    assert list(run.result(WAIT_S)["out"]) == items


def test_a_fan_out_over_what_is_no_list_fails_the_run(engine, play):
    run = play("[steps.m]\nuse = 'faulty.length'\nwith = { values = 'xyz' }\n"
               "[steps.a]\nuse = 'faulty.pair'\neach = 'm'\nwith = { item = '{item}' }", "{ out = 'a.first' }")  # fmt: skip
    with pytest.raises(RunFailed, match="list"):
        run.result(WAIT_S)
    healthy(engine, play)


def test_many_runs_at_once(play, engine):
    runs = [play("[steps.a]\nuse = 'faulty.several'\nwith = { count = 5 }\n[steps.b]\nuse = 'faulty.pair'\neach = 'a'\n"
                 "with = { item = '{item}' }", "{ out = 'b.first' }") for _ in range(50)]  # fmt: skip
    assert all(len(run.result(WAIT_S)["out"]) == 5 for run in runs)
    assert engine.pit.pool.validate() == []


def test_plays_in_a_row_keep_memory_bounded(play, engine):
    before = None
    for number in range(200):
        play("[steps.a]\nuse = 'faulty.make'\nwith = { size = 300000 }").result(WAIT_S)
        if number == 100:
            before = engine.status()["artifacts"]["segments"]
            rows = int(engine._conductor.tables.engine[0]["segments_used"])
    assert engine.status()["artifacts"]["segments"] <= before + 2
    assert int(engine._conductor.tables.engine[0]["segments_used"]) <= rows + 4


@pytest.mark.parametrize(
    ("steps", "word"),
    [
        ("[steps.a]\nuse = 'faulty.several'\nwith = { count = 1 }\nneed = { gpu = 1 }", "gpu"),
        ("[steps.a]\nuse = 'faulty.several'\nwith = { count = 1 }\nmodel = 'embedder'", "embedder"),
    ],
)
def test_what_the_engine_has_not_is_refused_by_name(play, steps, word):
    with pytest.raises(ScoreError, match=word):
        play(steps)


def test_capacity_is_never_exceeded(play, engine):
    run = play(
        "[steps.s]\nuse = 'faulty.several'\nwith = { count = 40 }\n"
        "[steps.a]\nuse = 'faulty.pair'\neach = 's'\nneed = { cpu = 1 }\nwith = { item = '{item}' }",
        "{ out = 'a.first' }",
    )
    assert len(run.result(WAIT_S)["out"]) == 40
    cpu = engine.pit.arbiter.resources()[0]
    assert cpu["used"] == 0 and cpu["granted"] >= 40
    lines = sorted((line["started_ns"], line["ended_ns"]) for line in run.record() if line["step"] == "a")
    for begin, _ in lines:
        assert sum(b <= begin < e for b, e in lines) <= cpu["capacity"]
