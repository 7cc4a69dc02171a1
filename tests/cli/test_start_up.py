"""What starting symphonyctl costs: help imports neither numba nor NumPy, nor anything else that is heavy."""

import subprocess
import sys

import pytest

from symphony.cli import main

GROUPS = {"run": main.RUN_VERBS, "melody": main.MELODY_VERBS, "extension": main.EXTENSION_VERBS, "shm": main.SHM_VERBS}
WORDS = [[], *([verb] for verb in main.VERBS), *([group, verb] for group, verbs in GROUPS.items() for verb in verbs)]

PROGRAM = """
import sys
from symphony.cli.main import symphonyctl
try:
    symphonyctl.main(sys.argv[1:] + ["--help"], prog_name="symphonyctl")
except SystemExit as end:
    assert end.code == 0, end.code
heavy = {"numba", "numpy", "rich", "llvmlite", "cffi"} & sys.modules.keys()
assert not heavy, heavy
"""


@pytest.mark.parametrize("words", WORDS, ids=lambda words: " ".join(words) or "symphonyctl")
def test_help_imports_nothing_heavy(words):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Usage: symphonyctl")


@pytest.mark.parametrize(("group", "verbs"), [((), main.VERBS), *(((name,), verbs) for name, verbs in GROUPS.items())])
def test_help_names_every_verb(ctl, group, verbs):
    result = ctl(*group, "--help")
    assert result.exit_code == 0
    for name, verb in verbs.items():
        assert name in result.output and verb.about.split()[0] in result.output


def test_a_verbs_line_is_its_own_first_sentence():
    """The table of verbs repeats what the verbs say, so that help need not import them."""
    import click

    for verbs in (main.VERBS, *GROUPS.values()):
        for name in verbs:
            command = main.LazyGroup(verbs=verbs).get_command(click.Context(main.symphonyctl), name)
            assert command is not None and command.help, name
