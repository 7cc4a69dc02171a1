"""What the Keeper keeps: descriptors under a token, with the record of the process and of its death, until forgotten."""

import contextlib
import fcntl
import os
import resource
import signal
import socket
import time

import pytest

from symphony.bus import packet
from symphony.keeper import tree
from symphony.model.errors import KeeperError
from tests.keeper.conftest import DEADLINE_S, Pipe, same_file

SAY = "import os, socket; s = socket.socket(fileno=3); s.send(str(os.getpid()).encode());"
WAIT = SAY + "s.recv(10)"
MEMORY = 1 << 40
"""Tokens from here on are no process's."""


def is_kept(pipe, stage):
    """Whether somebody holds the pipe's writing end after the Keeper did all that it was told."""
    stage.link.ping()
    stage.await_message("pong")
    return pipe.is_held()


def inherited(stage):
    return {each.token: each for each in stage.link.resume(DEADLINE_S)}


def inherited_and_closed(stage):
    found = inherited(stage)
    for each in found.values():
        each.close()
    return set(found)


def test_a_deposit_comes_back_as_it_was_given(stage, pipe):
    first, kept = pipe.reader, pipe.writer
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


def test_the_dead_keep_their_deposit_and_their_record_until_forgotten(stage, pipe):
    stage.spawn(1, "import sys; sys.exit('no such model: large')", deposit={"in": pipe.writer})
    pipe.close_writer()
    stage.await_message("died", 1)
    assert is_kept(pipe, stage)
    found = inherited(stage)[1]
    assert (found.alive, found.status, found.signal) == (False, 1, 0)
    assert "no such model: large" in found.last_words
    found.close()
    assert is_kept(pipe, stage)
    stage.link.forget(1)
    assert pipe.is_closed()
    assert inherited(stage) == {}


def test_a_killed_child_is_inherited_with_its_signal(stage):
    pid = int(stage.spawn(1, WAIT).recv(100))
    os.kill(pid, signal.SIGKILL)
    stage.await_message("died", 1)
    found = inherited(stage)[1]
    assert (found.pid, found.alive, found.signal, found.status) == (pid, False, signal.SIGKILL, -signal.SIGKILL)


def test_what_is_forgotten_of_the_living_goes_with_their_death(stage, pipe):
    end = stage.spawn(1, WAIT, deposit={"in": pipe.writer})
    pipe.close_writer()
    end.recv(100)
    stage.link.forget(1)
    assert pipe.is_closed()
    assert inherited(stage) == {}
    end.send(b"end")
    assert stage.await_message("died", 1)["status"] == 0
    assert inherited(stage) == {}


def test_a_deposit_grows_is_replaced_and_may_be_large(stage, pipe):
    """More than a packet takes, added to a process that had some already."""
    with Pipe() as other:
        reader, writer = other.reader, other.writer
        stage.spawn(1, WAIT, deposit={"n0": pipe.writer}).recv(100)
        pipe.close_writer()
        assert is_kept(pipe, stage)
        stage.link.deposit(1, {f"n{number}": (reader, writer)[number % 2] for number in range(40)})
        assert pipe.is_closed()  # n0 was replaced
        found = inherited(stage)[1]
        assert found.alive and list(found.descriptors) == [f"n{number}" for number in range(40)]
        assert all(same_file(found.descriptors[f"n{number}"], (reader, writer)[number % 2]) for number in range(40))
        found.close()


def test_what_the_keeper_holds_after_many_is_what_it_held_before(stage):
    def held():
        stage.link.ask_status()
        told = stage.await_message("status")
        assert told["descriptors"] == len(os.listdir(f"/proc/{stage.link.pid}/fd")) + 1  # the listing's own
        return told["descriptors"], told["records"], told["deposits"], told["children"]

    before = held()
    for cycle in range(200):
        with Pipe() as pipe:
            stage.link.deposit(MEMORY + cycle, {"a": pipe.reader, "b": pipe.writer})
            if cycle % 10 == 0:
                stage.spawn(cycle, WAIT, deposit={"in": pipe.reader, "bell": pipe.writer}).send(b"end")
                stage.await_message("died", cycle)
                stage.ends.pop(cycle).close()
                stage.link.forget(cycle)
            if cycle % 10 == 5:
                assert inherited_and_closed(stage) == {MEMORY + cycle}
            stage.link.forget(MEMORY + cycle)
    assert held() == before


@pytest.mark.parametrize(
    ("message", "fds", "op", "word"),
    [
        ({"op": "deposit", "token": 1, "names": ["a", "b"]}, 1, "refused", "2 names came with 1"),
        ({"op": "deposit", "token": 1, "names": ["a", "a"]}, 2, "refused", "twice"),
        ({"op": "deposit", "token": 1, "names": "ab"}, 2, "refused", "list of words"),
        ({"op": "deposit", "token": "one", "names": ["a"]}, 1, "refused", "a number"),
        ({"op": "deposit", "token": -4, "names": ["a"]}, 1, "refused", "a number"),
        ({"op": "spawn", "token": 1, "argv": ["true"]}, 2, "failed", "1 descriptors, got 2"),
        ({"op": "spawn", "token": 1, "argv": 7}, 1, "failed", "TypeError"),
        ({"op": "resume", "n": "x"}, 0, "failed", "ValueError"),
        ({"op": "dance"}, 3, "failed", "dance"),
    ],
)
def test_what_is_wrong_is_answered_and_leaves_nothing(stage, pipe, message, fds, op, word):
    stage.link._send(message, (pipe.writer,) * fds)
    pipe.close_writer()
    answer = stage.await_message(op)
    assert word in answer["error"]
    stage.link.forget(1)
    assert pipe.is_closed()


def test_a_token_is_used_once(stage):
    stage.spawn(1, WAIT).recv(100)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        stage.link.spawn(1, ["true"], None, None, None, "x", theirs.fileno(), {"in": theirs.fileno()})
        assert "in use" in stage.await_message("failed", 1)["error"]
        theirs.close()
        assert ours.recv(1) == b""  # what came with it was closed
    assert inherited_and_closed(stage) == {1}


def test_a_keeper_out_of_descriptors_refuses_and_goes_on(stage):
    stage.link.ping()
    stage.await_message("pong")  # it has raised its limit itself by now
    with limit(stage.link.pid, 30), Pipe() as pipe:
        refused = fill(stage, pipe.writer)
        assert refused["of"] == "deposit" and "none is free" in refused["error"]
        ours, theirs = socket.socketpair()
        with ours, theirs:
            stage.link.spawn(1, ["true"], None, None, None, "x", theirs.fileno(), {"in": pipe.writer})
        stage.await_message("failed", 1)
        full = inherited(stage)
        assert len(full) < 40 and all(each.descriptors for each in full.values() if each.token >= MEMORY)
        for each in full.values():
            each.close()
            stage.link.forget(each.token)
        stage.link.forget(1)
        pipe.close_writer()
        assert pipe.is_closed()
        assert stage.spawn(2, WAIT).recv(100)


def fill(stage, fd):
    """Deposit until it is refused, and say what the Keeper said."""
    for number in range(40):
        stage.link.deposit(MEMORY + number, {"x": fd})
        stage.link.ping()
        stage.await_message("pong")
        for message in stage.messages:
            if message["op"] == "refused":
                stage.messages.remove(message)
                return message
    raise AssertionError("it was never refused")


@contextlib.contextmanager
def limit(pid, number):
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (number, before[1]))
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


def test_a_conductor_out_of_descriptors_can_ask_again(stage):
    names = [f"n{number}" for number in range(16)]
    with Pipe() as pipe:
        for token in range(8):
            stage.link.deposit(MEMORY + token, dict.fromkeys(names, pipe.reader))
        before = len(os.listdir("/proc/self/fd"))
        with limit(os.getpid(), before + 40), pytest.raises(KeeperError, match="ulimit"):
            stage.link.resume(DEADLINE_S)
        assert len(os.listdir("/proc/self/fd")) == before
        found = inherited(stage)
        assert sum(len(each.descriptors) for each in found.values()) == 8 * 16
        for each in found.values():
            each.close()
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_conductor_that_does_not_read_keeps_nobody_from_working(stage):
    with Pipe() as pipe:
        names = {f"n{number}": pipe.writer for number in range(16)}
        for token in range(40):
            stage.link.deposit(MEMORY + token, names)
        for n in range(20):
            stage.link._send({"op": "resume", "n": 100 + n})
        end = stage.spawn(1, WAIT)
        assert end.recv(100)  # it spawns, although 12,800 descriptors wait to be read
        found = inherited(stage)
        assert len(found) == 41
        for each in found.values():
            each.close()
            stage.link.forget(each.token)
        pipe.close_writer()
        assert pipe.is_closed()


def locked_memory(size):
    """A memfd of that size with a lock on it, and another open file of the same memory, which gets the lock when
    every duplicate of the first is closed."""
    fd = os.memfd_create("kept", os.MFD_CLOEXEC)
    os.ftruncate(fd, size)
    other = os.open(f"/proc/self/fd/{fd}", os.O_RDWR | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX)
    return fd, other


def gets_lock(other):
    try:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def await_lock(other):
    deadline = time.monotonic() + DEADLINE_S
    while not gets_lock(other):
        assert time.monotonic() < deadline, "it is still open somewhere"
        os.sched_yield()


def reapers(stage):
    return tree.descendants(stage.link.pid)


def test_what_is_large_is_closed_by_a_process_of_its_own(stage):
    assert reapers(stage) == set()
    fd, other = locked_memory(4 << 20)
    stage.link.deposit(MEMORY, {"memory": fd})
    os.close(fd)
    stage.link.ping()
    stage.await_message("pong")
    assert not gets_lock(other)
    stage.link.forget(MEMORY)
    await_lock(other)
    (reaper,) = reapers(stage)
    assert 1 <= len(os.listdir(f"/proc/{reaper}/fd")) <= 2  # its socket, and none of the Keeper's
    os.kill(reaper, signal.SIGKILL)
    for _ in range(3):
        fd, again = locked_memory(4 << 20)
        stage.link.deposit(MEMORY, {"memory": fd})
        os.close(fd)
        stage.link.forget(MEMORY)
        await_lock(again)
        os.close(again)
    (second,) = reapers(stage)
    assert second != reaper
    os.close(other)


def test_a_stopped_reaper_holds_nobody_up(stage):
    fd, other = locked_memory(1 << 20)
    stage.link.deposit(MEMORY, {"memory": fd})
    stage.link.forget(MEMORY)
    os.close(fd)
    await_lock(other)
    (reaper,) = reapers(stage)
    os.kill(reaper, signal.SIGSTOP)
    held = [locked_memory(1 << 20) for _ in range(600)]
    for number, (fd, _) in enumerate(held):
        stage.link.deposit(MEMORY + number, {"memory": fd})
        stage.link.forget(MEMORY + number)
        os.close(fd)
    stage.link.ping()
    stage.await_message("pong")
    os.kill(reaper, signal.SIGCONT)
    for _, again in held:
        await_lock(again)
        os.close(again)
    os.close(other)


def test_the_link_outlives_what_cannot_be_sent(stage):
    ours, theirs = socket.socketpair()
    ours.close(), theirs.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        stage.link.deposit(MEMORY, {"gone": 1000})
    with pytest.raises(ValueError, match="at most"):
        stage.link.spawn(1, ["x" * packet.MESSAGE_BYTES], None, None, None, "x", 0)
    assert inherited(stage) == {}
