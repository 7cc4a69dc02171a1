"""What the tests of real engines share: running symphonyctl, and looking that nothing of an engine is left."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from symphony.pit.stale import sweep

DEADLINE_S = 90.0
SLEEPER = """
[melody]
name = "sleeper"
inputs = { seconds = { type = "float", default = 600.0 } }
outputs = { done = "work" }

[steps.work]
use = "operators.work"
with = { task = "sleep", seconds = "{seconds}" }
"""
WALKER = """
[melody]
name = "walker"
inputs = { path = "path" }
outputs = { files = "walk.files", summary = "walk.summary" }

[steps.walk]
use = "explorer.walk"
with = { path = "{path}" }
"""


def command(*words):
    return [sys.executable, "-m", "symphony", *map(str, words)]


def ctl(*words, timeout=DEADLINE_S):
    return subprocess.run(command(*words), capture_output=True, text=True, timeout=timeout, check=False)


def processes_of(name: str) -> set[int]:
    """Living processes of the engine of that name: by their command lines, and children of those."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                ours = b"symphony.keeper" in words or b"symphony.daemon" in words
                if ours and name.encode() in words and sweep.start_time(int(entry.name)) is not None:
                    found.add(int(entry.name))
    return found


def assert_nothing_left(name: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while (left := processes_of(name)) and time.monotonic() < deadline:
        os.sched_yield()
    assert not left
    assert sweep.plan(instance=name).entries == ()


def private_engines() -> set[str]:
    """Of this runtime base: others' may come and go beside the tests."""
    entries = [entry for entry in sweep.plan().entries if entry.directory is not None]
    return {entry.instance for entry in entries if entry.instance.startswith(("play-", "warmup-"))}


def kill_all(name):
    """kill -9 of the Keeper and the Conductor at once: stopped first, so that neither sees the other die."""
    pids = processes_of(name)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    deadline = time.monotonic() + DEADLINE_S
    while any(sweep.start_time(pid) is not None for pid in pids):
        assert time.monotonic() < deadline
