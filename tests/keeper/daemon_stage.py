"""A daemon's Keeper whose Conductors are stand-ins that a test commands one by one."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from symphony.keeper import tree
from tests.keeper.conftest import DEADLINE_S, await_dead

ROOT = Path(__file__).resolve().parents[2]


def inode(fd):
    return os.fstat(fd).st_ino


def by_token(told):
    return {each["token"]: each for each in told}


class Actor:
    """One Conductor, or spare, at the test's end."""

    def __init__(self, connection):
        self.connection = connection
        connection.settimeout(DEADLINE_S)
        hello = self.read()
        self.pid, self.argv = hello["pid"], hello["argv"]

    def read(self):
        data = self.connection.recv(1 << 17)
        assert data, "it ended before it answered"
        return json.loads(data)

    def order(self, do, fds=(), **words):
        data = json.dumps({"do": do, **words}).encode()
        socket.send_fds(self.connection, [data], list(fds))

    def ask(self, do, fds=(), **words):
        self.order(do, fds, **words)
        return self.read()["answer"]

    def kill(self, number=signal.SIGKILL):
        os.kill(self.pid, number)

    def await_end(self):
        """Until its end of the socket is closed, by its own death as a rule."""
        poller = select.poll()
        poller.register(self.connection, select.POLLIN)
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            poller.poll(DEADLINE_S * 1000)
            try:
                if not self.connection.recv(1 << 17):
                    return
            except ConnectionError:
                return
        raise AssertionError(f"Conductor {self.pid} does not end")


class DaemonStage:
    def __init__(self, folder):
        self.folder = folder
        self.id = f"stage{os.getpid()}x{os.urandom(4).hex()}"
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(str(folder / "boss"))
        self.listener.listen(16)
        self.listener.settimeout(DEADLINE_S)
        self.actors = []
        self.keeper = 0
        self.ready = -1

    def start(self, *options):
        """Start the Keeper; returns its first Conductor."""
        self.ready, writer = os.pipe2(os.O_CLOEXEC)
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "STANDIN_BOSS": str(self.folder / "boss")}
        command = [
            sys.executable, "-m", "symphony.keeper", "--daemon", "--id", self.id, "--module", "tests.keeper.standin",
            "--name", "stage", "--directory", str(self.folder / "engine"), "--ready-fd", str(writer), *options,
        ]  # fmt: skip
        try:
            subprocess.run(command, check=True, env=environment, pass_fds=(writer,), timeout=DEADLINE_S)
        finally:
            os.close(writer)
        first = self.next()
        self.keeper = int(tree.stat_fields(first.pid)[1])
        return first

    def next(self):
        """The next process that the Keeper starts as a Conductor or as a spare."""
        actor = Actor(self.listener.accept()[0])
        self.actors.append(actor)
        return actor

    def told(self):
        """What the starter is told; empty when the pipe is closed without a word."""
        with open(self.ready, closefd=False) as pipe:
            return pipe.readline()

    def log(self):
        return (self.folder / "engine" / "logs" / "conductor.log").read_text()

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.keeper}/fd"))

    def close(self):
        if self.keeper:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.keeper, signal.SIGTERM)
        for actor in self.actors:
            actor.connection.close()
        self.listener.close()
        if self.keeper:
            await_dead([self.keeper])
        if self.ready >= 0:
            os.close(self.ready)
        left = tree.members((), lambda token: token.startswith(self.id + "."))
        tree.kill(left)
        assert not left, f"left behind: {left}"
