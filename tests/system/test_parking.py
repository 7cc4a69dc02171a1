"""A Conductor that dies over and over is given up; the engine's state stays, and it is gone on from it."""

import os
import select
import signal

import pytest

import symphony
from symphony.cli import start
from symphony.pit.stale import sweep
from tests.system.stage import DEADLINE_S, SLEEPER, assert_nothing_left, ctl

pytestmark = pytest.mark.timeout(400)


def test_a_parked_engine_says_why_and_is_gone_on_from(name, melody):
    started = start.start(name, timeout=350, keeping=["--deaths", "1"])
    with symphony.connect(name) as client:
        run = client.play(str(melody(SLEEPER)), {"seconds": 0.5}, request_id=b"acknowledged-run")
        serial = run.serial
        keeper = os.pidfd_open(started.keeper_pid)
        os.kill(started.pid, signal.SIGKILL)
        assert select.select([keeper], [], [], DEADLINE_S)[0], "its Keeper lives on"
        os.close(keeper)
    assert "Conductors that died in 60 s: 1" in start.parked(name)
    (entry,) = sweep.plan(instance=name).entries
    assert entry.recoverable and entry.state == sweep.DEAD
    log = (entry.directory / "logs" / "conductor.log").read_text()
    assert f"symphonyctl -n {name} up --recover" in log
    assert ctl("-n", name, "up", "--recover").returncode == 0
    assert start.parked(name) == ""
    with symphony.connect(name) as client:
        again = client.play(str(melody(SLEEPER)), {"seconds": 0.5}, request_id=b"acknowledged-run")
        assert again.serial == serial
        again.result(timeout=DEADLINE_S)
    assert ctl("-n", name, "down").returncode == 0
    assert_nothing_left(name)
