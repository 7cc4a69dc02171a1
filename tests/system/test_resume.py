"""The Conductor is killed and comes back: over its live state, with its players as they were, and nothing lost."""

import json
import os
import signal
import time
from pathlib import Path

import pytest

import symphony
from symphony.pit.stale import sweep
from tests.system.stage import DEADLINE_S, SLEEPER, assert_nothing_left, ctl, kill_all, processes_of

pytestmark = pytest.mark.timeout(400)

FOLDER = Path(__file__).resolve().parents[1] / "data" / "extensions"
WIDE = """
[melody]
name = "wide"
inputs = { count = "int" }
outputs = { first = "pair.first", joined = "joined" }

[steps.several]
use = "faulty.several"
with = { count = "{count}" }

[steps.pair]
use = "faulty.pair"
each = "several"
with = { item = "{item}" }

[steps.joined]
use = "faulty.length"
with = { values = "{pair.second}" }
"""


@pytest.fixture
def extensions(monkeypatch):
    monkeypatch.setenv("SYMPHONY_EXTENSION_PATH", str(FOLDER))


@pytest.fixture
def up(extensions, engine):
    return engine


def conductor_of(name):
    return symphony.attach(name).status()["pid"]


def players_of(client):
    return {(player["player"], player["pid"]) for player in client.status()["players"]}


def kill(pid):
    """kill -9, and wait until it is gone."""
    watched = os.pidfd_open(pid)
    try:
        os.kill(pid, signal.SIGKILL)
    finally:
        os.close(watched)


def await_done(client, run, count):
    deadline = time.monotonic() + DEADLINE_S
    while (seen := client.run(run))["done"] < count and seen["state"] == "running":
        assert time.monotonic() < deadline
    return seen


def test_a_killed_conductor_comes_back_and_its_players_notice_nothing(up, melody):
    with symphony.connect(up) as client:
        run = client.play(str(melody(WIDE)), {"count": 20000})
        await_done(client, run, 3000)
        before, pid = players_of(client), client.status()["pid"]
        kill(pid)
        outputs = run.result(timeout=DEADLINE_S)
        assert list(outputs["first"]) == [f"item {number}" for number in range(20000)]
        assert outputs["joined"] == {"length": 20000}
        status = client.status()
        assert status["pid"] != pid and status["restarts"] == 1
        assert players_of(client) == before
        lines = run.record()
        assert len(lines) == 20002 and {line["state"] for line in lines} == {"done"}
        again = client.play(str(melody(WIDE)), {"count": 10})
        assert len(again.result(timeout=DEADLINE_S)["first"]) == 10
    assert ctl("-n", up, "down").returncode == 0
    assert_nothing_left(up)


def test_ended_runs_and_their_results_are_there_still(up, melody, tmp_path):
    fails = (
        "[melody]\nname = 'fails'\noutputs = { out = 'a' }\n[steps.a]\nuse = 'faulty.fail'\n"
        f"with = {{ times = 9, marker = '{tmp_path}/m' }}"
    )
    with symphony.connect(up) as client:
        run = client.play(str(melody(WIDE)), {"count": 50}, request_id=b"0123456789abcdef")
        first = list(run.result(timeout=DEADLINE_S)["first"])
        failed = client.play(str(melody(fails, "fails.toml")))
        with pytest.raises(symphony.SymphonyError):
            failed.result(timeout=DEADLINE_S)
        told = client.run(failed)["error"]
        kill(client.status()["pid"])
        assert list(run.result(timeout=DEADLINE_S)["first"]) == first
        assert client.run(failed)["error"] == told
        assert client.play(str(melody(WIDE)), {"count": 50}, request_id=b"0123456789abcdef").serial == run.serial


def test_a_cancellation_that_was_acknowledged_is_carried_out(up, melody):
    with symphony.connect(up) as client:
        run = client.play(str(melody(SLEEPER)))
        deadline = time.monotonic() + DEADLINE_S
        while not client.run(run)["running"]:
            assert time.monotonic() < deadline
        pid = client.status()["pid"]
        run.cancel()
        kill(pid)
        assert client.wait(run, timeout=DEADLINE_S)["state"] == "cancelled"


def test_a_step_that_may_run_once_runs_once_though_its_conductor_dies(up, melody, tmp_path):
    text = (
        "[melody]\nname = 'once'\noutputs = { out = 'a' }\n[steps.a]\nuse = 'faulty.linger'\nonce = true\n"
        f"with = {{ seconds = 1.5, marker = '{tmp_path}/m' }}"
    )
    with symphony.connect(up) as client:
        run = client.play(str(melody(text)))
        deadline = time.monotonic() + DEADLINE_S
        while not (tmp_path / "m").exists():
            assert time.monotonic() < deadline
        kill(client.status()["pid"])
        assert client.wait(run, timeout=DEADLINE_S)["state"] == "completed"
        assert [line["attempt"] for line in run.record()] == [1]


@pytest.mark.parametrize("size", [100_000, 1_000_000, 60 << 20])
def test_large_outputs_come_whole_through_a_restart(up, melody, size):
    text = f"[melody]\nname = 'large'\noutputs = {{ out = 'a' }}\n[steps.a]\nuse = 'faulty.make'\nwith = {{ size = {size} }}"
    with symphony.connect(up) as client:
        expected = bytes(client.play(str(melody(text))).result(timeout=DEADLINE_S)["out"])
        for delay in (0.0, 0.005, 0.02, 0.05):
            run = client.play(str(melody(text)))
            pid = client.status()["pid"]
            deadline = time.monotonic() + delay
            while time.monotonic() < deadline:
                pass
            kill(pid)
            assert bytes(run.result(timeout=DEADLINE_S)["out"]) == expected


def test_killed_while_it_comes_back_three_deep(up, melody):
    with symphony.connect(up) as client:
        run = client.play(str(melody(WIDE)), {"count": 20000})
        await_done(client, run, 1000)
        for _ in range(3):
            kill(client.status()["pid"])
        assert len(run.result(timeout=DEADLINE_S)["first"]) == 20000
        assert client.status()["restarts"] >= 1


def test_a_stopped_conductor_is_noticed_and_replaced(extensions, name, melody):
    assert ctl("-n", name, "up", "--hang-s", "1", timeout=300).returncode == 0
    with symphony.connect(name) as client:
        run = client.play(str(melody(WIDE)), {"count": 5000})
        await_done(client, run, 500)
        pid = client.status()["pid"]
        os.kill(pid, signal.SIGSTOP)
        assert len(run.result(timeout=DEADLINE_S)["first"]) == 5000
        assert client.status()["pid"] != pid


def test_after_the_keepers_death_the_state_is_named_and_gone_on_from(up, melody):
    with symphony.connect(up) as client:
        run = client.play(str(melody(WIDE)), {"count": 20000})
        await_done(client, run, 3000)
        serial = run.serial
        status = client.status()
    kill(status["keeper_pid"])
    deadline = time.monotonic() + DEADLINE_S
    while processes_of(up) or sweep.plan(instance=up).entries[0].state != sweep.DEAD:
        assert time.monotonic() < deadline
    assert sweep.plan(instance=up).entries[0].recoverable
    told = ctl("-n", up, "status")
    assert told.returncode == 3 and "--recover" in told.stderr
    again = ctl("-n", up, "-o", "json", "up", "--recover")
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["runs"] == 1
    with symphony.connect(up) as client:
        outputs = client.result(serial, timeout=DEADLINE_S)
        assert list(outputs["first"]) == [f"item {number}" for number in range(20000)]
    assert ctl("-n", up, "down").returncode == 0
    assert_nothing_left(up)


def test_recover_after_a_kill_of_everything(up, melody):
    with symphony.connect(up) as client:
        run = client.play(str(melody(WIDE)), {"count": 20000})
        await_done(client, run, 3000)
        serial = run.serial
    kill_all(up)
    assert ctl("-n", up, "up", "--recover").returncode == 0
    with symphony.connect(up) as client:
        assert len(client.result(serial, timeout=DEADLINE_S)["first"]) == 20000


def test_recover_without_a_state_says_so(name):
    told = ctl("-n", name, "up", "--recover")
    assert told.returncode == 3 and "nothing" in told.stderr
    assert_nothing_left(name)
