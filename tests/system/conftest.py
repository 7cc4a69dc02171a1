"""Engines for the tests of the whole: each has a fresh name, and whatever a failed test leaves of it is ended."""

import contextlib
import os
import secrets
import time

import pytest

from symphony.pit.stale import sweep
from tests.system.stage import DEADLINE_S, ctl, private_engines


@pytest.fixture
def name():
    """A fresh engine's name; whatever a failed test leaves of it is ended."""
    fresh = f"t{secrets.token_hex(4)}"
    yield fresh
    with contextlib.suppress(Exception):
        ctl("-n", fresh, "down", "--force", "--timeout", "5")
    sweep.sweep(sweep.plan(instance=fresh))


@pytest.fixture
def engine(name):
    """An engine that is up."""
    done = ctl("-n", name, "up", timeout=300)
    assert done.returncode == 0, done.stderr
    return name


@pytest.fixture
def no_private_engine():
    """No private engine is left that was not there."""
    before = private_engines()
    yield
    deadline = time.monotonic() + DEADLINE_S
    while private_engines() - before and time.monotonic() < deadline:
        os.sched_yield()
    assert private_engines() - before == set()


@pytest.fixture
def melody(tmp_path):
    """Write a melody to a file; returns its path."""

    def write(text, name="melody.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "tree"
    place.mkdir()
    (place / "a.txt").write_text("one\ntwo\n")
    (place / "b.txt").write_text("three\n")
    return place
