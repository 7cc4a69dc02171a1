"""What the Keeper keeps: descriptors under a token, with the record of the process and of its death, until forgotten."""

import os
import select
import signal

from tests.keeper.conftest import DEADLINE_S, pipe_ends, same_file

SAY = "import os, socket; s = socket.socket(fileno=3); s.send(str(os.getpid()).encode());"
WAIT = SAY + "s.recv(10)"
MEMORY = 1 << 40
"""Tokens from here on are no process's."""


def is_closed(reader):
    """Whether a pipe came to its end: nobody holds its other side any more."""
    poller = select.poll()
    poller.register(reader, 0)
    return bool(poller.poll(DEADLINE_S * 1000))


def is_kept(reader, stage):
    """Whether somebody still holds the other side of a pipe after the Keeper did all that it was told."""
    stage.link.ping()
    stage.await_message("pong")
    poller = select.poll()
    poller.register(reader, 0)
    return not poller.poll(0)


def inherited(stage):
    return {each.token: each for each in stage.link.resume(DEADLINE_S)}


def test_a_deposit_comes_back_as_it_was_given(stage):
    with pipe_ends() as (first, kept):
        end = stage.spawn(1, WAIT, deposit={"in": kept, "bell": first})
        pid = int(end.recv(100))
        stage.link.deposit(MEMORY, {"memory": kept})
        found = inherited(stage)
        assert set(found) == {1, MEMORY}
        player, memory = found[1], found[MEMORY]
        assert (player.name, player.pid, player.alive, player.status) == ("child1", pid, True, 0)
        assert player.start == stage.await_message("spawned", 1)["start"]
        assert (memory.pid, memory.alive) == (0, False)
        assert set(player.descriptors) == {"in", "bell"} and set(memory.descriptors) == {"memory"}
        assert same_file(player.descriptors["in"], kept) and same_file(player.descriptors["bell"], first)
        assert same_file(memory.descriptors["memory"], kept)
        assert not os.get_inheritable(memory.descriptors["memory"])
        player.close(), memory.close()
        assert (stage.link.restarts, stage.link.last_death) == (0, "")


def test_the_dead_keep_their_deposit_and_their_record_until_forgotten(stage):
    reader, writer = os.pipe2(os.O_CLOEXEC)
    stage.spawn(1, "import sys; sys.exit('no such model: large')", deposit={"in": writer})
    os.close(writer)
    stage.await_message("died", 1)
    assert is_kept(reader, stage)
    found = inherited(stage)[1]
    assert (found.alive, found.status, found.signal) == (False, 1, 0)
    assert "no such model: large" in found.last_words
    found.close()
    assert is_kept(reader, stage)
    stage.link.forget(1)
    assert is_closed(reader)
    assert inherited(stage) == {}
    os.close(reader)


def test_a_killed_child_is_inherited_with_its_signal(stage):
    pid = int(stage.spawn(1, WAIT).recv(100))
    os.kill(pid, signal.SIGKILL)
    stage.await_message("died", 1)
    found = inherited(stage)[1]
    assert (found.pid, found.alive, found.signal, found.status) == (pid, False, signal.SIGKILL, -signal.SIGKILL)


def test_what_is_forgotten_of_the_living_goes_with_their_death(stage):
    reader, writer = os.pipe2(os.O_CLOEXEC)
    end = stage.spawn(1, WAIT, deposit={"in": writer})
    os.close(writer)
    end.recv(100)
    stage.link.forget(1)
    assert is_closed(reader)
    assert inherited(stage) == {}
    end.send(b"end")
    assert stage.await_message("died", 1)["status"] == 0
    assert inherited(stage) == {}
    os.close(reader)
