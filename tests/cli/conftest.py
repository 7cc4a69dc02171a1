"""A stage for the command line: a served door whose runs a test moves on, and a way to run symphonyctl."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from symphony.bus.door_wire import directory_of
from symphony.cli.main import symphonyctl
from tests.door.stage import open_door

NAME = "clitest"
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def stage():
    conductor, _ = open_door(NAME)
    yield conductor
    conductor.door.close()
    os.rmdir(directory_of(NAME))


@pytest.fixture
def ctl():
    """Run symphonyctl in this process; returns click's result."""
    return lambda *words, **more: CliRunner().invoke(symphonyctl, [*map(str, words)], **more)


@pytest.fixture
def process():
    """Run symphonyctl as a process; returns the completed process, text captured."""

    def run(*words, env=None, **more):
        command = [sys.executable, "-m", "symphony", *map(str, words)]
        more = {"capture_output": True, "text": True, "timeout": 60, **more}
        return subprocess.run(command, env={**os.environ, **(env or {})}, check=False, **more)

    return run


@pytest.fixture
def golden():
    """Compare a JSON document with the frozen one of that name; SYMPHONY_GOLDEN=write freezes it anew."""

    def compare(name: str, text: str) -> None:
        path = GOLDEN / f"{name}.json"
        if os.environ.get("SYMPHONY_GOLDEN") == "write":
            path.write_text(text)
        document = json.loads(text)
        assert document["schema"] == "symphony/1"
        assert text == path.read_text(), f"{name}: the frozen form of -o json changed"

    return compare


@pytest.fixture
def melody(tmp_path):
    """A melody file whose score the staged engine takes."""
    path = tmp_path / "small.py"
    path.write_text(
        "from symphony import Melody\n"
        "melody = Melody('small')\n"
        "melody.input('path', 'path')\n"
        "melody.input('top', 'int', default=5)\n"
        "melody.step('walk', 'explorer.walk', path='{path}')\n"
        "melody.output('files', 'walk.files')\n"
    )
    return path
