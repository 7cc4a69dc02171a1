"""The Conductor's end of its Keeper."""

from __future__ import annotations

import collections
import os
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from symphony.bus import packet
from symphony.keeper import tree
from symphony.model.errors import KeeperError

SEND_S = 5.0
RETRY_S = 0.01


class KeeperGone(KeeperError, ConnectionError):
    """The Keeper has ended: its extensions died with it. Start a new one with `KeeperLink.start`."""


@dataclass(slots=True)
class Inherited:
    """What the Keeper holds under one token: the process, its death if it has died, and what was deposited.

    A deposit of no process has pid 0. A spawn that failed has pid 0, too, status -1, and the reason as last words.
    `descriptors` are this process's own duplicates, by the names they were deposited under.
    """

    token: int
    name: str
    pid: int
    start: int
    alive: bool
    status: int
    signal: int
    last_words: str
    descriptors: dict[str, int] = field(default_factory=dict)

    def close(self) -> None:
        """Close the descriptors that were not taken out of the dictionary."""
        while self.descriptors:
            os.close(self.descriptors.popitem()[1])


class KeeperLink:
    """Asks a Keeper to spawn and end processes and to keep descriptors, and receives what became of them.

    Any thread may send; one thread receives. Messages out are sent at once; a Keeper that does not read for five
    seconds counts as gone. Messages in are collected by `receive`, which never blocks.

    `restarts`, `last_restart_ns` (monotonic) and `last_death` tell, after `resume`, how often a Conductor of this
    Keeper has been replaced, when the last time, and how the one before this ended.
    """

    def __init__(self, connection: socket.socket, keeper_id: str | None, process: subprocess.Popen | None):
        connection.setblocking(False)
        self._connection = connection
        self._process = process
        self._pending: collections.deque[dict[str, Any]] = collections.deque()
        self._lock = threading.RLock()
        self._receiver: int | None = None
        self._asked = 0
        self.id = keeper_id
        self.gone = False
        self.restarts = 0
        self.last_restart_ns = 0
        self.last_death = ""

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
    def embedded(self) -> bool:
        """Whether the Keeper is this process's child, not its parent."""
        return self._process is not None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else os.getppid()

    def fileno(self) -> int:
        """Readable when something new has come; for poll and epoll. Call `receive` before waiting for it: sending and
        `resume` collect messages, too. -1 once the Keeper is gone."""
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
        deposit: Mapping[str, int] | None = None,
    ) -> None:
        """Start a process with `child_fd` as its descriptor 3 (a duplicate; the caller still owns its own). `env` adds
        to the Keeper's environment, None removes. Answered by `spawned` or `failed`, later by `died`.

        What is in `deposit` (at most 15; more by `deposit` before) the Keeper keeps under the token, with the record
        of the process and of its death, or of the failure, until `forget`."""
        deposit = deposit or {}
        message = {"op": "spawn", "token": token, "argv": list(argv), "env": env or {}, "cwd": cwd, "log": log}
        message |= {"name": name, "deposit": list(deposit)}
        self._send(message, (child_fd, *deposit.values()))

    def deposit(self, token: int, descriptors: Mapping[str, int]) -> None:
        """Have the Keeper keep duplicates under the token, which need not be a process's. Sent is kept: it holds even
        if this process dies at once. A name that is there already is replaced. Answered only when it was in vain (the
        Keeper is out of descriptors): {"op": "refused", "token", "names", "error"}."""
        names = list(descriptors)
        for first in range(0, len(names), packet.DESCRIPTORS):
            part = names[first : first + packet.DESCRIPTORS]
            message = {"op": "deposit", "token": token, "names": part}
            self._send(message, tuple(descriptors[name] for name in part))

    def forget(self, token: int) -> None:
        """Have the Keeper close what it keeps under the token and drop its record; that of a living process goes when
        it has died, which is told as ever. An unknown token is ignored."""
        self._send({"op": "forget", "token": token})

    def resume(self, timeout: float = 10.0) -> list[Inherited]:
        """Take over from a Conductor that died: everything the Keeper holds, with new duplicates. From here on deaths
        are told by `died`; those before are in the answer (alive=False). May be called again. Other messages that came
        meanwhile are `receive`'s: call it once after this, since nothing is readable for them any more.

        Raises KeeperGone, KeeperError when the Keeper does not answer in time or this process is out of
        descriptors; nothing is left open then."""
        found: dict[int, Inherited] = {}
        try:
            self._receiver = threading.get_ident()
            self._asked += 1
            self._send({"op": "resume", "n": self._asked})
            self._inherit(found, time.monotonic() + timeout)
        except BaseException:
            for each in found.values():
                each.close()
            for message in list(self._pending):
                _close_descriptors(message)
            raise
        return list(found.values())

    def _inherit(self, found: dict[int, Inherited], deadline: float) -> None:
        others: list[dict[str, Any]] = []
        try:
            while not self._inherit_some(found, others):
                left = deadline - time.monotonic()
                if self.gone:
                    raise KeeperGone("the Keeper went while it handed over")
                if left <= 0:
                    raise KeeperError(f"the Keeper has told of {len(found)} tokens and does not go on")
                self._await(left)
                self._collect()
        finally:
            with self._lock:
                self._pending.extendleft(reversed(others))

    def _inherit_some(self, found: dict[int, Inherited], others: list[dict[str, Any]]) -> bool:
        """Take what has come of the answer out of what has come; whether that was all of it."""
        while self._pending:
            message = self._pending.popleft()
            if message["op"] not in ("inherit", "inherited"):
                others.append(message)
            elif message["n"] != self._asked:
                _close_descriptors(message)  # of an answer that nobody waits for any more
            elif message["op"] == "inherit":
                _add(found, message)
            else:
                self.restarts, self.last_restart_ns = message["restarts"], message["last_ns"]
                self.last_death = message["last_death"]
                if len(found) != message["count"]:
                    raise KeeperError(f"the Keeper told of {len(found)} tokens of {message['count']}")
                return True
        return False

    def _await(self, seconds: float, what: int = select.POLLIN) -> None:
        """Until the socket is readable (or whatever is asked), or so many seconds have passed. Not for what has been
        collected already."""
        poller = select.poll()
        if not self.gone and not (what == select.POLLIN and self._pending):
            poller.register(self._connection, what)
            poller.poll(max(0.0, seconds) * 1000)

    def stand_by(self) -> bool:
        """Be the spare: say that all is loaded, and wait. True: this process is to take over now (`resume`). False:
        it is not needed any more, or the Keeper is gone: end. Answers the Keeper's pings meanwhile."""
        self._send({"op": "spare"})
        while True:
            for message in self.receive():
                if message["op"] == "takeover":
                    self._send({"op": "taken"})
                    return True
                if message["op"] == "ping":
                    self.pong(message["n"])
                if message["op"] == "gone":
                    return False
            self._await(1.0)

    def end(self, token: int, grace_s: float = 2.0) -> None:
        """SIGTERM now, SIGKILL for the whole tree after the grace. Answered by `died`; an unknown token is ignored."""
        self._send({"op": "end", "token": token, "grace_s": grace_s})

    def ping(self) -> None:
        """Answered by `pong`: the Keeper lives."""
        self._send({"op": "ping"})

    def pong(self, n: int) -> None:
        """Answer the daemon's Keeper's {"op": "ping", "n"}, which comes once a second after `ready`. It is to come from
        whatever must not stand still: a Conductor that answers none for ten seconds is killed and replaced."""
        self._send({"op": "pong", "n": n})

    def ask_status(self) -> None:
        """Answered by `status`: what the Keeper holds, its own and the spare's memory, restarts so far."""
        self._send({"op": "status"})

    def ready(self, text: str = "") -> None:
        """Tell the starter of the daemon that this Conductor serves."""
        self._send({"op": "ready", "text": text})

    def error(self, text: str) -> None:
        """Tell the starter of the daemon why this Conductor does not start."""
        self._send({"op": "error", "text": text})

    def receive(self) -> list[dict[str, Any]]:
        """All messages that have come; never blocks. When the Keeper is gone the last one is {"op": "gone"}, once."""
        self._receiver = threading.get_ident()
        self._collect()
        with self._lock:
            messages = list(self._pending)
            self._pending.clear()
        for message in messages:
            _close_descriptors(message)
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
            self._await(left)
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

    def disown(self) -> None:
        """In a forked child: the Keeper is the parent's."""
        self.gone = True
        self._connection.close()
        if self._process is not None:
            self._process.returncode = 0  # not this process's child: nothing is to be collected

    def _send(self, message: dict[str, Any], fds: tuple[int, ...] = ()) -> None:
        data = packet.encode(message)
        deadline = time.monotonic() + SEND_S
        while not self.gone:
            try:
                with self._lock:
                    packet.send(self._connection, data, fds)
                return
            except OSError as error:
                if isinstance(error, ConnectionError) or self.gone:
                    self._lose()
                    break
                if error.errno not in packet.NOT_NOW:
                    raise
                self._await_room(error, deadline)
        raise KeeperGone("the Keeper is gone or does not answer; its extensions end with it")

    def _await_room(self, error: OSError, deadline: float) -> None:
        """Until a packet may go through. A Keeper that does not read is as good as gone; descriptors that cannot be
        passed are not its fault."""
        left = deadline - time.monotonic()
        if left <= 0:
            if isinstance(error, BlockingIOError):
                raise KeeperGone("the Keeper does not read; its extensions end with it")
            raise KeeperError(f"descriptors cannot be passed to the Keeper: {error}")
        if self._receiver in (None, threading.get_ident()):
            self._collect()
        if isinstance(error, BlockingIOError):
            self._await(min(left, 0.1), select.POLLOUT)
        else:
            self._await(min(left, RETRY_S), 0)

    def _collect(self) -> None:
        with self._lock:
            while not self.gone:
                try:
                    received = packet.receive(self._connection)
                except BlockingIOError:
                    return
                except packet.CutShort as error:
                    raise KeeperError(f"{error}; raise its limit (ulimit -n)") from error
                except OSError:
                    received = None
                if received is None:
                    self._lose()
                    return
                message, fds = received
                self._pending.append(_with_descriptors(message, fds))

    def _lose(self) -> None:
        with self._lock:
            if not self.gone:
                self.gone = True
                self._connection.close()
                self._pending.append({"op": "gone"})


def _with_descriptors(message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Put the descriptors that came with an `inherit` into it by their names; nothing else brings any."""
    names = message.get("names") or [] if message.get("op") == "inherit" else []
    for fd in fds[len(names) :]:
        os.close(fd)
    return message | {"fds": dict(zip(names, fds, strict=False))} if names else message


def _close_descriptors(message: dict[str, Any]) -> None:
    for fd in message.pop("fds", {}).values():
        os.close(fd)


def _add(found: dict[int, Inherited], message: dict[str, Any]) -> None:
    """One `inherit` message: of a token with many descriptors there are several, the last of which is the latest."""
    known = found.get(message["token"])
    facts = {key: message[key] for key in ("token", "name", "pid", "start", "alive", "status", "signal", "last_words")}
    descriptors = known.descriptors if known else {}
    found[message["token"]] = Inherited(**facts, descriptors=descriptors | message.pop("fds", {}))
