"""Which ended runs are kept, with their tables, outputs and record, for those who may still ask for them.

One whose outcome was taken stays for a while, since record and description are asked for after it. One whose outcome
nobody has taken yet stays much longer: many are played at once, and collected afterwards.
"""

import os
import resource
from collections import deque

from symphony.conductor.run import Run

TAKEN = 12
"""Ended runs whose outcome was taken, the last of them at least."""
UNTAKEN = 1024
"""Others; fewer where their outputs are large, or the process may have few descriptors: a run has two or more."""
LEAST = 64
"""So many others are kept whatever they hold."""
BYTES = 256 << 20
SHARE = 8
"""Of the whole of /dev/shm, and of the process's descriptors, the part that ended runs may hold."""


def budget() -> int:
    """Bytes of shared memory that ended runs may hold."""
    whole = os.statvfs("/dev/shm")
    return min(BYTES, whole.f_blocks * whole.f_frsize // SHARE)


def most() -> int:
    """Ended runs that are kept at most beside those that were taken."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return UNTAKEN if soft == resource.RLIM_INFINITY else max(LEAST, min(UNTAKEN, soft // SHARE))


class Kept:
    """Ended runs, oldest first. Under the Conductor's lock."""

    def __init__(self) -> None:
        self._runs: deque[tuple[Run, int]] = deque()
        self._budget, self._most = budget(), most()

    def add(self, run: Run, size_bytes: int) -> None:
        """A run has ended, and holds so much memory."""
        self._runs.append((run, size_bytes))

    def oldest(self) -> Run | None:
        """The one that goes when a row is wanted; it is not named again."""
        return self._runs.popleft()[0] if self._runs else None

    def surplus(self) -> list[Run]:
        """Those that are kept no longer; they are not named again."""
        taken = [entry for entry in self._runs if entry[0].taken]
        others = [entry for entry in self._runs if not entry[0].taken]
        over = self._over(taken, TAKEN, 1) + self._over(others, self._most, LEAST)
        if over:
            gone = set(map(id, over))
            self._runs = deque(entry for entry in self._runs if id(entry[0]) not in gone)
        return over

    def _over(self, entries: list[tuple[Run, int]], most: int, least: int) -> list[Run]:
        """The oldest of them that are too many, or too large together."""
        held = sum(size for _, size in entries)
        over = 0
        while len(entries) - over > most or (held > self._budget and len(entries) - over > least):
            held -= entries[over][1]
            over += 1
        return [run for run, _ in entries[:over]]
