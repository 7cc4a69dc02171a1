"""`completion`: the script that teaches a shell symphonyctl's verbs and options."""

import click


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL; for bash: eval "$(symphonyctl completion bash)"."""
    from click.shell_completion import get_completion_class

    from symphony.cli.main import symphonyctl

    kind = get_completion_class(shell)
    assert kind is not None
    print(kind(symphonyctl, {}, "symphonyctl", "_SYMPHONYCTL_COMPLETE").source())
