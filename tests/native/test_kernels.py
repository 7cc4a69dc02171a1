"""What a kernel costs beside its own work: no counted references, no call of what is inlined, no index counted from the
end; and that no kernel of the tracker reaches outside a table."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest
from numba import int64, typeof
from numba.core.errors import TypingError

from symphony.native.atomics import prefetch, rows, table
from symphony.native.kernels import OPTIONS
from symphony.pit.tables import NODE

ROOT = Path(__file__).resolve().parents[2]
WORDS = np.arange(64, dtype=np.int64)
COUNTS_REFERENCES = re.compile(r"NRT_(incref|decref)")
KINDS = {
    "njit": {},
    "kernel": OPTIONS,
    "inlined": {**OPTIONS, "forceinline": True},
}


def mix(words, index):
    """More than an optimiser inlines unasked at each of several places."""
    total = index
    for i in range(index):
        total = (total ^ words[i]) * 2654435761 + (total >> 7)
        if total & 1:
            words[i] = total
        elif total & 2:
            total += words[total & 7] % 1000003
        else:
            words[i & 7] ^= total
    while total & 6:
        total = (total >> 1) ^ words[total & 7]
    return total


def calling(kind):
    """Assembly of a kernel that calls a helper made as `kind` at four places; of itself alone, not of its callees."""
    helper = numba.njit(**KINDS[kind])(mix)
    options = {} if kind == "njit" else OPTIONS

    @numba.njit(**options)
    def outer(words, index):
        total = helper(words, index)
        total += helper(words, total & 15)
        total += helper(words, total & 7)
        return total + helper(words, total & 3)

    signature = (typeof(WORDS), int64)
    outer.compile(signature)
    assembly = outer.inspect_asm(signature)
    name = re.search(r"^(_ZN[^:\s]*outer[^:\s]*):", assembly, re.M)[1]
    return assembly.split(f"\n{name}:", 1)[1].split(".size", 1)[0]


def test_a_kernel_counts_no_references():
    assert COUNTS_REFERENCES.search(calling("njit")), "numba by itself does, or this test looks for the wrong thing"
    assert not COUNTS_REFERENCES.search(calling("kernel"))


def test_an_inlined_kernel_is_part_of_its_callers():
    assert "mix" in calling("kernel"), "a kernel is called, or this test looks for the wrong thing"
    assert "mix" not in calling("inlined")


def test_a_kernel_hands_no_array_out():
    with pytest.raises(TypingError, match="returning of array"):
        numba.njit(**OPTIONS)(lambda address: table(address, 4, NODE))(WORDS.ctypes.data)


@numba.njit(**OPTIONS)
def by_rows(address, count, index):
    nodes = rows(address, count, NODE)
    nodes[index].step += 1
    prefetch(nodes, index + 1)
    return nodes[index].step, nodes["seat"][index], len(nodes)


def test_rows_take_an_index_as_it_stands():
    memory = np.zeros(8, NODE)
    memory["step"], memory["seat"] = np.arange(8), np.arange(8) + 100
    middle = memory.ctypes.data + 4 * NODE.itemsize
    assert by_rows(middle, 4, 1) == (6, 105, 0)
    assert by_rows(middle, 4, -1) == (4, 103, 0), "the row before, not the last one"
    assert memory["step"].tolist() == [0, 1, 2, 4, 4, 6, 6, 7]


def test_a_prefetch_of_what_is_not_there_does_no_harm():
    @numba.njit(**OPTIONS)
    def ahead(address, index):
        prefetch(rows(address, 1, NODE), index)
        return index

    assert ahead(0, 1 << 40) == 1 << 40


def checked(*command):
    """Run with numba's bounds checks, in a cache of its own: machine code tells nobody whether it checks."""
    return subprocess.run([sys.executable, *command], cwd=ROOT, env=os.environ | {"NUMBA_BOUNDSCHECK": "1"},
                          capture_output=True, text=True, timeout=900)  # fmt: skip


def test_rows_have_bounds_where_numba_checks_them():
    program = "import runpy; runpy.run_path({!r})['by_rows'](__import__('numpy').zeros(64).ctypes.data, 2, {})"
    assert checked("-c", program.format(__file__, 1)).returncode == 0
    outside = checked("-c", program.format(__file__, 2))
    assert outside.returncode != 0
    assert "IndexError: index is out of bounds" in outside.stderr


@pytest.mark.slow
def test_no_kernel_of_the_tracker_reaches_outside_a_table(tmp_path, monkeypatch):
    monkeypatch.setenv("SYMPHONY_CACHE_DIR", str(tmp_path))
    done = checked("-m", "pytest", "-p", "no:cacheprovider", "tests/pit/test_dag_machine.py")
    assert done.returncode == 0, done.stdout + done.stderr
