"""A click group whose verbs are imported when they are called: `--help` must not pay for any of them."""

import importlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import click

from symphony.cli import leave


class Verb(NamedTuple):
    """Where a verb's command stands, and its line in the help of its group."""

    module: str
    attribute: str
    about: str


class LazyGroup(click.Group):
    """A group over a table of verbs. The table's lines make its help; only the verb that is called is imported."""

    def __init__(self, *args: Any, verbs: Mapping[str, Verb], **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = self.verbs.get(cmd_name)
        return getattr(importlib.import_module(verb.module), verb.attribute) if verb else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.verbs and not args[0].startswith("-"):
            from symphony.model.words import did_you_mean

            ctx.fail(f"no such command {args[0]!r}{did_you_mean(args[0], self.verbs)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.about) for name, verb in self.verbs.items()])


class Program(LazyGroup):
    """The outermost group: every way to end is turned into the exit code that the interface promises."""

    def main(self, *args: Any, standalone_mode: bool = True, **kwargs: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **kwargs)
        sys.exit(leave.run(lambda: super(Program, self).main(*args, standalone_mode=False, **kwargs)))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # Before click sees it: click would end with 1, which says that a run failed.
            leave.silence_stdout()
            raise click.exceptions.Exit(leave.PIPE) from None
