"""The stepper's table is whole, and every operation of it leaves before or after wherever it is killed."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tools.stepping import inventory, table

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


def test_every_operation_of_the_code_is_in_the_table_or_exempt():
    assert list(table.missing()) == [], "enter it in tools/stepping/operations, or in EXEMPT with the reason"


def test_the_table_names_nothing_that_the_code_does_not_have():
    assert list(table.stale()) == []
    assert len({operation.name for operation in table.OPERATIONS}) == len(table.OPERATIONS)
    assert not table.EXEMPT.keys() & {name for operation in table.OPERATIONS for name in operation.covers}


def test_the_inventory_sees_what_there_is():
    """It is read from the sources: here it is held against what Python and the linker find."""
    import ctypes
    import importlib

    from symphony.native import _csym

    library = ctypes.CDLL(_csym.__file__)
    assert len(inventory.c_functions()) > 30
    assert all(hasattr(library, name) for name in inventory.c_functions())
    for name in inventory.kernels():
        module, _, function = name.rpartition(".")
        assert hasattr(
            getattr(importlib.import_module(module), function), "py_func" if "entry" not in module else "address"
        )
    compiled = set()
    for path in sorted((ROOT / "symphony").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and any(
                ast.unparse(d).startswith(("kernel", "entry(")) for d in node.decorator_list
            ):
                compiled.add(node.name)
    assert compiled == {name.rpartition(".")[2] for name in inventory.kernels()}


def test_nothing_is_left_behind_by_a_stepper_that_is_killed_itself(tmp_path):
    """Its children end with it: the kernel kills what a dead tracer traced."""
    command = [sys.executable, ROOT / "tools" / "stepper.py", "dag.play_through"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert "seed" in process.stdout.readline()
        process.kill()
    for entry in os.scandir("/dev/shm"):
        if f".stepper-{process.pid}." in entry.name:
            os.unlink(entry.path)
