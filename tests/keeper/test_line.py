"""The Keeper's end of the socket to a Conductor: nothing waits for one that does not read."""

import select
import socket
import subprocess
import sys

import pytest

from symphony.bus import packet
from symphony.keeper.line import BACKLOG, Line


@pytest.fixture
def ends():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    line = Line(ours)
    yield line, theirs
    line.close()
    theirs.close()


def read_all(theirs, line):
    """What comes while the line is flushed in between, as its owner's loop would."""
    found = []
    while True:
        try:
            found.append(packet.receive(theirs)[0]["n"])
        except BlockingIOError:
            if not line.waiting:
                return found
            line.flush()


def test_what_does_not_fit_waits_and_comes_in_order(ends):
    line, theirs = ends
    for n in range(2000):
        line.say({"n": n})
    assert line.waiting and line.events() == select.EPOLLIN | select.EPOLLOUT
    assert read_all(theirs, line) == list(range(2000))
    assert line.events() == select.EPOLLIN


def test_one_that_never_reads_is_not_listened_to_for_ever(ends):
    line, theirs = ends
    while line.events() & select.EPOLLIN:
        line.say({"n": line.waiting})
    assert line.waiting == BACKLOG
    read_all(theirs, line)
    assert line.events() == select.EPOLLIN


def test_a_letter_is_written_when_it_is_sent(ends):
    line, theirs = ends
    word = {"n": "early"}
    while not line.waiting:
        line.say({"n": 0})
    line.post(lambda: (word, ()))
    line.post(lambda: None)
    word["n"] = "late"
    assert read_all(theirs, line)[-1] == "late"


def test_a_peer_that_is_gone_is_no_error(ends):
    line, theirs = ends
    while not line.waiting:
        line.say({"n": 0})
    theirs.close()
    line.say({"n": 1})
    assert not line.waiting and line.receive() is None


TOO_MANY = """
import os, resource, socket
from symphony.bus import packet
from symphony.keeper.line import Line
if not os.getuid():
    os.setresuid(65534, 65534, 65534)  # root may have any number on their way
resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
theirs.setblocking(False)
line = Line(ours)
for n in range(20):
    line.post(lambda n=n: ({"n": n}, (0,) * 10))
assert line.waiting and line.retry_at is not None and not line.events() & 4, "it was not refused"
found = []
for _ in range(40):
    try:
        message, fds = packet.receive(theirs)
    except BlockingIOError:
        line.flush()
        continue
    assert len(fds) == 10
    found.append(message["n"])
    for fd in fds:
        os.close(fd)
assert found == list(range(20)) and line.retry_at is None, found
"""


def test_descriptors_that_the_kernel_will_not_pass_now_are_passed_later():
    """A user may have only so many on their way (ETOOMANYREFS): no event tells when it will do, so it is tried again."""
    done = subprocess.run([sys.executable, "-c", TOO_MANY], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
