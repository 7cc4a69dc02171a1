"""Every test leaves the machine as it found it: no segment, no child process, no descriptor more than before.

A fixture checks this around each test, so a leak is named where it happens. A test that shares something long-lived
with the rest of its module says so with `@pytest.mark.leaves_behind("segments", "children", "descriptors")` (or as
the module's `pytestmark`); the check of the whole run at its end has no exceptions.
"""

import gc
import os
import random
import time
from pathlib import Path

import pytest

SHM = Path("/dev/shm")
PATIENCE_S = 5.0
"""How long something that is already ending may take to be gone."""


def segments() -> set[str]:
    """Names of Symphony's segments that lie in shared memory, are this user's, and are not those of another engine
    that happens to live beside the tests."""
    mine = f"symphony.{os.getuid()}."
    family = {os.getpid(), *children()}
    return {entry.name for entry in os.scandir(SHM) if entry.name.startswith(mine) and not _strangers(entry, family)}


def _strangers(entry: os.DirEntry, family: set[int]) -> bool:
    """Whether the segment's stamp names a living owner that is not of this run, or one in another container, of whom
    nothing can be told. Half-made ones count as ours."""
    from symphony.native import ffi, lib

    try:
        with open(entry.path, "rb") as file:
            data = file.read(ffi.sizeof("sym_stamp_t"))
    except OSError:
        return True
    if len(data) < ffi.sizeof("sym_stamp_t"):
        return False
    stamp = ffi.from_buffer("sym_stamp_t *", data)
    if stamp.pid_namespace not in (0, os.stat("/proc/self/ns/pid").st_ino):
        return True
    alive = stamp.owner_pid and lib.sym_process_start(stamp.owner_pid) == stamp.owner_start
    return bool(alive and stamp.owner_pid not in family)


def children() -> set[int]:
    """Pids of this process's children and theirs. Zombies count: somebody has to reap them."""
    found: set[int] = set()
    ahead = [os.getpid()]
    while ahead:
        direct = _children_of(ahead.pop()) - found
        found |= direct
        ahead.extend(direct)
    return found


def _children_of(pid: int) -> set[int]:
    pids: set[int] = set()
    try:
        for task in os.scandir(f"/proc/{pid}/task"):
            pids.update(int(word) for word in Path(task.path, "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended while we looked: it has no children any more
    return pids


def descriptors() -> set[tuple[int, str]]:
    """This process's open descriptors, with what they lead to. Files of no consequence to the engine are left out:
    Python keeps a few of its own (random numbers, hypothesis's database, compiled code)."""
    found = set()
    for entry in os.scandir("/proc/self/fd"):
        try:
            target = os.readlink(entry.path)
        except FileNotFoundError:
            continue
        if not target.startswith(("/dev/urandom", "/dev/null", "/dev/pts")) and f"/proc/{os.getpid()}/fd" not in target:
            found.add((int(entry.name), target))
    return found


CHECKS = {"segments": segments, "children": children, "descriptors": descriptors}


def left_behind(name: str, before: set) -> set:
    """What is there now and was not before, once everything that is ending has had its time."""
    deadline = time.monotonic() + PATIENCE_S
    while extra := CHECKS[name]() - before:
        gc.collect()
        if not (extra := CHECKS[name]() - before) or time.monotonic() > deadline:
            return extra
        os.sched_yield()
    return set()


@pytest.fixture(autouse=True)
def leaves_nothing_behind(request):
    """Segments, child processes and descriptors are after each test what they were before it."""
    excused = {name for marker in request.node.iter_markers("leaves_behind") for name in marker.args}
    assert excused <= CHECKS.keys(), f"leaves_behind knows {sorted(CHECKS)}, not {sorted(excused - CHECKS.keys())}"
    before = {name: look() for name, look in CHECKS.items() if name not in excused}
    yield
    extra = {name: found for name, seen in before.items() if (found := left_behind(name, seen))}
    assert not extra, f"left behind: {extra}"


@pytest.fixture(scope="session", autouse=True)
def run_leaves_nothing_behind():
    """The same over the whole run, modules' shared things included; descriptors are checked a test at a time."""
    before = {name: CHECKS[name]() for name in ("segments", "children")}
    yield
    extra = {name: found for name, seen in before.items() if (found := left_behind(name, seen))}
    assert not extra, f"left behind by the whole run: {extra}"


@pytest.fixture(autouse=True, scope="session")
def own_runtime_directory(tmp_path_factory):
    """Engines of the tests are found through a runtime folder of their own, never through the user's. Short, because
    a socket's path has at most 107 bytes."""
    import shutil
    import tempfile

    folder = tempfile.mkdtemp(prefix="sym-", dir="/tmp")
    before = os.environ.get("SYMPHONY_RUNTIME_DIR")
    os.environ["SYMPHONY_RUNTIME_DIR"] = folder
    yield folder
    if before is None:
        del os.environ["SYMPHONY_RUNTIME_DIR"]
    else:
        os.environ["SYMPHONY_RUNTIME_DIR"] = before
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def seed(request) -> int:
    """The number that decides a random test: printed when it fails, given by SYMPHONY_SEED to play it again."""
    value = int(os.environ.get("SYMPHONY_SEED") or random.SystemRandom().randrange(2**32))
    print(f"SYMPHONY_SEED={value} {request.node.nodeid}")
    return value
