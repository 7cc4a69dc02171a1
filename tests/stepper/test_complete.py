"""The stepper's table is whole: what the code has of operations is in it, or exempt for a reason. Nothing is stepped here."""

import ast
import ctypes
import importlib
from pathlib import Path

from symphony.native import _csym
from tools.stepping import inventory, table

ROOT = Path(__file__).resolve().parents[2]


def test_every_operation_of_the_code_is_in_the_table_or_exempt():
    assert list(table.missing()) == [], "enter it in tools/stepping/operations, or in EXEMPT with the reason"


def test_the_table_names_nothing_that_the_code_does_not_have():
    assert list(table.stale()) == []
    assert len({operation.name for operation in table.OPERATIONS}) == len(table.OPERATIONS)
    assert not table.EXEMPT.keys() & {name for operation in table.OPERATIONS for name in operation.covers}


def test_the_inventory_sees_what_there_is():
    """It is read from the sources: here it is held against what Python and the linker find."""
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
                ast.unparse(d).startswith(("kernel", "inlined", "entry(")) for d in node.decorator_list
            ):
                compiled.add(node.name)
    assert compiled == {name.rpartition(".")[2] for name in inventory.kernels()}
