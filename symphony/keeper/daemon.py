"""A Keeper of its own session, above the Conductor: what `symphonyctl up` starts.

A Conductor that dies is replaced: by the spare, if there is one, or by a new process. The children and what is
deposited stay; the next Conductor asks for them (`resume`).
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

from symphony.keeper import tree
from symphony.keeper.child import Child
from symphony.keeper.leader import SERVING, STARTING, TAKING, WAITING, Leader
from symphony.keeper.line import Line
from symphony.keeper.output import Log
from symphony.keeper.policy import Backoff, Deaths, Policy
from symphony.keeper.process import GRACE_S, Keeper

CONDUCTOR_GRACE_S = 10.0
"""It has runs to record and segments to unlink."""
PARKED_FILE = "parked"
"""In the engine's folder: why it was given up, for whoever finds it."""


def detach() -> None:
    """Leave the caller's session for good: double fork around setsid. Returns in the grandchild only; the first
    process ends at once with 0. The working directory stays: modules may be found by it. Must come while this process
    has one thread."""
    if os.fork():
        os._exit(0)
    os.setsid()
    if os.fork():
        os._exit(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.dup2(null, 2)
    if null > 2:
        os.close(null)


class Ready:
    """The one line that the starter waits for: `ready TEXT` or `error TEXT`, then end of file."""

    def __init__(self, fd: int):
        self._fd = fd

    def tell(self, word: str, text: str) -> None:
        if self._fd < 0:
            return
        try:
            os.write(self._fd, f"{word} {text}".rstrip().encode()[:4096] + b"\n")
        except OSError:
            pass
        os.close(self._fd)
        self._fd = -1


class DaemonKeeper(Keeper):
    """Starts the Conductor, serves it, replaces it when it dies or hangs, and ends with it when it ends.

    A Conductor that ends by itself with status 0, or because it was asked to, ends everything; so does the first one
    when it gives up before it is ready: it has said why. Any other death is followed by the next Conductor, after a
    back-off; a crash loop is parked: everything is ended, and the engine's state stays where it is. What the Conductor
    does with it is not known here.
    """

    def __init__(
        self, keeper_id: str, argv: list[str], directory: str | None, ready: Ready, policy: Policy | None = None
    ):
        super().__init__(None, keeper_id)
        self.policy = policy or Policy()
        self.leader: Leader | None = None
        self.spare: Leader | None = None
        self.parked = ""
        self._argv = argv
        self._directory = directory
        self._log = Log(os.path.join(directory, "logs", "conductor.log")) if directory else None
        self._ready = ready
        self._terminating = self._stopped_told = self._been_ready = False
        self._serial = 0
        self._deaths = Deaths(self.policy)
        self._backoff = Backoff(self.policy.window_s)
        self._spare_backoff = Backoff(self.policy.window_s)
        self._next_at: float | None = None
        self._spare_at: float | None = None
        self._post(self._enlist(argv))

    # starting Conductors

    def _enlist(self, argv: list[str]) -> Leader:
        """A new process that is or will be Conductor. Raises OSError, ValueError, SubprocessError."""
        self._serial += 1
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            line = self.open_line(ours)
            try:
                child = self.start(-self._serial, {"argv": argv, "name": "conductor"}, theirs.fileno(), self._log)
            except BaseException:
                self.close_line(line)
                raise
        return Leader(child, line, self.policy, time.monotonic())

    def _post(self, leader: Leader) -> None:
        self.leader, self.line = leader, leader.line

    def _again(self, word: str) -> list[str]:
        """How a later Conductor is started. That the state was to be recovered concerned the first."""
        return [part for part in self._argv if part != "--recover"] + [word]

    def _replace(self, now: float) -> None:
        self._next_at = None
        self.restarts += 1
        self.last_restart_ns = time.monotonic_ns()
        spare, self.spare = self.spare, None
        try:
            if spare is not None and spare.line is not None:
                self._promote(spare, now)
                self._post(spare)
            else:
                self._post(self._enlist(self._again("--resume")))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._fell(f"the Conductor cannot be started: {error}", None, now)
            return
        self.leader.deaths_told = False

    def _promote(self, spare: Leader, now: float) -> None:
        """One that is still loading hears it when it has loaded; that is sooner than a process that begins now."""
        if spare.state == WAITING:
            spare.enter(TAKING, now)
        spare.line.say({"op": "takeover"})

    def _replace_spare(self, now: float) -> None:
        self._spare_at = None
        try:
            self.spare = self._enlist(self._again("--spare"))
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self._note(f"no spare: {error}")
            self._spare_at = now + self._spare_backoff.after(0.0)

    # the clock

    def lines(self) -> list[Line]:
        return [leader.line for leader in self._leaders() if leader.line is not None]

    def _leaders(self) -> list[Leader]:
        return [leader for leader in (self.leader, self.spare) if leader is not None]

    def dues(self) -> Iterator[float]:
        yield from super().dues()
        if not self.stopping:
            yield from (leader.look_at for leader in self._watched_leaders())
            yield from (due for due in (self._next_at, self._spare_due()) if due is not None)

    def _spare_due(self) -> float | None:
        """A spare is loaded while a Conductor serves; one that starts is not to share the processors with it."""
        return self._spare_at if self.leader is not None and self.leader.state == SERVING else None

    def _watched_leaders(self) -> list[Leader]:
        """Those who can still be replaced: neither dead nor being killed nor asked to end."""
        return [leader for leader in self._leaders() if leader.line is not None and leader.child.state == "live"]

    def tick(self, now: float) -> None:
        if self.stopping:
            return
        for leader in self._watched_leaders():
            if leader.look_at <= now and (why := leader.look(now)):
                self._note(f"{self._called(leader)} is killed: {why}")
                leader.child.kill_tree()
        if self._next_at is not None and self._next_at <= now:
            self._replace(now)
        due = self._spare_due()
        if due is not None and due <= now:
            self._replace_spare(now)

    # messages

    def extra(self, message: dict[str, Any]) -> None:
        operation = message.get("op")
        if operation == "ready":
            self._serves(str(message.get("text", "")))
        elif operation == "error":
            self._ready.tell("error", str(message.get("text", "")))
            self._note(f"the Conductor says: {message.get('text')}")
        elif operation == "pong":
            self.leader.answered(message.get("n"))
        elif operation == "taken":
            self.leader.enter(STARTING, time.monotonic())
        elif operation != "spare":  # which one may say that has been promoted before it was loaded
            super().extra(message)

    def aside(self, line: Line, message: dict[str, Any]) -> None:
        spare = self.spare
        if spare is None or line is not spare.line:
            return
        if message.get("op") == "spare":
            spare.enter(WAITING, time.monotonic())
        elif message.get("op") == "pong":
            spare.answered(message.get("n"))

    def _serves(self, text: str) -> None:
        now = time.monotonic()
        self.leader.enter(SERVING, now)
        if not self._been_ready:
            self._been_ready = True
            self._open_folder()
        else:
            self._note(f"Conductor {self.leader.child.pid} serves, the {self.restarts + 1}th")
        self._ready.tell("ready", text)
        if self.policy.spare and self.spare is None and not self.stopping:
            self._spare_at = self._spare_at or now

    def _open_folder(self) -> None:
        """The engine's folder is its own from here on: an earlier life's may have been taken away in the meantime."""
        if self._directory is not None:
            self._log.open()
            try:
                os.unlink(os.path.join(self._directory, PARKED_FILE))
            except OSError:
                pass  # as a rule it was not there

    def resume(self, message: dict[str, Any]) -> None:
        self.leader.deaths_told = True
        super().resume(message)

    def tell_death(self, message: dict[str, Any]) -> None:
        """A Conductor that has not asked yet hears of it when it does."""
        if self.leader is not None and self.leader.deaths_told:
            super().tell_death(message)

    def status(self) -> dict[str, Any]:
        told = super().status()
        if self.spare is not None:
            pid = self.spare.child.pid
            told["spare"] = {"pid": pid, "state": self.spare.state, "private_bytes": tree.private_bytes(pid)}
        return told

    # ends

    def stop(self, grace_s: float = GRACE_S) -> None:
        self.stopping = True
        self._next_at = self._spare_at = None
        if self.spare is not None and self.spare.line is not None:
            self.close_line(self.spare.line)  # which it takes as leave to go
            self.spare.line = None
        for child in self.children.values():
            if self.leader is None or child is not self.leader.child:
                child.end(grace_s)
        if self.leader is not None and self.leader.child.state == "live" and self.leader.child.due is None:
            self.leader.child.due = time.monotonic() + max(grace_s, CONDUCTOR_GRACE_S)

    def terminated(self) -> None:
        self._terminating = True
        if self.leader is None:
            self.stop()
        else:
            self.leader.child.end(CONDUCTOR_GRACE_S)

    def finished(self) -> bool:
        if self.stopping and not self._stopped_told:
            own = {self.leader.child.token} if self.leader is not None else set()
            if not set(self.children) - own:
                self._stopped_told = True
                self.say({"op": "stopped"})
        return super().finished()

    def lost(self, line: Line) -> None:
        """The other side has closed a line: it is dying, or it cannot be served any more and is to end."""
        for leader in self._leaders():
            if leader.line is line:
                leader.line = None
                if leader.child.due is None:
                    grace_s = CONDUCTOR_GRACE_S if self.stopping else self.policy.hang_s or CONDUCTOR_GRACE_S
                    leader.child.due = time.monotonic() + grace_s
        if line is self.line:
            self.line = None

    def on_end(self, child: Child) -> None:
        now = time.monotonic()
        if self.leader is not None and child is self.leader.child:
            self._conductor_ended(self.leader, now)
        elif self.spare is not None and child is self.spare.child:
            self._spare_ended(self.spare, now)
        elif child.token >= 0:
            super().on_end(child)

    def _conductor_ended(self, leader: Leader, now: float) -> None:
        while leader.line is not None and self.hear(leader.line):
            pass  # what it sent before it died was sent: above all, its deposits
        if leader.line is not None:
            self.close_line(leader.line)
        self.leader = self.line = leader.line = None
        code = leader.child.process.returncode
        words = leader.child.output.last_words()
        gave_up = code > 0 and not self._been_ready
        if self.stopping or self._terminating or code == 0 or gave_up:
            self._ready.tell("error", words[-3000:] or f"the Conductor ended with status {code}")
            self.stop(grace_s=0.5)
            return
        how = f"signal {-code}" if code < 0 else f"status {code}"
        self._fell(f"Conductor {leader.child.pid} ended by {how}", leader.served_since, now, words)

    def _fell(self, what: str, served_since: float | None, now: float, words: str = "") -> None:
        """A Conductor is no more, and it was not asked to end: the next one, or none any more."""
        self.last_death = f"{what}\n{words[-1000:]}".strip()
        self._deaths.add(now, served_since is not None)
        if why := self._deaths.verdict(now):
            self._park(f"{why}; the last one: {self.last_death}")
            return
        wait_s = self._backoff.after(now - served_since if served_since is not None else 0.0)
        self._next_at = now + wait_s
        self._note(f"{what}; the next starts in {wait_s:g} s")

    def _park(self, why: str) -> None:
        self.parked = why
        self._ready.tell("error", why)
        name = self._argv[self._argv.index("--name") + 1] if "--name" in self._argv else ""
        self._note(
            f"parked: {why}\n[keeper] every process is ended, the engine's state stays where it is; "
            f"to go on from it: symphonyctl -n {name} up --recover"
        )
        if self._directory and self._been_ready:
            try:
                with open(os.path.join(self._directory, PARKED_FILE), "w", encoding="utf-8") as file:
                    file.write(why)
            except OSError as error:
                self._note(f"cannot write {PARKED_FILE}: {error}")
        self.stop()

    def _spare_ended(self, spare: Leader, now: float) -> None:
        if spare.line is not None:
            self.close_line(spare.line)
        self.spare = None
        if not self.stopping:
            wait_s = self._spare_backoff.after(now - spare.born)
            self._spare_at = now + wait_s
            self._note(f"spare {spare.child.pid} ended with status {spare.child.process.returncode}; "
                       f"the next starts in {wait_s:g} s")  # fmt: skip

    def _called(self, leader: Leader) -> str:
        return f"{'Conductor' if leader is self.leader else 'spare'} {leader.child.pid}"

    def _note(self, text: str) -> None:
        """A line of the Keeper's own in the Conductor's log."""
        if self._log is not None:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            self._log.write(f"{stamp} [keeper] {text}\n".encode())


def conductor_argv(module: str, name: str, rest: list[str]) -> list[str]:
    return [sys.executable, "-m", module, "--name", name, *rest]
