"""How a command ends: one place that turns errors into a message and the promised exit code."""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import click

from symphony.model.errors import MelodyError, SymphonyError

USAGE = 2
INTERRUPTED = 128 + signal.SIGINT
PIPE = 128 + signal.SIGPIPE


def run(command: Callable[[], Any]) -> int:
    """Run a click command (not standalone) and return the process's exit code; messages go to stderr.

    A reader of stdout that went away ends the command quietly, as SIGPIPE would, but only after its cleaning up.
    """
    _stand_in_for_closed()
    try:
        code = command()
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        silence_stdout()
        return PIPE
    except SymphonyError as error:
        for line in lines_of(error):
            say(line)
        return error.exit_code
    except OSError as error:  # a full disk under stdout, above all
        silence_stdout()
        say(f"{error.filename or 'the output cannot be written'}: {error.strerror or error}")
        return 1


def _stand_in_for_closed() -> None:
    """Python has None for a stdout or stderr that was closed before it began: what is written there goes nowhere."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


def lines_of(error: SymphonyError) -> list[str]:
    """What is told of an error: its message, or one line for each mistake of a melody."""
    if isinstance(error, MelodyError) and len(error.errors) > 1:
        return [str(each) for each in error.errors]
    return [str(error) or type(error).__name__]


def say(text: str) -> None:
    """A message to the user, on stderr. A stderr that is closed is not an error."""
    try:
        first, *rest = text.splitlines() or [""]
        print("\n".join([f"symphonyctl: {first}", *(f"    {line}" for line in rest)]), file=sys.stderr, flush=True)
    except (BrokenPipeError, ValueError):
        pass


def silence_stdout() -> None:
    """Let what is still buffered go nowhere: it has no reader, and the interpreter would complain at its end."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass
