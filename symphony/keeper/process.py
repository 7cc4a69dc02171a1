"""The Keeper's loop: messages in, deaths out, one thread, one epoll."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Iterator
from typing import Any

from symphony.bus import packet
from symphony.keeper import tree
from symphony.keeper.child import Child
from symphony.keeper.line import Line
from symphony.keeper.output import Log
from symphony.keeper.reaper import Reaper
from symphony.keeper.record import RECORDS, Record

GRACE_S = 2.0
_AT_ONCE = 64
"""Messages of one Conductor before the others' turn."""
_RETRY_S = 0.01
_WORDS_IN_MESSAGE = 8192


class Keeper:
    """Spawns, watches and ends processes for the Conductor at the other end of `connection`, and keeps descriptors for
    it. Runs until it is told to stop, the Conductor is gone (end of file, or `watched_pid` dead), or SIGTERM arrives;
    then ends all and returns."""

    def __init__(self, connection: socket.socket | None, keeper_id: str, watched_pid: int | None = None):
        self.id = keeper_id
        self.children: dict[int, Child] = {}
        self.records: dict[int, Record] = {}
        self.line: Line | None = None
        self.stopping = False
        self._asked_to_end = False
        self.restarts = 0
        self.last_restart_ns = 0
        self.last_death = ""
        self.reaper = Reaper()
        self._by_fd: dict[int, tuple[str, Any]] = {}
        self._epoll = select.epoll()
        self._wake_read, self._wake_write = socket.socketpair()
        self._watched = -1
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        self.watch(self._wake_read.fileno(), "signal")
        if connection is not None:
            self.line = self.open_line(connection)
        if watched_pid is not None:
            self._watched = os.pidfd_open(watched_pid)
            self.watch(self._watched, "parent")
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._handle)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def _handle(self, number: int, _frame: object) -> None:
        """Only noted here: it may come between any two steps of the loop, which it has woken."""
        if number != signal.SIGHUP:
            self._asked_to_end = True

    def terminated(self) -> None:
        self.stop()

    def watch(self, fd: int, what: str, about: Any = None) -> None:
        self._epoll.register(fd, select.EPOLLIN)
        self._by_fd[fd] = (what, about)

    def unwatch(self, fd: int) -> None:
        if self._by_fd.pop(fd, None):
            self._epoll.unregister(fd)

    def open_line(self, connection: socket.socket) -> Line:
        line = Line(connection)
        self.watch(line.fileno(), "message", line)
        line.watched_events = select.EPOLLIN
        return line

    def close_line(self, line: Line) -> None:
        self.unwatch(line.fileno())
        line.close()

    # the loop

    def run(self) -> None:
        while not self.finished():
            due = min(self.dues(), default=None)
            for fd, _events in self._epoll.poll(None if due is None else max(0.0, due - time.monotonic())):
                what, about = self._by_fd.get(fd, ("", None))
                if what:
                    getattr(self, "_on_" + what)(about)
            self._after_turn()
        self._close()

    def dues(self) -> Iterator[float]:
        """Moments at which the loop has something to do although nothing happens."""
        yield from (child.due for child in self.children.values() if child.due is not None)
        yield from (line.retry_at for line in self.lines() if line.retry_at is not None)
        if self.reaper.waiting:
            yield time.monotonic() + _RETRY_S

    def lines(self) -> list[Line]:
        return [self.line] if self.line is not None else []

    def finished(self) -> bool:
        return self.stopping and not self.children

    def _after_turn(self) -> None:
        """Deaths are told before anything is done about one of them: a walk of /proc takes milliseconds, so that there
        is one a turn, and what happened meanwhile comes before the next."""
        if self._asked_to_end:
            self._asked_to_end = False
            self.terminated()
        for child in [child for child in self.children.values() if child.reap()]:
            self._report(child)
        self.tick(time.monotonic())
        self._walk()
        self._reap_orphans()
        if self.reaper.waiting:
            self.reaper.flush()
        for line in self.lines():
            self._refresh(line)

    def _walk(self) -> None:
        """End a tree whose time has come, and have the loop come back at once for the others."""
        now = time.monotonic()
        ripe = [child for child in self.children.values() if child.is_ripe(now)]
        for child in ripe[1:]:
            child.due = now
        for child in ripe[:1]:
            if child.kill_tree():
                self._report(child)
                self._unwatch_child(child)
                del self.children[child.token]

    def tick(self, now: float) -> None:
        """What a kind of Keeper does by the clock."""

    def _refresh(self, line: Line) -> None:
        line.flush()
        if line.fileno() >= 0 and line.watched_events != line.events():
            line.watched_events = line.events()
            self._epoll.modify(line.fileno(), line.watched_events)

    def _close(self) -> None:
        self.say({"op": "stopped"})
        for record in self.records.values():
            self._release(record)
        self.reaper.end()
        self._end_orphans()

    # what wakes the loop

    def _on_signal(self, _about: None = None) -> None:
        try:
            while self._wake_read.recv(4096):
                pass
        except BlockingIOError:
            pass

    def _on_message(self, line: Line) -> None:
        for _ in range(_AT_ONCE):
            if not self.hear(line):
                return

    def hear(self, line: Line) -> bool:
        """Take one message of a line and act on it. False: there is none."""
        try:
            received = line.receive()
        except BlockingIOError:
            return False
        except packet.CutShort as error:
            self._refuse(error.message, str(error))
            return True
        except ValueError as error:
            line.say({"op": "failed", "token": -1, "error": str(error)})
            return True
        if received is None:
            self.close_line(line)
            self.lost(line)
            return False
        message, fds = received
        try:
            if line is self.line:
                self._apply(message, fds)
            else:
                self.aside(line, message)
        except Exception as error:  # a fault of ours in one message must not end every process of the engine
            traceback.print_exc(file=sys.stderr)
            self.say({"op": "failed", "token": -1, "error": f"{message.get('op')}: {type(error).__name__}: {error}"})
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _on_parent(self, _about: None) -> None:
        self._lost_conductor()

    def _on_output(self, child: Child) -> None:
        if child.output.read() == 0:
            self.unwatch(child.output.fd)

    def _on_pidfd(self, child: Child) -> None:
        if child.reap():
            self.unwatch(child.pidfd)

    # what the Conductor asks

    def _apply(self, message: dict[str, Any], fds: list[int]) -> None:
        """Descriptors that are kept are taken out of `fds`; the caller closes the rest."""
        operation = message.get("op")
        if operation == "spawn":
            self._spawn(message, fds)
        elif operation == "end":
            child = self._child_of(message.get("token"))
            if child is not None:
                child.end(float(message.get("grace_s", GRACE_S)))
        elif operation == "deposit":
            self._deposit(message, fds)
        elif operation == "forget":
            self._forget(message.get("token"))
        elif operation == "resume":
            self.resume(message)
        elif operation == "stop":
            self.stop(float(message.get("grace_s", GRACE_S)))
        elif operation == "ping":
            self.say({"op": "pong"})
        elif operation == "status":
            self.say(self.status())
        else:
            self.extra(message)

    def extra(self, message: dict[str, Any]) -> None:
        """A message that only a kind of Keeper knows; unknown ones are answered as failures."""
        self.say({"op": "failed", "token": -1, "error": f"unknown message {message.get('op')!r}"})

    def aside(self, line: Line, message: dict[str, Any]) -> None:
        """A message on a line that is not the Conductor's."""

    def _child_of(self, token: object) -> Child | None:
        return self.children.get(token) if token in self.records else None

    def _refuse(self, message: dict[str, Any], error: str) -> None:
        """A message that asked for something to be kept, in vain."""
        if message.get("op") == "spawn":
            self.say({"op": "failed", "token": message.get("token", -1), "error": error})
        else:
            told = {"token": message.get("token", -1), "names": message.get("names", []), "error": error}
            self.say({"op": "refused", "of": message.get("op"), **told})

    # processes

    def _spawn(self, message: dict[str, Any], fds: list[int]) -> None:
        try:
            record = self._enter(message, fds)
        except (ValueError, RuntimeError) as error:
            self._refuse(message, f"{type(error).__name__}: {error}")
            return
        child_fd = fds[0]
        self._keep(record, message.get("deposit") or [], fds, 1)
        try:
            if self.stopping:
                raise RuntimeError("the Keeper is ending")
            child = self.start(record.token, message, child_fd)
        except Exception as error:  # of any kind: a wrong word in argv raises what it likes
            record.failed(f"{type(error).__name__}: {error}")
            self._refuse(message, record.last_words)
            return
        record.lives(child.pid, child.start)
        self.say({"op": "spawned", "token": record.token, "pid": child.pid, "start": child.start})

    def _enter(self, message: dict[str, Any], fds: list[int]) -> Record:
        """A record for a spawn that is well-formed. Raises ValueError, RuntimeError."""
        names = _distinct(message.get("deposit"))
        if len(fds) != 1 + len(names):
            raise ValueError(f"spawn wants {1 + len(names)} descriptors, got {len(fds)}")
        record = self._record(message.get("token"))
        if record.spawned:
            raise RuntimeError(f"token {record.token} is in use")
        record.spawned, record.name = True, str(message.get("name") or record.token)
        return record

    def start(self, token: int, message: dict[str, Any], fd: int, log: Log | None = None) -> Child:
        child = Child(self.id, token, message, fd, log)
        try:
            self.watch(child.pidfd, "pidfd", child)
            self.watch(child.output.fd, "output", child)
        except OSError:
            child.abandon()
            self._unwatch_child(child)
            raise
        self.children[token] = child
        return child

    def _unwatch_child(self, child: Child) -> None:
        self.unwatch(child.pidfd)
        self.unwatch(child.output.fd)
        child.close()

    def stop(self, grace_s: float = GRACE_S) -> None:
        self.stopping = True
        for child in self.children.values():
            child.end(grace_s)

    def lost(self, line: Line) -> None:
        """A line came to its end and is closed."""
        if line is self.line:
            self._lost_conductor()

    def _lost_conductor(self) -> None:
        if self.line is not None:
            self.close_line(self.line)
            self.line = None
        if self._watched >= 0:
            self.unwatch(self._watched)
            os.close(self._watched)
            self._watched = -1
        self.stop(grace_s=0.5)

    # what is kept

    def _record(self, token: object) -> Record:
        if not isinstance(token, int) or token < 0:
            raise ValueError(f"a token is a number from 0 on, not {token!r}")
        if token not in self.records:
            if len(self.records) >= RECORDS:
                raise RuntimeError(f"{RECORDS} records are kept, which is the limit; forget what is dead")
            self.records[token] = Record(token)
        return self.records[token]

    def _deposit(self, message: dict[str, Any], fds: list[int]) -> None:
        try:
            names = _distinct(message.get("names"))
            if len(names) != len(fds):
                raise ValueError(f"deposit of {len(names)} names came with {len(fds)} descriptors")
            self._keep(self._record(message.get("token")), names, fds, 0)
        except (ValueError, RuntimeError) as error:
            self._refuse(message, str(error))

    def _keep(self, record: Record, names: list[str], fds: list[int], first: int) -> None:
        """Take the descriptors from `first` on out of `fds` and into the record."""
        replaced = record.take(names, fds[first:])
        del fds[first:]
        for fd in replaced:
            self.reaper.close(fd)

    def _forget(self, token: object) -> None:
        record = self.records.get(token) if isinstance(token, int) else None
        if record is None:
            return
        self._release(record)
        record.forgotten = True
        if not record.alive:
            del self.records[record.token]

    def _release(self, record: Record) -> None:
        while record.deposit:
            self.reaper.close(record.deposit.popitem()[1])

    def resume(self, message: dict[str, Any]) -> None:
        """Tell everything that is kept, as it is when each message leaves: one that waits may outlive what it tells."""
        n = int(message.get("n", 0))
        count = 0
        for record in self.records.values():
            if not record.forgotten:
                count += 1
                for names in record.letters():
                    self.line.post(self._letter(record, names, n))
        told = {"count": count, "restarts": self.restarts, "last_ns": self.last_restart_ns}
        self.say({"op": "inherited", "n": n, "last_death": self.last_death, **told})

    def _letter(self, record: Record, names: list[str], n: int):
        facts = {"restarts": self.restarts, "last_ns": self.last_restart_ns}

        def letter():
            message, fds = record.inherit(names, n)
            return message | facts, fds

        return letter

    def status(self) -> dict[str, Any]:
        return {
            "op": "status", "pid": os.getpid(), "private_bytes": tree.private_bytes(os.getpid()),
            "descriptors": len(os.listdir("/proc/self/fd")), "children": sum(token >= 0 for token in self.children),
            "records": len(self.records), "deposits": sum(len(record.deposit) for record in self.records.values()),
            "to_reap": self.reaper.waiting, "restarts": self.restarts, "last_ns": self.last_restart_ns,
            "last_death": self.last_death,
        }  # fmt: skip

    # deaths

    def _report(self, child: Child) -> None:
        """Say so at once, before what the dead process left below it is ended: a survivor must not delay the news."""
        if child.reported:
            return
        child.reported = True
        self.unwatch(child.pidfd)
        child.output.drain()
        self.on_end(child)

    def on_end(self, child: Child) -> None:
        record = self.records[child.token]
        words = child.output.last_words()[-_WORDS_IN_MESSAGE:]
        record.died(child.status or 0, words)
        if record.forgotten:
            del self.records[child.token]
        self.tell_death(
            {
                "op": "died",
                "token": child.token,
                "pid": child.pid,
                "status": record.status,
                "signal": record.signal,
                "last_words": words,
            }
        )

    def tell_death(self, message: dict[str, Any]) -> None:
        self.say(message)

    def _reap_orphans(self) -> None:
        """Collect whatever the kernel handed to this subreaper. A child's own status may come up here too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            self.reaper.collected(pid)
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

    def say(self, message: dict[str, Any]) -> None:
        if self.line is not None:
            self.line.say(message)


def _distinct(names: object) -> list[str]:
    """Names of a deposit. Raises ValueError: a name that came twice would lose the first one's descriptor."""
    if names is None:
        return []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"names are a list of words, not {names!r}")
    if len(set(names)) != len(names):
        raise ValueError(f"a name comes twice in {names!r}")
    return names
