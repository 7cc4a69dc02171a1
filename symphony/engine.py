"""The engine inside a user's own program: this process is the Conductor, its Keeper is a child.

with Engine("stage") as engine:
    run = engine.play("ask", path="src", question="…")
    print(run.result(timeout=60)["passages"])
"""

import asyncio
import atexit
import os
import secrets
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from symphony.catalogue import of_manifests
from symphony.conductor.conductor import WINDOW, Conductor
from symphony.conductor.door import Door
from symphony.conductor.undisturbed import undisturbed
from symphony.extension.discovery import discover
from symphony.keeper.link import KeeperLink
from symphony.melody.find import score_of
from symphony.melody.inputs import parse_inputs
from symphony.model import score as scores
from symphony.model import value
from symphony.model.errors import EngineLost, RunCancelled, RunFailed, WaitTimeout
from symphony.rooms import Pit

EVENT_S = 0.05
"""Events come when the run moves; in between it is looked at this often for progress."""
ENDED = frozenset({"completed", "failed", "cancelled"})
_open: "weakref.WeakSet[Engine]" = weakref.WeakSet()
"""Engines of this process that are open: what a forked child has to let go of."""


class Run:
    """One playing of a melody. Safe from any thread; valid while the engine is open."""

    def __init__(self, conductor: Conductor, serial: int, name: str) -> None:
        self.serial, self.name = serial, name
        self._conductor = conductor

    def state(self) -> dict[str, Any]:
        """The run as it is now: counts, steps, error (see `symphonyctl run show -o json`)."""
        return self._conductor.run(self.serial)

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait until it has ended; its description. Raises WaitTimeout, EngineLost."""
        return self._conductor.wait(self.serial, timeout)

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """Wait, then its outputs by name: text as str, data as Python values, arrays as arrays; owned copies.

        Raises RunFailed with the failed step's error, RunCancelled, WaitTimeout, EngineLost.
        """
        ended = self.wait(timeout)
        if ended["state"] == "failed":
            raise RunFailed(f"run {self.serial} ({self.name}) failed: {ended['error']}", run=self.serial)
        if ended["state"] == "cancelled":
            raise RunCancelled(f"run {self.serial} ({self.name}) was cancelled", run=self.serial)
        outputs = self._conductor.result(self.serial)
        return {name: value.decode(kind, payload) for name, (kind, payload) in outputs.items()}

    def events(self, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """The run's description each time it moved, the last one with its end."""
        deadline = None if timeout is None else time.monotonic() + timeout
        seen: dict[str, Any] = {}
        while True:
            now = self.state()
            if {**now, "steps": 0} != {**seen, "steps": 0}:
                seen = now
                yield now
            if now["state"] in ENDED:
                return
            if deadline is not None and time.monotonic() > deadline:
                raise WaitTimeout(f"run {self.serial} has not ended in time")
            self._conductor.find(self.serial).ended.wait(EVENT_S)
            if self._conductor.lost is not None:
                raise EngineLost(self._conductor.lost)

    async def __aiter__(self) -> AsyncIterator[dict[str, Any]]:
        loop = asyncio.get_running_loop()
        events = self.events()
        while (event := await loop.run_in_executor(None, next, events, None)) is not None:
            yield event

    def record(self) -> list[dict[str, Any]]:
        """A line a node: what it was, when it ran, what went in and out."""
        return self._conductor.record(self.serial)

    def cancel(self) -> None:
        """Ask for its end; returns at once."""
        self._conductor.cancel(self.serial)


class Engine:
    """An engine of this process. Use as a context manager, or `close` it.

    `name`: for others to attach and connect (a private one is made up); `players`: most processes of one extension
    at once (default: the processors); `window`: nodes a player may have at once; `capacity`: the arbiter's named
    resources. Starting costs about 0.5 s once kernels are cached. Raises EngineExists, NoSpace.
    Safe from any thread. After `fork` the parent's goes on, and the child's object is closed: its use raises
    EngineLost there. Calls that the parent had bound (`pit.pool.bind`) are not for the child.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        players: int | None = None,
        window: int = WINDOW,
        capacity: dict[str, int] | None = None,
    ) -> None:
        self.name = name or f"engine-{os.getpid()}-{secrets.token_hex(3)}"
        self._manifests = discover()
        self._conductor = Conductor(
            self.name, keeper=lambda: KeeperLink.start(self.name), catalogue=self._manifests, players=players, window=window,
            capacity=capacity,
        )  # fmt: skip
        self._pid = os.getpid()
        self._door: Door | None = None
        try:
            self._conductor.start()
            self._door = Door(self._conductor, self._conductor.directory)
            self._door.start()
            self._conductor.listeners.append(self._door.notify)
            self.pit = Pit(self._conductor)
            _open.add(self)
            atexit.register(self.close)
        except BaseException:
            self.close()
            raise

    def play(self, melody: Any, *, priority: int = 0, request_id: bytes | None = None, **inputs: Any) -> Run:
        """Start a run of a melody: a shipped name, a file's path, a Score, or a Melody. Returns at once.

        Raises MelodyError or ScoreError (with place and nearest word), ValueRefused, NoSpace, RoomError.
        """
        if isinstance(melody, scores.Score):
            score = melody
        else:
            score = score_of(melody, catalogue=of_manifests(self._manifests))
        values = parse_inputs(score, {k: os.fspath(v) if isinstance(v, Path) else v for k, v in inputs.items()})
        options = {"priority": priority}
        answer = self._conductor.play(scores.dump(score), values, request_id or secrets.token_bytes(16), options)
        return Run(self._conductor, answer["run"], score.name)

    def run(self, serial: int) -> Run:
        """A run by its number. Raises RunNotFound."""
        return Run(self._conductor, serial, self._conductor.find(serial).score.name)

    def status(self) -> dict[str, Any]:
        return self._conductor.status()

    def close(self) -> None:
        """End it: processes, threads and segments are gone when this returns. Idempotent.

        It is bounded in time; a Ctrl-C that comes meanwhile takes effect after it, so that nothing is left.
        """
        if os.getpid() != self._pid:
            return
        with undisturbed():
            atexit.unregister(self.close)
            _open.discard(self)
            try:
                if self._door is not None:
                    self._door.close()
            finally:
                self._conductor.close()

    def _disown(self) -> None:
        assert self._door is not None, "an engine is in _open only once its door is open"
        self._door.disown()
        self._conductor.disown()
        self.pit = _Gone(self._conductor.lost)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Gone:
    """What a forked child finds in the place of the rooms."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __getattr__(self, name: str) -> Any:
        raise EngineLost(self._reason)


def _disown_all() -> None:
    for engine in list(_open):
        engine._disown()
    _open.clear()


os.register_at_fork(after_in_child=_disown_all)
