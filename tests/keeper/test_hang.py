"""A Conductor that lives but does not serve is found and replaced; one that is merely slow, or not asked, is not."""

import os
import select
import signal
import socket
import time
from types import SimpleNamespace

import pytest

from symphony.bus import packet
from symphony.keeper.leader import SERVING, STARTING, TAKING, WAITING, Leader
from symphony.keeper.line import Line
from symphony.keeper.policy import Policy
from tests.keeper.conftest import await_dead, is_live

HANG = ("--hang-s", "0.6", "--deaths", "100")


def let_pass(seconds):
    """Time itself is what the test is about; nothing is awaited."""
    select.select([], [], [], seconds)


def replaced(daemon, actor):
    """The next Conductor after one that hangs, once the one before is dead."""
    second = daemon.next()
    assert second.argv[-1] == "--resume"
    await_dead([actor.pid])
    return second


@pytest.mark.parametrize("how", ["stopped", "spins", "is_deaf"])
def test_a_hung_conductor_is_killed_and_replaced(daemon, how):
    first = daemon.start(*HANG)
    child = first.ask("spawn", token=1)
    first.ask("ready")
    if how == "stopped":
        first.kill(signal.SIGSTOP)
    else:
        first.ask({"spins": "spin", "is_deaf": "be_deaf"}[how])
    second = replaced(daemon, first)
    assert [each["pid"] for each in second.ask("resume")] == [child] and is_live(child)
    assert "has not answered for" in daemon.log()


def test_one_that_answers_lives_on(daemon):
    """Far longer than the silence that would be its end: the pings come five a second."""
    first = daemon.start(*HANG)
    first.ask("ready")
    first.ask("await_pings", count=12)
    assert first.ask("status")["restarts"] == 0


def test_one_that_was_stopped_while_it_started_is_replaced(daemon):
    first = daemon.start(*HANG)
    first.ask("ready")
    first.kill()
    second = daemon.next()
    second.kill(signal.SIGSTOP)
    replaced(daemon, second)
    assert "has been stopped for" in daemon.log()


def test_one_that_starts_may_be_silent_but_not_for_ever(daemon):
    first = daemon.start(*HANG, "--start-s", "2")
    first.ask("ready")
    first.kill()
    second = daemon.next()
    begun = time.monotonic()
    second.ask("be_deaf")
    replaced(daemon, second)
    assert time.monotonic() - begun >= 1.0  # not by its silence, which counts after 0.6 s
    assert "is not ready after 2 s" in daemon.log()


def test_a_keeper_that_was_stopped_blames_nobody(daemon):
    first = daemon.start(*HANG)
    first.ask("ready")
    first.ask("await_pings", count=1)
    os.kill(daemon.keeper, signal.SIGSTOP)
    let_pass(2.0)
    os.kill(daemon.keeper, signal.SIGCONT)
    first.ask("await_pings", count=4)
    assert first.ask("status")["restarts"] == 0


def test_without_a_limit_nobody_is_hung(daemon):
    first = daemon.start("--hang-s", "0")
    first.ask("ready")
    first.ask("be_deaf")
    let_pass(2.5)  # two pings unanswered, at least
    assert is_live(first.pid) and first.ask("restarts") == [0, 0, ""]


def test_one_that_hangs_up_is_ended_in_the_end(daemon):
    """It closed its socket and lives on: it may be ending by itself, and is let do so for a while."""
    first = daemon.start(*HANG)
    first.ask("ready")
    first.ask("hang_up")
    replaced(daemon, first)


def look_at(leader, moments):
    return [leader.look(moment) for moment in moments]


@pytest.fixture
def leader():
    """This process in the place of a Conductor, by a clock of the test's own; and the other end of its line."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    line = Line(ours)
    yield Leader(SimpleNamespace(pid=os.getpid()), line, Policy(hang_s=10.0, start_s=100.0), 0.0), theirs
    line.close()
    theirs.close()


def test_silence_is_counted_from_the_first_ping_on(leader):
    leader, _ = leader
    leader.enter(SERVING, 0.0)
    assert look_at(leader, range(1, 11)) == [""] * 10
    assert leader.look(11.0) == "it has not answered for 10.0 s"


def test_only_what_the_keeper_could_have_heard_counts(leader):
    leader, theirs = leader
    leader.enter(SERVING, 0.0)
    assert look_at(leader, [1.0, 2.0, 5000.0, 5001.0]) == [""] * 4
    numbers = [packet.receive(theirs)[0]["n"] for _ in range(4)]
    assert numbers == [1, 2, 3, 4]
    leader.answered(4)
    assert look_at(leader, range(5002, 5012)) == [""] * 10


def test_a_late_answer_is_one_and_an_old_one_is_none(leader):
    leader, _ = leader
    leader.enter(SERVING, 0.0)
    for second in range(1, 40):
        assert leader.look(float(second)) == ""
        leader.answered(second - 3)
    for second in range(40, 48):
        leader.answered(36)
        assert leader.look(float(second)) == ""
    assert [bool(leader.look(float(second))) for second in range(48, 52)].count(True) >= 1


def test_one_that_does_not_read_is_not_pinged_more_and_more(leader):
    leader, _ = leader
    leader.enter(SERVING, 0.0)
    while not leader.line.waiting:
        leader.line.say({"op": "x", "padding": "x" * 8000})
    waiting = leader.line.waiting
    assert any(look_at(leader, range(1, 13)))
    assert leader.line.waiting == waiting


def test_a_spare_has_two_seconds_to_take_over(leader):
    leader, _ = leader
    leader.enter(WAITING, 0.0)
    leader.enter(TAKING, 5.0)
    assert leader.look_at == 7.0 and leader.look(7.0) == "it does not take over"
    leader.enter(STARTING, 7.0)
    assert look_at(leader, range(8, 107)) == [""] * 99
    assert leader.look(107.0) == "it is not ready after 100 s"
