"""`symphony-inspect`: the inspector as a program of its own, `symphonyctl shm` under another name."""

import click

from symphony.cli.lazy import Program
from symphony.cli.main import SHM_VERBS
from symphony.cli.show import FORMATS, Settings


@click.group(cls=Program, verbs=SHM_VERBS, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-n", "--name", envvar="SYMPHONY_ENGINE", default=None, help="Only this engine's.")
@click.option("-o", "--output", type=click.Choice(FORMATS), default="table", help="Form of what goes to stdout.")
@click.pass_context
def inspect(ctx: click.Context, name: str | None, output: str) -> None:
    """Looks at Symphony's shared memory, read-only: of a live engine, a dead one, or a dump file."""
    ctx.obj = Settings(name, output)


def main() -> None:
    """The entry point of the installed program."""
    inspect.main(prog_name="symphony-inspect")


if __name__ == "__main__":
    main()
