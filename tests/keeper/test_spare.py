"""A spare: loaded beforehand, it takes over at once; one that dies or hangs is replaced."""

import os
import signal

from tests.keeper.conftest import await_dead, is_live
from tests.keeper.daemon_stage import inode

QUICK = ("--spare", "--deaths", "100")


def with_spare(daemon, *options):
    first = daemon.start(*QUICK, *options)
    first.ask("ready")
    spare = daemon.next()
    spare.ask("stand_by")
    return first, spare


def await_waiting(conductor):
    """Until the Keeper knows that its spare is loaded."""
    while conductor.ask("status")["spare"]["state"] != "waiting":
        pass


def took_over(spare):
    """Answered when `stand_by` returns."""
    return spare.read()["answer"]


def test_the_spare_takes_over_and_a_new_one_is_loaded(daemon):
    first, spare = with_spare(daemon)
    assert spare.argv == ["--name", "stage", "--spare"]
    with open(os.devnull) as file:
        child = first.ask("spawn", [file.fileno()], token=1, names=["in"])
        await_waiting(first)
        first.kill()
        assert took_over(spare) is True
        (found,) = spare.ask("resume")
        assert (found["pid"], found["alive"], found["inodes"]["in"]) == (child, True, inode(file.fileno()))
    assert spare.ask("restarts")[0] == 1 and is_live(child)
    spare.ask("ready")
    third = daemon.next()
    assert third.argv[-1] == "--spare"
    third.ask("stand_by")
    spare.kill()
    assert took_over(third) is True
    assert [each["pid"] for each in third.ask("resume")] == [child]


def test_its_memory_is_told(daemon):
    first, spare = with_spare(daemon)
    await_waiting(first)
    told = first.ask("status")
    assert told["spare"]["pid"] == spare.pid and told["spare"]["private_bytes"] > 1 << 20
    assert told["children"] == 0 and told["private_bytes"] <= 20 << 20


def test_no_spare_while_a_conductor_starts(daemon):
    first, spare = with_spare(daemon)
    first.kill()
    took_over(spare)
    assert spare.ask("resume") == []
    assert "spare" not in spare.ask("status")
    spare.ask("ready")
    assert daemon.next().argv[-1] == "--spare"


def test_one_that_is_still_loading_takes_over_when_it_has_loaded(daemon):
    first = daemon.start(*QUICK)
    first.ask("ready")
    spare = daemon.next()
    first.kill()
    await_dead([first.pid])
    spare.ask("stand_by")
    assert took_over(spare) is True
    spare.ask("ready")
    assert spare.ask("status")["restarts"] == 1


def test_a_dead_spare_is_replaced(daemon):
    first, spare = with_spare(daemon)
    spare.kill()
    second = daemon.next()
    second.ask("stand_by")
    first.kill()
    assert took_over(second) is True
    assert "spare" in daemon.log()


def test_a_hung_spare_is_replaced(daemon):
    first, spare = with_spare(daemon, "--hang-s", "0.6")
    first.order("await_pings", count=1000)
    spare.kill(signal.SIGSTOP)
    second = daemon.next()
    assert second.argv[-1] == "--spare"
    await_dead([spare.pid])
    assert is_live(first.pid)


def test_a_stopped_spare_that_is_to_take_over_is_passed_over(daemon):
    """It was stopped so shortly before that its silence was not noticed yet."""
    first, spare = with_spare(daemon)
    await_waiting(first)
    spare.kill(signal.SIGSTOP)
    first.kill()
    third = daemon.next()
    assert third.argv[-1] == "--resume"
    await_dead([spare.pid])
    third.ask("resume")
    assert third.ask("restarts")[0] == 2
    assert "does not take over" in daemon.log()


def test_conductor_and_spare_killed_at_once(daemon):
    first, spare = with_spare(daemon)
    child = first.ask("spawn", token=1)
    await_waiting(first)
    os.kill(daemon.keeper, signal.SIGSTOP)
    first.kill(), spare.kill()
    os.kill(daemon.keeper, signal.SIGCONT)
    third = daemon.next()
    assert third.argv[-1] == "--resume"
    assert [each["pid"] for each in third.ask("resume")] == [child]


def test_a_stop_lets_the_spare_go(daemon):
    first, spare = with_spare(daemon)
    first.ask("stop")
    await_dead([first.pid, spare.pid, daemon.keeper])
    daemon.keeper = 0
