"""The Conductor's end of its Keeper."""

from __future__ import annotations

import collections
import os
import select
import socket
import subprocess
import sys
import time
from typing import Any

from symphony.bus import packet
from symphony.keeper import tree
from symphony.model.errors import KeeperError


class KeeperGone(KeeperError, ConnectionError):
    """The Keeper has ended: its extensions died with it. Start a new one with `KeeperLink.start`."""


class KeeperLink:
    """Asks a Keeper to spawn and end processes and receives what became of them.

    Not thread-safe: one thread sends and receives. Messages out are sent at once; if the Keeper does not read for
    five seconds `KeeperGone` is raised. Messages in are collected by `receive` and never block.
    """

    def __init__(self, connection: socket.socket, keeper_id: str | None, process: subprocess.Popen | None):
        connection.setblocking(False)
        self._connection = connection
        self._process = process
        self._pending: collections.deque[dict[str, Any]] = collections.deque()
        self.id = keeper_id
        self.gone = False

    @classmethod
    def start(cls, instance: str) -> KeeperLink:
        """Start an embedded Keeper, a child of this process that ends when it does. Some 30 ms until it answers; this
        call does not wait for it. Raises OSError if it cannot be started."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        keeper_id = f"{instance}.{os.urandom(8).hex()}"
        argv = [
            sys.executable,
            "-m",
            "symphony.keeper",
            "--fd",
            str(theirs.fileno()),
            "--parent",
            str(os.getpid()),
            "--id",
            keeper_id,
        ]
        with theirs:
            process = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), start_new_session=True
            )
        return cls(ours, keeper_id, process)

    @classmethod
    def from_fd(cls, fd: int = 3) -> KeeperLink:
        """Take over the socket that a daemon's Keeper gave this process as descriptor 3."""
        os.set_inheritable(fd, False)
        token = os.environ.get(tree.TOKEN, "")
        return cls(socket.socket(fileno=fd), token.rpartition(".")[0] or None, None)

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else os.getppid()

    def fileno(self) -> int:
        """Readable when `receive` has something; for poll and epoll. -1 once the Keeper is gone."""
        return self._connection.fileno()

    def spawn(
        self,
        token: int,
        argv: list[str],
        env: dict[str, str | None] | None,
        cwd: str | None,
        log: str | None,
        name: str,
        child_fd: int,
    ) -> None:
        """Start a process with `child_fd` as its descriptor 3 (a duplicate; the caller still owns its own). `env` adds
        to the Keeper's environment, None removes. Answered by `spawned` or `failed`, later by `died`."""
        self._send(
            {"op": "spawn", "token": token, "argv": list(argv), "env": env or {}, "cwd": cwd, "log": log, "name": name},
            (child_fd,),
        )

    def end(self, token: int, grace_s: float = 2.0) -> None:
        """SIGTERM now, SIGKILL for the whole tree after the grace. Answered by `died`; an unknown token is ignored."""
        self._send({"op": "end", "token": token, "grace_s": grace_s})

    def ping(self) -> None:
        self._send({"op": "ping"})

    def ready(self, text: str = "") -> None:
        """Tell the starter of the daemon that this Conductor serves."""
        self._send({"op": "ready", "text": text})

    def error(self, text: str) -> None:
        """Tell the starter of the daemon why this Conductor does not start."""
        self._send({"op": "error", "text": text})

    def receive(self) -> list[dict[str, Any]]:
        """All messages that have come; never blocks. When the Keeper is gone the last one is {"op": "gone"}, once."""
        self._collect()
        messages = list(self._pending)
        self._pending.clear()
        return messages

    def stop(self, timeout: float = 10.0, grace_s: float = 2.0) -> list[dict[str, Any]]:
        """End every child and wait until none is left; an embedded Keeper ends too and is collected. Returns the
        messages that came meanwhile. After `timeout` seconds an embedded Keeper is killed and its tree swept."""
        deadline = time.monotonic() + timeout
        try:
            self._send({"op": "stop", "grace_s": grace_s})
        except KeeperGone:
            pass
        messages: list[dict[str, Any]] = []
        while not self.gone and not any(message["op"] == "stopped" for message in messages):
            left = deadline - time.monotonic()
            if left <= 0:
                break
            select.select([self._connection], [], [], left)
            messages += self.receive()
        self._finish(max(0.2, deadline - time.monotonic()))
        return messages

    def _finish(self, timeout: float) -> None:
        if self._process is not None:
            try:
                self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                self.sweep()
            self._lose()

    def sweep(self) -> int:
        """After the Keeper was killed: end what its children left, found by the token they carry; how many. They die
        with the Keeper by themselves, but what they started need not."""
        prefix = f"{self.id}."
        return tree.sweep(lambda token: token.startswith(prefix)) if self.id else 0

    def close(self) -> None:
        """Drop the connection: an embedded Keeper ends all and exits."""
        self._lose()
        if self._process is not None:
            try:
                self._process.wait(10.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        data = packet.encode(message)
        deadline = time.monotonic() + 5.0
        while not self.gone:
            try:
                packet.send(self._connection, data, fds)
                return
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._collect()
                select.select([], [self._connection], [], min(left, 0.1))
            except OSError:
                self._lose()
        raise KeeperGone("the Keeper is gone or does not answer; its extensions end with it")

    def _collect(self) -> None:
        while not self.gone:
            try:
                received = packet.receive(self._connection)
            except BlockingIOError:
                return
            except OSError:
                received = None
            if received is None:
                self._lose()
                return
            message, fds = received
            for fd in fds:
                os.close(fd)
            self._pending.append(message)

    def _lose(self) -> None:
        if not self.gone:
            self.gone = True
            self._connection.close()
            self._pending.append({"op": "gone"})
