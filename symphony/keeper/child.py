"""One process under the Keeper: how it is started, watched and ended with everything below it."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from typing import Any

from symphony.keeper import tree
from symphony.keeper.output import Log, Output

SWEEP_S = 0.02  # between two walks of /proc while members of a tree still die
SWEEP_LIMIT_S = 10.0  # a member in uninterruptible sleep cannot be ended; it is named and left
CHILD_FD = 3  # where every child finds its socket


class Child:
    """A spawned process, its pidfd and its output. States: live, ending (asked, with a deadline), killing (SIGKILL
    sent, walks repeat until no member of the tree is left), gone."""

    def __init__(self, keeper_id: str, token: int, message: dict[str, Any], child_fd: int, log: Log | None = None):
        self.token = token
        self.name = str(message.get("name") or token)
        self.mark = f"{keeper_id}.{token}"
        self.status: int | None = None
        self.reported = False
        self.state = "live"
        self.due: float | None = None
        self._killing_since = 0.0
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        try:
            self.process = _start(message, self.mark, child_fd, write_end)
        except BaseException:
            os.close(read_end)
            raise
        finally:
            os.close(write_end)
        self.pid = self.process.pid
        self.start = tree.start_time(self.pid)
        try:
            self.pidfd = os.pidfd_open(self.pid)
        except OSError:
            os.close(read_end)
            self.abandon()
            raise
        self.output = Output(read_end, message.get("log"), log)

    def abandon(self) -> None:
        """Kill what was started but cannot be watched. The Keeper collects it with the orphans."""
        tree.kill({self.pid} | tree.members((self.pid,), self.owns))
        self.process.returncode = -signal.SIGKILL

    def owns(self, token: str) -> bool:
        return token == self.mark

    def reap(self) -> bool:
        """Collect the exit status; True if the process itself is dead."""
        if self.status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:
                pid, status = self.pid, 0
            if pid:
                self.died(status)
        return self.status is not None

    def died(self, status: int) -> None:
        self.status = status
        self.process.returncode = os.waitstatus_to_exitcode(status)

    def end(self, grace_s: float) -> None:
        """Ask politely; what is left after the grace is killed."""
        if self.state == "live":
            self.state = "ending"
            self.due = time.monotonic() + max(0.0, grace_s)
            if self.status is None:
                self._signal_group(signal.SIGTERM)

    def _signal_group(self, number: int) -> None:
        try:
            os.killpg(self.pid, number)
        except (ProcessLookupError, PermissionError):
            if self.status is None:
                tree.send(self.pid, number)

    def is_ripe(self, now: float) -> bool:
        """Whether its tree is to be ended now: it is dead, or its grace is over, or another walk is due."""
        if self.due is not None:
            return self.due <= now or (self.status is not None and self.state != "killing")
        return self.status is not None

    def kill_tree(self) -> bool:
        """Kill all of the tree that a walk finds; True when nothing is left (or nothing can be done about it)."""
        now = time.monotonic()
        if self.state != "killing":
            self.state, self._killing_since = "killing", now
        if self.status is None:
            self._signal_group(signal.SIGKILL)
        found = tree.members(self._roots(), self.owns)
        tree.kill(found)
        self.due = now + SWEEP_S
        stuck = now - self._killing_since > SWEEP_LIMIT_S
        if found and stuck:
            print(f"keeper: {self.name}: cannot end {sorted(found)}", file=sys.stderr)
        return self.reap() and (not found or stuck)

    def _roots(self) -> tuple[int, ...]:
        """Our pid, which also names the group and session; after it was collected another process may bear it."""
        return () if self.status is not None and tree.start_time(self.pid) else (self.pid,)

    def close(self) -> None:
        self.state, self.due = "gone", None
        self.output.close()
        os.close(self.pidfd)


def _start(message: dict[str, Any], mark: str, child_fd: int, output: int) -> subprocess.Popen:
    environment = dict(os.environ)
    for key, value in (message.get("env") or {}).items():
        if value is None:
            environment.pop(key, None)
        else:
            environment[key] = value
    environment[tree.TOKEN] = mark
    environment["SYMPHONY_KEEPER_PID"] = str(os.getpid())
    os.dup2(child_fd, CHILD_FD, inheritable=True)
    try:
        process = subprocess.Popen(
            message["argv"],
            env=environment,
            cwd=message.get("cwd"),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(CHILD_FD,),
            start_new_session=True,
        )
    finally:
        occupy_child_fd()
    try:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, GIVEN_LIMIT)
    except OSError:
        pass  # it has ended already
    return process


GIVEN_LIMIT = resource.getrlimit(resource.RLIMIT_NOFILE)
"""How many descriptors this process was given; its children get the same."""
_null = -1


def raise_descriptor_limit() -> None:
    """The Keeper holds descriptors for all of its children: let it have as many as it may."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (GIVEN_LIMIT[1], GIVEN_LIMIT[1]))


def occupy_child_fd() -> None:
    """Keep descriptor 3 taken between spawns, so that nothing of the Keeper's own ever gets that number. After the
    first time it needs no further descriptor, so that it cannot fail for want of one."""
    global _null
    if _null < 0:
        _null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        if _null == CHILD_FD:
            _null = os.dup(_null)
            os.set_inheritable(CHILD_FD, False)
            return
    os.dup2(_null, CHILD_FD, inheritable=False)
