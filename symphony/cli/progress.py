"""How a run goes, told on stderr while it plays: a live table on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType
from typing import Any

from symphony.cli import show

LINE_S = 2.0
"""The least time between two plain lines about a run that goes on."""
STEPS = 24
"""Steps that are told one by one; of a melody with more only the whole is told."""


class Quiet:
    """Tells nothing."""

    def __enter__(self) -> "Quiet":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, run: dict[str, Any]) -> None:
        """Take the run as it is now."""


class Lines(Quiet):
    """A line when a step begins to be done, when it is done, and every few seconds."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        self._last = time.monotonic()

    def update(self, run: dict[str, Any]) -> None:
        steps = run.get("steps", ())
        for step in steps if len(steps) <= STEPS else ():
            state = str(step.get("state"))
            before = self._told.get(step["step"])
            if state != before and state in ("done", "failed", "completed", "skipped", "cancelled"):
                self._say(f"{step['step']}: {state} ({step['done']} of {step['nodes']})")
            self._told[step["step"]] = state
        if time.monotonic() - self._last >= LINE_S:
            self._say(f"{run['name']}: {run['done']} of {run['nodes']} nodes done, {run['running']} running")

    def _say(self, text: str) -> None:
        self._last = time.monotonic()
        print(text, file=sys.stderr, flush=True)


class Bars(Quiet):
    """A bar a step, drawn by rich, gone when the run has ended."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True, refresh_per_second=10)
        self._tasks: dict[str, Any] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def update(self, run: dict[str, Any]) -> None:
        steps = run.get("steps", ())
        rows = steps if len(steps) <= STEPS else [{"step": run["name"], "nodes": run["nodes"], "done": run["done"]}]
        for row in rows:
            name = row["step"]
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(show.printable(name), total=None)
            self._progress.update(self._tasks[name], completed=row["done"], total=row["nodes"] or None)


def progress(quiet: bool) -> Quiet:
    """The teller that fits where stderr goes."""
    if quiet:
        return Quiet()
    return Bars() if show.coloured(sys.stderr) else Lines()
