"""A Keeper of its own session, above the Conductor: what `symphonyctl up` starts."""

from __future__ import annotations

import os
import socket
import sys
import time
from typing import Any

from symphony.keeper.child import Child
from symphony.keeper.process import GRACE_S, Keeper

CONDUCTOR = 0  # its token; extensions count from 1
CONDUCTOR_GRACE_S = 10.0  # it has runs to record and segments to unlink


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
    """Starts the Conductor as its first child, serves it, and ends with it. The Conductor gets longer to end than an
    extension, and ends first: it knows in which order."""

    def __init__(self, keeper_id: str, argv: list[str], log: str | None, ready: Ready):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(ours, keeper_id)
        self._ready = ready
        self._stopped_told = False
        with theirs:
            self.conductor = self.start(CONDUCTOR, {"argv": argv, "name": "conductor", "log": log}, theirs.fileno())

    def extra(self, message: dict[str, Any]) -> None:
        if message.get("op") in ("ready", "error"):
            self._ready.tell(message["op"], str(message.get("text", "")))
        else:
            super().extra(message)

    def stop(self, grace_s: float = GRACE_S) -> None:
        self.stopping = True
        for child in self.children.values():
            if child is not self.conductor:
                child.end(grace_s)
        if self.conductor.state == "live" and self.conductor.due is None:
            self.conductor.due = time.monotonic() + max(grace_s, CONDUCTOR_GRACE_S)

    def terminated(self) -> None:
        self.conductor.end(CONDUCTOR_GRACE_S)

    def finished(self) -> bool:
        if self.stopping and not self._stopped_told and not set(self.children) - {CONDUCTOR}:
            self._stopped_told = True
            self.say({"op": "stopped"})
        return super().finished()

    def on_end(self, child: Child) -> None:
        if child is not self.conductor:
            super().on_end(child)
            return
        code = child.process.returncode
        self._ready.tell("error", child.output.last_words()[-3000:] or f"the Conductor ended with status {code}")
        self._lost_conductor()


def conductor_argv(module: str, name: str, rest: list[str]) -> list[str]:
    return [sys.executable, "-m", module, "--name", name, *rest]
