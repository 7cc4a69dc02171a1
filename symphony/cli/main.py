"""`symphonyctl`, also `python -m symphony`: the table of verbs and what they share."""

import click

from symphony.cli.lazy import LazyGroup, Program, Verb
from symphony.cli.show import FORMATS, Settings

VERBS = {
    "up": Verb("symphony.cli.engine", "up", "Start an engine; returns when it is ready."),
    "down": Verb("symphony.cli.engine", "down", "End an engine; leaves no process, segment, socket or folder."),
    "status": Verb("symphony.cli.engine", "status", "What an engine says of itself."),
    "play": Verb("symphony.cli.play", "play", "Play a melody and print its outputs."),
    "run": Verb("symphony.cli.main", "run", "The runs of an engine: ls, show, watch, cancel."),
    "melody": Verb("symphony.cli.main", "melody", "Melodies: ls, check, graph."),
    "extension": Verb("symphony.cli.main", "extension", "Extensions: ls, show."),
    "shm": Verb("symphony.cli.main", "shm", "Shared memory, read-only: ls, show, verify, dump."),
    "clean": Verb("symphony.cli.clean", "clean", "Take away what engines that were killed left behind."),
    "warmup": Verb("symphony.cli.engine", "warmup", "Compile the engine's kernels ahead of the first start."),
    "version": Verb("symphony.cli.engine", "version", "Versions of Symphony, of its memory layout, and of Python."),
    "completion": Verb("symphony.cli.completion", "completion", "The completion script of a shell."),
}

RUN_VERBS = {
    "ls": Verb("symphony.cli.run", "ls", "Every run that the engine remembers."),
    "show": Verb("symphony.cli.run", "show_", "One run with its steps."),
    "watch": Verb("symphony.cli.run", "watch", "Follow a run until it has ended."),
    "cancel": Verb("symphony.cli.run", "cancel", "Stop a run: nothing new starts."),
}

MELODY_VERBS = {
    "ls": Verb("symphony.cli.melody", "ls", "The melodies that ship with Symphony."),
    "check": Verb("symphony.cli.melody", "check", "Check a melody; mistakes are named with file, line and column."),
    "graph": Verb("symphony.cli.melody", "graph", "A melody's steps and what each needs."),
}

EXTENSION_VERBS = {
    "ls": Verb("symphony.cli.extension", "ls", "Every extension that can be found."),
    "show": Verb("symphony.cli.extension", "show_", "One extension with its handlers."),
}

SHM_VERBS = {
    "ls": Verb("symphony.cli.shm", "ls", "The segments of an engine, live or dead."),
    "show": Verb("symphony.cli.shm", "show_", "A segment's regions, or the rows of one region."),
    "verify": Verb("symphony.cli.shm", "verify", "Check that segments hold together; exit code 1 when one does not."),
    "dump": Verb("symphony.cli.shm", "dump", "Copy a segment into a file, which `--file` reads again."),
}


@click.group(
    cls=Program, verbs=VERBS, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option("-n", "--name", envvar="SYMPHONY_ENGINE", default=None, help="The engine's name [default: default].")
@click.option(
    "-o", "--output", type=click.Choice(FORMATS), default=None, help="Form of what goes to stdout [default: table]."
)
@click.pass_context
def symphonyctl(ctx: click.Context, name: str | None, output: str | None) -> None:
    """Runs melodies on one machine, across isolated processes, at memory speed.

    \b
    Exit codes: 0 ok, 1 the run failed, 2 usage, 3 no engine of that name,
    4 timed out, 5 cancelled, 130 interrupted.
    """
    ctx.obj = Settings(name, output or "table")


@click.group(cls=LazyGroup, verbs=RUN_VERBS)
def run() -> None:
    """The runs of an engine."""


@click.group(cls=LazyGroup, verbs=MELODY_VERBS)
def melody() -> None:
    """Melodies: what can be played."""


@click.group(cls=LazyGroup, verbs=EXTENSION_VERBS)
def extension() -> None:
    """Extensions: the processes that do the steps."""


@click.group(cls=LazyGroup, verbs=SHM_VERBS)
def shm() -> None:
    """Shared memory, read-only: of a live engine, a dead one, or a dump file."""


def main() -> None:
    """The entry point of the installed program."""
    symphonyctl.main(prog_name="symphonyctl")


if __name__ == "__main__":
    main()
