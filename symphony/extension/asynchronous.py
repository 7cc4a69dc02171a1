"""Async handlers: an event loop in a thread of its own. Imported with the first async step only, for asyncio alone
costs more than the rest of a player's start."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

from symphony.extension.app import Step, current
from symphony.extension.binding import Plan

_step: contextvars.ContextVar[Step | None] = contextvars.ContextVar("step", default=None)


class Runner:
    """Runs async steps side by side and answers for each through `answer(job, plan, result, error)`, which is called
    in the loop's thread."""

    def __init__(self, answer: Any):
        current.task = _step
        self._answer = answer
        self._tasks: dict[bytes, asyncio.Task] = {}
        self._loop = asyncio.new_event_loop()
        self._idle = threading.Event()
        self._idle.set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="async handlers", daemon=True)
        self._thread.start()

    def start(self, job: bytes, plan: Plan, refs: bytes) -> None:
        self._idle.clear()
        self._loop.call_soon_threadsafe(self._start, job, plan, refs)

    def _start(self, job: bytes, plan: Plan, refs: bytes) -> None:
        self._idle.clear()
        self._tasks[job[:16]] = self._loop.create_task(self._run(job, plan, refs))

    async def _run(self, job: bytes, plan: Plan, refs: bytes) -> None:
        _step.set(current.make(plan, job))
        result, error = None, None
        try:
            made = plan.call(refs)
            result = [item async for item in made] if hasattr(made, "__aiter__") else await made
        except BaseException as raised:  # also CancelledError and SystemExit: they end the step
            error = raised
        self._answer(job, plan, result, error)
        self._tasks.pop(job[:16], None)
        if not self._tasks:
            self._idle.set()

    def cancel(self, job: bytes) -> None:
        """Cancel the step of that job; node ~0 means every step of its run."""
        self._loop.call_soon_threadsafe(self._cancel, job[:16])

    def _cancel(self, name: bytes) -> None:
        whole_run = name[4:8] == b"\xff\xff\xff\xff"
        for key, task in list(self._tasks.items()):
            if key == name or (whole_run and key[:4] == name[:4] and key[8:12] == name[8:12]):
                task.cancel()

    def finish(self, timeout: float) -> None:
        """Wait for the steps under way, then end the loop."""
        self._idle.wait(timeout)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout)


def was_cancelled(error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError)
