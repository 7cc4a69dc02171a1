"""A Conductor is killed at every stage of its life: the children go on, and the next one inherits them."""

import os
import signal

import pytest

from tests.keeper.conftest import await_dead, is_live
from tests.keeper.daemon_stage import by_token, inode
from tests.keeper.standin import CHILD

MEMORY = 1 << 40
DEATH_SIGNAL = "import ctypes; ctypes.CDLL(None).prctl(1, 9, 0, 0, 0);"


def test_the_next_conductor_inherits_children_and_descriptors(daemon, pipe):
    first = daemon.start("--players", "3")
    assert first.argv == ["--name", "stage", "--players", "3"]
    child = first.ask("spawn", [pipe.reader, pipe.writer], token=1, names=["in", "bell"])
    first.ask("deposit", [pipe.reader], token=MEMORY, names=["memory"])
    first.ask("ready", text="go")
    assert daemon.told() == "ready go\n"
    first.kill()
    second = daemon.next()
    assert second.argv == ["--name", "stage", "--players", "3", "--resume"]
    found = by_token(second.ask("resume"))
    assert set(found) == {1, MEMORY}
    assert (found[1]["pid"], found[1]["alive"], found[1]["name"]) == (child, True, "child1")
    assert found[1]["inodes"]["in"] == inode(pipe.reader) and found[1]["inodes"]["bell"] == inode(pipe.writer)
    assert set(found[1]["inodes"]) == {"in", "bell", "control"}
    assert found[MEMORY]["inodes"] == {"memory": inode(pipe.reader)}
    restarts, last_ns, last_death = second.ask("restarts")
    assert (restarts, last_death) == (1, f"Conductor {first.pid} ended by signal 9") and last_ns > 0
    assert is_live(child)


def test_killed_at_every_stage_of_resuming_again_and_again(daemon, pipe):
    """Five Conductors in a row, each killed a step further on; the children notice nothing."""
    actor = daemon.start("--deaths", "100")
    children = {token: actor.ask("spawn", [pipe.writer], token=token, names=["in"]) for token in (1, 2, 3)}
    actor.ask("ready")
    stages = ([], ["ask_resume"], ["resume"], ["resume", "ready"], ["resume", "resume"])
    for stage in stages:
        actor.kill()
        actor = daemon.next()
        for order in stage:
            actor.ask(order)
    actor.kill()
    actor = daemon.next()
    found = by_token(actor.ask("resume"))
    assert {token: each["pid"] for token, each in found.items()} == children
    assert all(each["alive"] and each["inodes"]["in"] == inode(pipe.writer) for each in found.values())
    assert all(is_live(pid) for pid in children.values())
    assert actor.ask("restarts")[0] == len(stages) + 1


def test_a_child_that_dies_while_nobody_conducts_is_inherited_dead(daemon, pipe):
    first = daemon.start()
    children = {token: first.ask("spawn", [pipe.writer], token=token, names=["in"]) for token in (1, 2, 3)}
    first.ask("ready")
    first.kill()
    second = daemon.next()
    os.kill(children[1], signal.SIGKILL)
    await_dead([children[1]])
    found = by_token(second.ask("resume"))
    assert (found[1]["alive"], found[1]["signal"]) == (False, signal.SIGKILL)
    assert found[1]["inodes"]["in"] == inode(pipe.writer)
    assert found[2]["alive"] and found[3]["alive"]
    os.kill(children[2], signal.SIGKILL)
    died = second.ask("await", op="died")
    assert (died["token"], died["signal"]) == (2, signal.SIGKILL)
    second.kill()
    third = daemon.next()
    found = by_token(third.ask("resume"))
    assert [found[token]["alive"] for token in (1, 2, 3)] == [False, False, True]
    assert third.ask("heard") == []


def test_what_was_sent_before_a_death_was_sent(daemon, pipe):
    """The Keeper had read none of it when the Conductor was killed."""
    first = daemon.start()
    first.ask("spawn", token=1)
    first.ask("ready")
    first.ask("status")
    os.kill(daemon.keeper, signal.SIGSTOP)
    first.ask("deposit", [pipe.writer], token=MEMORY, names=["memory"])
    first.ask("order_spawn", [pipe.writer], token=2, names=["in"])
    first.ask("forget", token=1)
    first.kill()
    first.await_end()
    os.kill(daemon.keeper, signal.SIGCONT)
    found = by_token(daemon.next().ask("resume"))
    assert found[MEMORY]["inodes"]["memory"] == inode(pipe.writer)
    assert found[2]["alive"] and found[2]["inodes"]["in"] == inode(pipe.writer)
    assert 1 not in found


def test_a_failed_spawn_is_inherited_as_one(daemon):
    first = daemon.start()
    first.ask("ready")
    first.ask("spawn_nothing", token=5)
    assert "/no/such/program" in first.ask("await", op="failed", token=5)["error"]
    first.kill()
    found = by_token(daemon.next().ask("resume"))
    assert (found[5]["pid"], found[5]["alive"], found[5]["status"]) == (0, False, -1)
    assert "/no/such/program" in found[5]["last_words"] and set(found[5]["inodes"]) == {"control"}


@pytest.mark.parametrize("how", ["stop", "exit", "term"])
def test_an_end_that_was_meant_ends_everything(daemon, how):
    first = daemon.start()
    child = first.ask("spawn", token=1)
    first.ask("ready")
    if how == "term":
        first.kill(signal.SIGTERM)
    else:
        first.ask(how, **({"status": 0} if how == "exit" else {}))
    await_dead([first.pid, child, daemon.keeper])
    daemon.keeper = 0


@pytest.mark.parametrize("when", ["serving", "resuming", "waiting"])
def test_a_keeper_that_is_asked_to_end_ends_all(daemon, when):
    first = daemon.start()
    child = first.ask("spawn", token=1)
    first.ask("ready")
    actor = first
    if when != "serving":
        actor.kill()
        actor = daemon.next()
    if when == "waiting":  # for the back-off's end
        actor.kill()
        actor.await_end()
    os.kill(daemon.keeper, signal.SIGTERM)
    await_dead([first.pid, actor.pid, child, daemon.keeper])
    daemon.keeper = 0


@pytest.mark.parametrize("how", ["error", "status"])
def test_a_first_conductor_that_gives_up_is_not_replaced(daemon, how):
    first = daemon.start()
    child = first.ask("spawn", token=1)
    if how == "error":
        first.ask("error", text="no room")
    first.ask("exit", status=3)
    assert daemon.told().startswith(f"error {'no room' if how == 'error' else 'the Conductor ended with status 3'}")
    await_dead([first.pid, child, daemon.keeper])
    daemon.keeper = 0


def test_a_first_conductor_that_is_killed_before_it_serves_is_replaced(daemon):
    first = daemon.start("--recover")
    assert first.argv[-1] == "--recover"
    child = first.ask("spawn", token=1)
    first.kill()
    second = daemon.next()
    assert second.argv[-1] == "--resume" and "--recover" not in second.argv
    assert [each["pid"] for each in second.ask("resume")] == [child]
    second.ask("ready", text="at last")
    assert daemon.told() == "ready at last\n"


def test_first_conductors_that_are_killed_one_after_the_other_are_given_up(daemon):
    actor = daemon.start("--stillborn", "1")
    actor.kill()
    actor = daemon.next()
    actor.kill()
    assert daemon.told().startswith("error Conductors that died before they were ready, in 60 s: 2")
    await_dead([actor.pid, daemon.keeper])
    daemon.keeper = 0


def test_the_starter_hears_of_the_first_ready_alone(daemon):
    first = daemon.start()
    first.ask("ready", text="one")
    first.kill()
    second = daemon.next()
    second.ask("ready", text="two")
    second.ask("status")
    assert daemon.told() == "ready one\n"
    with open(daemon.ready, closefd=False) as pipe:
        assert pipe.read() == ""


def test_a_killed_keeper_takes_conductor_spare_and_children_along(daemon):
    first = daemon.start("--spare")
    child = first.ask("spawn", token=1, code=DEATH_SIGNAL + CHILD)
    first.ask("ready")
    spare = daemon.next()
    spare.ask("stand_by")
    os.kill(daemon.keeper, signal.SIGKILL)
    await_dead([daemon.keeper, child, first.pid, spare.pid])
    daemon.keeper = 0


def test_no_descriptor_is_left_over_many_conductors(daemon, pipe):
    """What the Keeper holds after a dozen replacements, with a spawn and a death in each, is what it held after two."""
    actor = daemon.start("--deaths", "1000", "--window-s", "0.000001")
    actor.ask("ready")
    held = []
    for cycle in range(12):
        child = actor.ask("spawn", [pipe.reader], token=cycle + 1, names=["in"])
        actor.kill()
        os.kill(child, signal.SIGKILL)
        actor = daemon.next()
        assert set(by_token(actor.ask("resume"))) == {cycle + 1}
        actor.ask("forget", token=cycle + 1)
        actor.ask("ready")
        held.append(actor.ask("status"))
    assert held[-1]["records"] == held[-1]["deposits"] == 0 and held[-1]["restarts"] == 12
    assert held[-1]["descriptors"] <= held[1]["descriptors"]
    assert held[-1]["private_bytes"] <= 20 << 20
