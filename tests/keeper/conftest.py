"""Processes under a real Keeper: helpers that start one, wait for its words, and look that nothing is left."""

import contextlib
import fcntl
import os
import select
import socket
import sys
import time

import pytest

from symphony.keeper import tree
from symphony.keeper.link import KeeperLink

DEADLINE_S = 20.0


class Stage:
    """A Keeper and the sockets of its children."""

    def __init__(self):
        self.link = KeeperLink.start("keepertest")
        self.ends = {}
        self.messages = []

    def spawn(self, token, code, log=None, env=None, argv=None, deposit=None):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.settimeout(DEADLINE_S)
        argv = argv or [sys.executable, "-S", "-c", code]
        with theirs:
            self.link.spawn(token, argv, env, None, log, f"child{token}", theirs.fileno(), deposit)
        self.ends[token] = ours
        return ours

    def await_message(self, op, token=None):
        deadline = time.monotonic() + DEADLINE_S
        while True:
            self.messages += self.link.receive()
            for message in self.messages:
                if message["op"] == op and (token is None or message.get("token") == token):
                    self.messages.remove(message)
                    return message
            left = deadline - time.monotonic()
            assert left > 0, f"no {op} for {token}; have {self.messages}"
            if not self.link.gone:
                select.select([self.link], [], [], left)

    def close(self):
        for end in self.ends.values():
            end.close()
        with contextlib.suppress(ConnectionError):
            self.link.stop(10.0, grace_s=0.2)


def is_live(pid):
    fields = tree.stat_fields(pid)
    return fields is not None and fields[0] not in "ZX"


def await_dead(pids):
    """Every pid dead (or a zombie of somebody else's) before the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    for pid in pids:
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        try:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            assert poller.poll(max(0, deadline - time.monotonic()) * 1000), f"process {pid} still lives"
        finally:
            os.close(fd)


@pytest.fixture
def stage():
    before = set(os.listdir("/proc/self/fd"))
    stage = Stage()
    yield stage
    keeper_id = stage.link.id
    stage.close()
    left = tree.members((), lambda token: token.startswith(keeper_id))
    tree.kill(left)
    assert not left
    assert len(os.listdir("/proc/self/fd")) <= len(before)


@pytest.fixture
def daemon(tmp_path):
    """A daemon's Keeper with Conductors that the test commands."""
    from tests.keeper.daemon_stage import DaemonStage

    stage = DaemonStage(tmp_path)
    try:
        yield stage
    finally:
        stage.close()


class Pipe:
    """A pipe that is closed afterwards, as far as the test has not done so itself."""

    def __init__(self):
        self.reader, self.writer = os.pipe2(os.O_CLOEXEC)

    def close_writer(self):
        os.close(self.writer)
        self.writer = -1

    def is_closed(self):
        """Whether it came to its end: nobody holds a writing end any more."""
        poller = select.poll()
        poller.register(self.reader, 0)
        return bool(poller.poll(DEADLINE_S * 1000))

    def is_held(self):
        """Whether somebody holds a writing end."""
        poller = select.poll()
        poller.register(self.reader, 0)
        return not poller.poll(0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for fd in (self.reader, self.writer):
            if fd >= 0:
                os.close(fd)


@pytest.fixture
def pipe():
    with Pipe() as made:
        yield made


def same_file(one, other):
    """Whether two descriptors are of the same thing, opened the same way."""
    first, second = os.fstat(one), os.fstat(other)
    return (first.st_dev, first.st_ino) == (second.st_dev, second.st_ino) and mode_of(one) == mode_of(other)


def mode_of(fd):
    return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE
