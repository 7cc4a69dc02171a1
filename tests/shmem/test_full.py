"""A /dev/shm that fills up: a clear error, nothing half made, and what was there stays whole. In a mount namespace
of its own, so that nobody else's memory runs out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

INSIDE = """
import ctypes, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 16384, 1 << 18
if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
    sys.exit(77)
if libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, sys.argv[1].encode()):
    sys.exit(77)
from symphony.model.errors import NoSpace
from symphony.shmem.registry import Registry
from symphony.shmem.segment import Region, Segment

registry = Registry("full")
report = {}

def attempt(name, call):
    try:
        call()
        report[name] = "made"
    except NoSpace as error:
        report[name] = str(error)
    report[name + " left"] = [registry.names(), sorted(os.listdir("/dev/shm"))]

def make(*regions):
    return Segment.create(registry, "full", "run", regions)
"""

TOO_LARGE = """
attempt("plain", lambda: make(Region("data", "u8", 1 << 20)))
attempt("sparse", lambda: make(Region("small", "u8", 8), Region("data", "u8", 1 << 30, allocated=1 << 20)))
"""

GROWN = """
made = make(Region("nodes", "sym_node_t", 1 << 20, allocated=100))
table = made.table("nodes")
table["word"][:100] = 7
attempt("grow", lambda: made.grow("nodes", 1 << 20))
report["kept"] = int(table["word"][:100].sum())
made.grow("nodes", 200)
table["word"][:200] = 8
report["after"] = int(table["word"][:200].sum())
made.unlink()
del table
made.close()
"""

UNTIL_FULL = """
made = []
while True:
    try:
        made.append(make(Region("data", "u8", 20_000)))
        made[-1].table("data")[:] = len(made)
    except NoSpace:
        break
report["count"] = len(made)
report["whole"] = all(one.table("data").all() for one in made)
report["listed"] = registry.names() == sorted(one.name for one in made)
report["there"] = sorted("/" + name for name in os.listdir("/dev/shm")) == registry.names()
from symphony.shmem import space
try:
    for number in range(1000):
        os.close(space.make(f"/{number}"))
except NoSpace as error:
    report["inodes"] = str(error)
for one in made:
    one.unlink()
    one.close()
report["in the end"] = registry.names()
"""


@pytest.fixture
def inside(tmp_path):
    def run(program, options="size=128k,mode=1777"):
        if os.geteuid() != 0:
            pytest.skip("a small tmpfs of its own can be mounted by root alone")
        done = subprocess.run(
            [sys.executable, "-c", f"{INSIDE}{program}\nprint(json.dumps(report))", options],
            cwd=ROOT,
            env={**os.environ, "SYMPHONY_RUNTIME_DIR": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode == 77:
            pytest.skip("this kernel or container allows no mount namespace")
        assert done.returncode == 0, (done.returncode, done.stderr)
        return json.loads(done.stdout)

    return run


def test_a_segment_too_large_says_so_and_leaves_nothing(inside):
    report = inside(TOO_LARGE)
    for name in ("plain", "sparse"):
        assert "shared memory is full" in report[name]
        assert "KiB free" in report[name]
        assert "symphonyctl clean" in report[name]
        assert report[f"{name} left"] == [[], []]


def test_a_region_that_cannot_grow_keeps_what_it_has(inside):
    report = inside(GROWN)
    assert "shared memory is full" in report["grow"]
    assert (report["kept"], report["after"]) == (700, 1600)


def test_segments_until_none_fits_are_all_whole_and_all_listed(inside):
    report = inside(UNTIL_FULL)
    assert report["count"] >= 2
    assert report["whole"], "no page that was promised is missing"
    assert report["listed"]
    assert report["there"]
    assert report["in the end"] == []


def test_out_of_inodes_is_the_same_error(inside):
    report = inside(UNTIL_FULL, "size=10m,nr_inodes=8,mode=1777")
    assert report["count"] <= 8
    assert "shared memory is full" in report["inodes"]
    assert report["listed"]
    assert report["there"]
