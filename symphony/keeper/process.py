"""The Keeper's loop: messages in, deaths out, one thread, one epoll."""

from __future__ import annotations

import collections
import os
import select
import signal
import socket
import subprocess
import time
from typing import Any

from symphony.bus import packet
from symphony.keeper import tree
from symphony.keeper.child import Child

GRACE_S = 2.0
_WORDS_IN_MESSAGE = 8192


class Keeper:
    """Spawns, watches and ends processes for the Conductor at the other end of `connection`. Runs until it is told to
    stop, the Conductor is gone (end of file, or `watched_pid` dead), or SIGTERM arrives; then ends all and returns."""

    def __init__(self, connection: socket.socket | None, keeper_id: str, watched_pid: int | None = None):
        self.id = keeper_id
        self.children: dict[int, Child] = {}
        self.connection = connection
        self.stopping = False
        self._by_fd: dict[int, tuple[str, Child | None]] = {}
        self._epoll = select.epoll()
        self._unsent: collections.deque[bytes] = collections.deque()
        self._wake_read, self._wake_write = socket.socketpair()
        self._watched = -1
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self._watch(self._wake_read.fileno(), "signal")
        if connection is not None:
            connection.setblocking(False)
            self._watch(connection.fileno(), "message")
        if watched_pid is not None:
            self._watched = os.pidfd_open(watched_pid)
            self._watch(self._watched, "parent")
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._handle)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _handle(self, number: int, _frame: object) -> None:
        if number != signal.SIGHUP:
            self.terminated()

    def terminated(self) -> None:
        self.stop()

    def _watch(self, fd: int, what: str, child: Child | None = None) -> None:
        self._epoll.register(fd, select.EPOLLIN)
        self._by_fd[fd] = (what, child)

    def _unwatch(self, fd: int) -> None:
        if self._by_fd.pop(fd, None):
            self._epoll.unregister(fd)

    def run(self) -> None:
        while not self.finished():
            dues = [child.due for child in self.children.values() if child.due is not None]
            timeout = max(0.0, min(dues) - time.monotonic()) if dues else None
            for fd, _events in self._epoll.poll(timeout):
                what, child = self._by_fd.get(fd, ("", None))
                if what:
                    getattr(self, "_on_" + what)(child)
            self._after_turn()
        self._send({"op": "stopped"})
        self._end_orphans()

    def finished(self) -> bool:
        return self.stopping and not self.children

    def _after_turn(self) -> None:
        now = time.monotonic()
        for child in list(self.children.values()):
            if child.reap():
                self._on_death(child)
            elif child.due is not None and child.due <= now:
                child.kill_tree()
        self._reap_orphans()
        self._flush()

    # what wakes the loop

    def _on_signal(self, _child: None = None) -> None:
        try:
            while self._wake_read.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _on_message(self, _child: None) -> None:
        for _ in range(64):
            try:
                received = packet.receive(self.connection)
            except BlockingIOError:
                return
            except ValueError as error:
                self._send({"op": "failed", "token": -1, "error": str(error)})
                continue
            except OSError:
                received = None
            if received is None:
                self._lost_conductor()
                return
            self._apply(*received)

    def _on_parent(self, _child: None) -> None:
        self._lost_conductor()

    def _on_output(self, child: Child) -> None:
        if child.output.read() == 0:
            self._unwatch(child.output.fd)

    def _on_pidfd(self, child: Child) -> None:
        if child.reap():
            self._unwatch(child.pidfd)

    # what the Conductor asks

    def _apply(self, message: dict[str, Any], fds: list[int]) -> None:
        try:
            operation = message.get("op")
            if operation == "spawn":
                self._spawn(message, fds)
            elif operation == "end":
                child = self.children.get(message.get("token"))
                if child is not None:
                    child.end(float(message.get("grace_s", GRACE_S)))
            elif operation == "stop":
                self.stop(float(message.get("grace_s", GRACE_S)))
            elif operation == "ping":
                self._send({"op": "pong"})
            else:
                self.extra(message)
        finally:
            for fd in fds:
                os.close(fd)

    def extra(self, message: dict[str, Any]) -> None:
        """A message that only a kind of Keeper knows; unknown ones are answered as failures."""
        self._send({"op": "failed", "token": -1, "error": f"unknown message {message.get('op')!r}"})

    def _spawn(self, message: dict[str, Any], fds: list[int]) -> None:
        token = message.get("token", -1)
        try:
            if self.stopping:
                raise RuntimeError("the Keeper is ending")
            if token in self.children:
                raise RuntimeError(f"token {token} is in use")
            if len(fds) != 1:
                raise RuntimeError(f"spawn wants one descriptor, got {len(fds)}")
            child = self.start(token, message, fds[0])
        except (OSError, ValueError, TypeError, KeyError, RuntimeError, subprocess.SubprocessError) as error:
            self._send({"op": "failed", "token": token, "error": f"{type(error).__name__}: {error}"})
            return
        self._send({"op": "spawned", "token": token, "pid": child.pid, "start": child.start})

    def start(self, token: int, message: dict[str, Any], fd: int) -> Child:
        child = Child(self.id, token, message, fd)
        self.children[token] = child
        self._watch(child.pidfd, "pidfd", child)
        self._watch(child.output.fd, "output", child)
        return child

    def stop(self, grace_s: float = GRACE_S) -> None:
        self.stopping = True
        for child in self.children.values():
            child.end(grace_s)

    def _lost_conductor(self) -> None:
        if self.connection is not None:
            self._unwatch(self.connection.fileno())
            self.connection.close()
            self.connection = None
        if self._watched >= 0:
            self._unwatch(self._watched)
            os.close(self._watched)
            self._watched = -1
        self.stop(grace_s=0.5)

    # deaths

    def _on_death(self, child: Child) -> None:
        """Say so at once, then end what the dead process left below it: a survivor must not delay the news."""
        self._unwatch(child.pidfd)
        if child.state == "killing" and child.due > time.monotonic():
            return
        if not child.reported:
            child.reported = True
            child.output.drain()
            self.on_end(child)
        if child.kill_tree():
            self._unwatch(child.output.fd)
            child.close()
            del self.children[child.token]

    def on_end(self, child: Child) -> None:
        status = child.status or 0
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -number
        self._send(
            {
                "op": "died",
                "token": child.token,
                "pid": child.pid,
                "status": code,
                "signal": number,
                "last_words": child.output.last_words()[-_WORDS_IN_MESSAGE:],
            }
        )

    def _reap_orphans(self) -> None:
        """Collect whatever the kernel handed to this subreaper. A child's own status may come up here too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for child in self.children.values():
                if child.pid == pid and child.status is None:
                    child.died(status)
                    child.due = time.monotonic()

    def _end_orphans(self) -> None:
        """After the last child: whatever still descends from this process threw its token away and left its parents.
        The Keeper ends with nothing below it."""
        deadline = time.monotonic() + 2.0
        while time.monotonic() < deadline:
            left = tree.members((), lambda token: token.startswith(self.id + "."))
            left |= tree.descendants(os.getpid())
            if not left:
                return
            tree.kill(left)
            self._epoll.poll(0.01)
            self._on_signal()
            self._reap_orphans()

    # messages out

    def _send(self, message: dict[str, Any]) -> None:
        if self.connection is not None:
            self._unsent.append(packet.encode(message))
            self._flush()

    def _flush(self) -> None:
        while self._unsent and self.connection is not None:
            try:
                packet.send(self.connection, self._unsent[0])
            except BlockingIOError:
                self._epoll.modify(self.connection.fileno(), select.EPOLLIN | select.EPOLLOUT)
                return
            except OSError:
                self._unsent.clear()
                return
            self._unsent.popleft()
            if not self._unsent:
                self._epoll.modify(self.connection.fileno(), select.EPOLLIN)
