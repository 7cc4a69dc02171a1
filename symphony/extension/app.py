"""Handlers by name, and what a running handler may ask about its own step."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from symphony.model.errors import ExtensionError


class Cancelled(BaseException):
    """Raise it (or call `context.check()`) to end a step whose run was cancelled; no `except Exception` swallows it."""


class Step:
    """One step under way, as the process that runs it sees it."""

    __slots__ = ("attempt", "channel", "config", "deadline_ns", "extension", "job", "name", "node", "run")

    def __init__(
        self,
        name: str = "",
        job: bytes = b"",
        channel: Any = None,
        extension: str = "",
        config: dict[str, Any] | None = None,
    ):
        number = int.from_bytes
        self.name, self.job, self.channel, self.extension, self.config = name, job, channel, extension, config or {}
        self.run = number(job[0:4], "little")
        self.node = number(job[4:8], "little")
        self.attempt = number(job[12:14], "little")
        self.deadline_ns = number(job[24:32], "little")


class _Current:
    """Which step runs: one for plain handlers (they run one at a time, and threads that they start see it too), one a
    task for async ones. Plain handlers pay only for two assignments: `plan` and `job`."""

    def __init__(self) -> None:
        self.plan: Any = None
        self.job: bytes | None = None
        self.channel: Any = None
        self.extension = ""
        self.config: dict[str, Any] = {}
        self.task: Any = None  # a ContextVar once there is an async handler

    def step(self) -> Step | None:
        step = self.task.get(None) if self.task is not None else None
        if step is None and self.job is not None:
            step = self.make(self.plan, self.job)
        return step

    def make(self, plan: Any, job: bytes) -> Step:
        return Step(plan.name, job, self.channel, self.extension, self.config)


current = _Current()


def cancelled() -> bool:
    """Whether the step that calls it should stop: its run was cancelled or its deadline passed. Any thread; about
    100 ns. False outside a step."""
    step = current.step()
    return step is not None and step.channel is not None and step.channel.cancelled(step.job)


class Context:
    """The running step: `step` (its name), `run`, `node`, `attempt` (1 at the first), `deadline_s` (seconds left or
    None), `extension`, `config`. Outside a step every value is empty."""

    @property
    def _step(self) -> Step:
        return current.step() or Step(config=current.config, extension=current.extension)

    step = property(lambda self: self._step.name)
    run = property(lambda self: self._step.run)
    node = property(lambda self: self._step.node)
    attempt = property(lambda self: self._step.attempt)
    extension = property(lambda self: self._step.extension)
    config = property(lambda self: self._step.config)

    @property
    def deadline_s(self) -> float | None:
        due = self._step.deadline_ns
        return (due - time.monotonic_ns()) / 1e9 if due else None

    def check(self) -> None:
        """Raise Cancelled if the step should stop."""
        if cancelled():
            raise Cancelled

    def __repr__(self) -> str:
        step = self._step
        return f"<step {step.name!r} of run {step.run}, node {step.node}, attempt {step.attempt}>"


class Log:
    """Lines for the engine's log, with the step they belong to. Text is formatted with % as `logging` does; a line is
    cut at 4096 bytes. Outside an engine they go to standard error."""

    def write(self, level: int, text: object, *values: object) -> None:
        line = str(text) % values if values else str(text)
        step = current.step()
        if current.channel is None:
            print(f"{level} {line}", file=sys.stderr)
        else:
            current.channel.log(step.job if step is not None else None, level, line.encode("utf-8", "replace").decode())

    def debug(self, text: object, *values: object) -> None:
        self.write(10, text, *values)

    def info(self, text: object, *values: object) -> None:
        self.write(20, text, *values)

    def warning(self, text: object, *values: object) -> None:
        self.write(30, text, *values)

    def error(self, text: object, *values: object) -> None:
        self.write(40, text, *values)


context = Context()
log = Log()


class Extension:
    """The handlers of one extension. A module makes one, decorates its handlers, and ends with `run()`.

    A handler's arguments are decoded by their annotations: `ArtifactView` and `memoryview` without a copy, `bytes`,
    `str`, `dict`, `int`, `float`, `bool`, `list` and `list[T]` as their own objects, `numpy.ndarray` as a read-only
    view of the engine's memory; without an annotation the value's natural type, lists as lazy `ListView`. It returns
    one value, or a dict of the manifest's named outputs. A generator's items become a list. What it raises becomes
    the step's failure, with its traceback. Plain handlers run one at a time in the main thread, async ones together
    in a loop of their own.
    """

    registered: list[Extension] = []

    def __init__(self) -> None:
        self.handlers: dict[str, Callable[..., Any]] = {}
        self.serving: Callable[[Extension], None] | None = None

    def handler(self, name: str | None = None) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Decorator: offer the function to melodies under `name` (its own by default). Raises ExtensionError if the
        name is taken."""
        if callable(name):
            return self.handler()(name)

        def offer(function: Callable[..., Any]) -> Callable[..., Any]:
            key = name or function.__name__
            if key in self.handlers:
                raise ExtensionError(f"two handlers are named {key!r}: {self.handlers[key]!r} and {function!r}")
            self.handlers[key] = function
            return function

        return offer

    def run(self) -> None:
        """Hand the handlers to the engine. Under an engine the host serves them once the module is imported; elsewhere
        (a test that imports the module) nothing happens; run as a script it says how to start it."""
        if self not in Extension.registered:
            Extension.registered.append(self)
        if sys._getframe(1).f_globals.get("__name__") == "__main__":
            print(
                f"handlers: {', '.join(sorted(self.handlers)) or 'none'}; an extension is started by an engine: "
                "symphonyctl extension start FOLDER",
                file=sys.stderr,
            )
