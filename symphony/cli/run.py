"""`run ls, show, watch, cancel`: the runs of a running engine."""

import sys
import time
from typing import Any

import click

from symphony.cli import leave, show
from symphony.cli.show import Settings, settled


def connect(name: str) -> Any:
    """A client of the engine; imported when a verb runs, since `--help` must not pay for it."""
    from symphony import client

    return client.connect(name)


def _took(run: dict[str, Any]) -> str:
    begun, ended = run.get("started_ns") or run.get("submitted_ns"), run.get("ended_ns")
    if not begun:
        return ""
    if not ended and run["state"] in ("completed", "failed", "cancelled"):
        return ""
    return show.duration(((ended or time.monotonic_ns()) - begun) / 1e9)


COLUMNS = [
    ("run", "run"),
    ("melody", "name"),
    ("state", "state"),
    ("nodes", "nodes"),
    ("done", "done"),
    ("failed", "failed"),
    ("running", "running"),
    ("took", _took),
]
STEP_COLUMNS = [
    ("step", "step"),
    ("state", "state"),
    ("nodes", "nodes"),
    ("done", "done"),
    ("failed", "failed"),
    ("running", "running"),
    ("error", lambda step: _first_line(step.get("error"))),
]


@click.command()
@settled
def ls(settings: Settings) -> None:
    """Every run that the engine remembers, oldest first."""
    with connect(settings.name) as client:
        show.listing(settings, "run ls", client.runs(), COLUMNS)


@click.command("show")
@click.argument("run", type=click.IntRange(min=0))
@settled
def show_(settings: Settings, run: int) -> None:
    """One run with its steps. RUN is its number."""
    with connect(settings.name) as client:
        found = client.run(run)
    show.single(settings, "run show", found, lambda: _tell(found))


@click.command()
@click.argument("run", type=click.IntRange(min=0))
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), help="Seconds allowed; exit code 4 then. The run goes on."
)
@settled
def watch(settings: Settings, run: int, timeout: float | None) -> int:
    """Follow a run until it has ended; the exit code tells how. Ctrl-C leaves the run alone.

    With -o jsonl every change is one line of JSON.
    """
    from symphony.cli.progress import progress

    last: dict[str, Any] = {}
    with connect(settings.name) as client, progress(settings.output == "jsonl") as teller:
        for last in client.watch(run, timeout):
            teller.update(last)
            if settings.output == "jsonl":
                show.line(last)
    if settings.output != "jsonl":
        show.single(settings, "run watch", last, lambda: _tell(last))
    return _outcome(last)


@click.command()
@click.argument("run", type=click.IntRange(min=0))
@settled
def cancel(settings: Settings, run: int) -> None:
    """Stop a run: nothing new starts, and what runs is told. A run that has ended stays as it is."""
    with connect(settings.name) as client:
        client.cancel(run)
        found = client.run(run)
    show.single(settings, "run cancel", found, lambda: print(f"run {run}: {found['state']}"))


def _tell(run: dict[str, Any]) -> None:
    show.facts(
        [
            ("run", run["run"]),
            ("melody", run["name"]),
            ("state", run["state"]),
            ("took", _took(run) or None),
            ("nodes", f"{run['nodes']} ({run['done']} done, {run['failed']} failed, {run['running']} running)"),
            ("error", run.get("error")),
        ]
    )
    if run.get("steps"):
        print()
        show.table(
            [h for h, _ in STEP_COLUMNS], [[show.cell(step, key) for _, key in STEP_COLUMNS] for step in run["steps"]]
        )


def _outcome(run: dict[str, Any]) -> int:
    from symphony.client import check_outcome
    from symphony.model.errors import SymphonyError

    try:
        check_outcome(run)
    except SymphonyError as error:
        sys.stdout.flush()
        leave.say(str(error))
        return error.exit_code
    return 0


def _first_line(text: Any) -> str:
    return str(text).splitlines()[0] if text else ""
