"""Engines of this process, and what the tests ask of them, over the extensions of tests/data/extensions."""

import os
import time
from pathlib import Path

import pytest

from symphony.engine import Engine
from symphony.melody.builder import Melody

EXTENSIONS = Path(__file__).resolve().parents[1] / "data" / "extensions"
TIMEOUT_S = 60.0
START_S = 400.0
"""A first start after a change of a kernel compiles it; on a busy machine that takes minutes."""


@pytest.fixture(scope="session", autouse=True)
def extensions():
    before = os.environ.get("SYMPHONY_EXTENSION_PATH")
    os.environ["SYMPHONY_EXTENSION_PATH"] = str(EXTENSIONS)
    yield EXTENSIONS
    if before is None:
        del os.environ["SYMPHONY_EXTENSION_PATH"]
    else:
        os.environ["SYMPHONY_EXTENSION_PATH"] = before


@pytest.fixture(scope="module")
def engine(own_runtime_directory, extensions):
    with Engine(players=2) as opened:
        yield opened


def melody(*steps, **inputs):
    """A melody of steps (name, use, what it is given); its outputs are all of them but those whose name begins with _."""
    built = Melody("tested")
    for name, kind in inputs.items():
        built.input(name, kind)
    for name, use, given in steps:
        built.step(name, use, **given)
        if not name.startswith("_"):
            built.output(name, name)
    return built


def play(engine, *steps, inputs=None, timeout=TIMEOUT_S, **values):
    return engine.play(melody(*steps, **(inputs or {})), **values).result(timeout)


def await_files(folder, count=1, timeout=TIMEOUT_S):
    """Until so many steps have begun; the pids of their players."""
    deadline = time.monotonic() + timeout
    while True:
        found = [name for name in os.listdir(folder) if not name.endswith(".new")]
        if len(found) >= count:
            return [int(name.split(".")[0]) for name in found]
        assert time.monotonic() < deadline, f"{len(found)} of {count} steps have begun"
        time.sleep(0.005)


def await_gone(pid, timeout=10.0):
    from symphony.native import lib

    deadline = time.monotonic() + timeout
    while lib.sym_process_start(pid):
        state = (
            Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if Path(f"/proc/{pid}").exists()
            else "X"
        )
        if state in "ZX":
            return
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.005)
