"""Compiled kernels are kept between processes, made again when anything they were made from changes, and kept away
from the cache of the program that imports us."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

SAMPLE = """
from numba import int64, types
from symphony.melody.helper import three
from symphony.native.kernels import entry, external, kernel
from symphony.native.layout import constants

DONE = constants["SYM_NODE_DONE"]
now_ns = external("sym_now_ns", types.int64)

@kernel
def double(number):
    return number * 2

@kernel
def done(extra):
    return double(DONE) + extra + three() - 3

@kernel
def clock():
    return now_ns()

@entry("int64(int64)")
def again(number):
    return double(number) + DONE
"""
"""A module of kernels as a room has them: one that inlines another, a constant, C by symbol, an entry for the door."""

HELPER = """
import numba
from symphony.melody.far import THREE

@numba.njit
def three():
    return THREE
"""

PROGRAM = """
import ctypes, json, os, sys
import numba
numba.config.CACHE_DIR = os.environ["USERS_CACHE"]
sys.path.insert(0, os.getcwd())
import users
from symphony.native.kernels import cache_directory, loading
with loading():
    assert numba.config.CACHE_DIR == str(cache_directory())
    from symphony.pit import sample
assert numba.config.CACHE_DIR == os.environ["USERS_CACHE"]
users.own(1)
assert sample.clock() > 0
report = {"done": sample.done(0), "entry": ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(sample.again.address)(1)}
functions = {name: getattr(sample, name).stats for name in ("done", "clock")}
functions["users"] = users.own.stats
report["hits"] = {name: sum(stats.cache_hits.values()) for name, stats in functions.items()}
report["misses"] = {name: sum(stats.cache_misses.values()) for name, stats in functions.items()}
report["hits"]["again"] = sample.again.cache_hits
report["directory"] = str(cache_directory())
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the package with the sample in it, as somebody edits it."""
    top = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "symphony", top / "symphony", ignore=shutil.ignore_patterns("__pycache__", "conductor"))
    shutil.copytree(ROOT / "shm", top / "shm")
    (top / "symphony" / "pit" / "sample.py").write_text(SAMPLE)
    (top / "symphony" / "melody" / "helper.py").write_text(HELPER)
    (top / "symphony" / "melody" / "far.py").write_text("THREE = 3\n")
    (top / "users.py").write_text("import numba\n@numba.njit(cache=True)\ndef own(number):\n    return number + 1\n")
    return top


@pytest.fixture
def play(tree, tmp_path):
    def run(program=PROGRAM):
        environment = {
            **os.environ,
            "SYMPHONY_CACHE_DIR": str(tmp_path / "ours"),
            "USERS_CACHE": str(tmp_path / "users"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tree, env=environment, capture_output=True, text=True, timeout=100
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return run


def folders(path):
    return sorted(entry.name for entry in path.iterdir())


def test_a_second_process_compiles_nothing_and_the_users_cache_is_its_own(play, tmp_path):
    first, second = play(), play()
    assert first["done"] == second["done"] == 6
    assert first["entry"] == second["entry"] == 5
    assert first["misses"] == {"done": 1, "clock": 1, "users": 1}
    assert second["misses"] == {"done": 0, "clock": 0, "users": 0}
    assert second["hits"] == {"done": 1, "clock": 1, "users": 1, "again": 1}
    assert folders(tmp_path / "ours") == [Path(first["directory"]).name]
    of_users = {path.name.split(".")[0] for path in (tmp_path / "users").rglob("*.nbi")}
    of_ours = {path.name.split(".")[0] for path in (tmp_path / "ours").rglob("*.nbi")}
    assert of_users == {"users"}
    assert of_ours == {"sample"}


def test_an_edited_enum_compiles_again(play, tree):
    listing = tree / "shm" / "layout.txt"
    before = play()
    text = listing.read_text()
    assert "  SYM_NODE_DONE 3\n" in text
    try:
        listing.write_text(text.replace("  SYM_NODE_DONE 3\n", "  SYM_NODE_DONE 9\n"))
        after = play()
    finally:
        listing.write_text(text)
    assert (before["done"], after["done"], after["entry"]) == (6, 18, 11)
    assert after["misses"]["done"] == 1
    assert after["directory"] != before["directory"]
    assert play()["misses"]["done"] == 0, "the first build's machine code is still there"


def test_an_edited_constant_two_imports_away_compiles_again(play, tree):
    """numba looks only at the file of the function itself."""
    far = tree / "symphony" / "melody" / "far.py"
    before = play()
    try:
        far.write_text("THREE = 30\n")
        after = play()
    finally:
        far.write_text("THREE = 3\n")
    assert (before["done"], after["done"]) == (6, 33)
    assert after["misses"]["done"] == 1


def test_an_edit_that_no_kernel_can_see_compiles_nothing(play, tree):
    before = play()
    with open(tree / "symphony" / "cli" / "show.py", "a") as file:
        file.write("\nADDED = 1\n")
    after = play()
    assert after["directory"] == before["directory"]
    assert after["misses"]["done"] == 0


def test_old_builds_caches_are_pruned_and_the_youngest_kept(play, tmp_path):
    ours = tmp_path / "ours"
    now = time.time()
    for age in range(8):
        folder = ours / f"kernels-{age:020x}"
        folder.mkdir(parents=True)
        os.utime(folder, (now - 100_000 * (age + 1), now - 100_000 * (age + 1)))
    (ours / "notes").mkdir()
    mine = Path(play()["directory"]).name
    assert folders(ours) == sorted([*(f"kernels-{age:020x}" for age in range(4)), mine, "notes"])


def test_a_cache_that_another_build_uses_just_now_is_left_alone(play, tmp_path):
    """Its process may be compiling into it: taking it away ended that engine's loop."""
    ours = tmp_path / "ours"
    for number in range(8):
        (ours / f"kernels-{number:020x}").mkdir(parents=True)
    play()
    assert len(folders(ours)) == 9


def test_a_cache_that_others_can_write_is_not_used(play):
    """What lies there is executed."""
    before = play()
    directory = Path(before["directory"])
    directory.chmod(0o777)
    kept = {path: path.stat().st_mtime_ns for path in directory.rglob("*")}
    after = play(program=PROGRAM.replace("assert numba.config.CACHE_DIR == str(cache_directory())", "pass"))
    assert after["done"] == before["done"]
    assert (after["hits"]["done"], after["hits"]["again"]) == (0, 0), "nothing is read from it"
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("*")} == kept, "nothing is written to it"


EVERY = """
import gc, json
from symphony import Engine
from numba.core.dispatcher import Dispatcher
from numba.core.caching import NullCache

with Engine("cache-test"):
    pass
ours = [one for one in gc.get_objects() if isinstance(one, Dispatcher) and one.py_func.__module__.startswith("symphony")]
kept = [one for one in ours if not isinstance(one._cache, NullCache)]
missed = {f"{one.py_func.__module__}.{one.py_func.__name__}": len(one.stats.cache_misses) for one in kept}
print(json.dumps({
    "hits": sum(sum(one.stats.cache_hits.values()) for one in kept),
    "missed": sorted(name for name, misses in missed.items() if misses),
}))
"""


@pytest.mark.timeout(400)
def test_every_kernel_of_an_engine_is_found_again_by_a_second_process():
    """Over the user's own cache: what the first process finds there or compiles, the second only finds."""
    reports = []
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", EVERY], cwd=ROOT, capture_output=True, text=True, timeout=190)
        assert done.returncode == 0, done.stderr
        reports.append(json.loads(done.stdout))
    assert reports[1]["missed"] == []
    assert reports[1]["hits"] > 0
