"""Every operation of the stepper's table leaves before or after wherever it is killed."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tools.stepping import table

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.timeout(1800), pytest.mark.slow]
"""Not a speed that is asked for: a machine with much else to do takes its time."""


def run(*options):
    command = [sys.executable, ROOT / "tools" / "stepper.py", "--json", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=1700)
    assert done.stdout, done.stderr
    told = json.loads(done.stdout)
    print(f"seed {told['seed']}: python tools/stepper.py --seed {told['seed']} {' '.join(options)}")
    return {row["name"]: row for row in told["operations"]}


@pytest.fixture(scope="module")
def stepped():
    """A bounded selection of states and kills of every operation, in one process."""
    return run()


@pytest.mark.parametrize("name", [operation.name for operation in table.OPERATIONS])
def test_killed_anywhere_it_leaves_before_or_after(stepped, name):
    row = stepped[name]
    assert row["wrong"] == []
    assert row["kills"] > 0
    assert row["instructions"] or row["writes"] or row["stops"] or row["images"] == 1


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize("group", sorted({operation.name.split(".")[0] for operation in table.OPERATIONS}))
def test_from_every_state_and_at_every_image(group):
    command = [sys.executable, ROOT / "tools" / "stepper.py", "--all", group + "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=4 * 3600 - 60)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_children_of_a_stepper_that_is_killed_end_with_it(tmp_path):
    """The kernel kills what a dead tracer traced; the judge finds that nobody asks any more."""
    command = [sys.executable, ROOT / "tools" / "stepper.py", "dag.play_through", "dag.rebuild"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, env=environment) as process:
        deadline = time.monotonic() + 600
        while not (children := psutil.Process(process.pid).children(recursive=True)):
            assert process.poll() is None and time.monotonic() < deadline
            os.sched_yield()
        process.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert alive == []
    for entry in os.scandir("/dev/shm"):
        if f".stepper-{process.pid}." in entry.name:
            os.unlink(entry.path)
