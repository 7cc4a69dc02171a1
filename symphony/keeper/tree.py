"""Find and end whole process trees, whatever their members did to hide: new sessions, double forks, closed
descriptors. Used by the Keeper on its children and by the Conductor on what a killed Keeper left.

Three tracks lead to a member: its parent, its process group, and the environment token that every child of the
Keeper starts with and hands on. One of them is enough.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
from collections.abc import Callable, Iterable

TOKEN = "SYMPHONY_TOKEN"
_SUBREAPER = 36


def become_subreaper() -> None:
    """Orphans below this process become its children instead of init's. Raises OSError if the kernel refuses."""
    if ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def stat_fields(pid: int) -> list[str] | None:
    """Fields of /proc/PID/stat from the third (state) on, or None if there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].decode("ascii", "replace").split()
    except OSError:
        return None


def start_time(pid: int) -> int:
    """Clock ticks after boot at which the process started; 0 if it is gone. With the pid it names one process."""
    fields = stat_fields(pid)
    return int(fields[19]) if fields else 0


def private_bytes(pid: int) -> int:
    """Memory that is the process's own, shared with no other; 0 if it is gone."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
            lines = file.read().split(b"\n")
    except OSError:
        return 0
    return 1024 * sum(int(line.split()[1]) for line in lines if line.startswith((b"Private_Clean", b"Private_Dirty")))


def pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def environment_token(pid: int) -> str | None:
    """Value of SYMPHONY_TOKEN in the environment the process was started with; None if unreadable or absent."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            text = file.read()
    except OSError:
        return None
    key = TOKEN.encode() + b"="
    for entry in text.split(b"\0"):
        if entry.startswith(key):
            return entry[len(key) :].decode("utf-8", "replace")
    return None


def members(roots: Iterable[int], owns: Callable[[str], bool], spare: Iterable[int] = ()) -> set[int]:
    """Every living process that descends from, or shares a process group or session with, one of `roots`, or whose
    token `owns` accepts, and their descendants. `spare` and this process are never among them. Zombies do not count:
    they are dead and wait for their parent. One walk of /proc."""
    spared = set(spare) | {os.getpid()}
    wanted = set(roots)
    parents: dict[int, int] = {}
    found: set[int] = set()
    for pid in pids():
        fields = stat_fields(pid)
        if fields is None or fields[0] in "ZX" or pid in spared:
            continue
        parents[pid] = int(fields[1])
        token = environment_token(pid)
        if pid in wanted or int(fields[2]) in wanted or int(fields[3]) in wanted or (token is not None and owns(token)):
            found.add(pid)
    grown = True
    while grown:
        below = {pid for pid, parent in parents.items() if pid not in found and (parent in found or parent in wanted)}
        grown = bool(below)
        found |= below
    return found


def send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        pass


def kill(processes: Iterable[int]) -> None:
    """SIGSTOP all, then SIGKILL all: a stopped member cannot fork away between the walk and its own turn."""
    processes = list(processes)
    for pid in processes:
        send(pid, signal.SIGSTOP)
    for pid in processes:
        send(pid, signal.SIGKILL)


def sweep(owns: Callable[[str], bool]) -> int:
    """End every process whose token `owns` accepts, descendants too, and say how many were found. For the leavings of
    a Keeper that was killed. Returns when a walk finds none, or after ten walks."""
    total = 0
    for _ in range(10):
        found = members((), owns)
        if not found:
            break
        total += len(found)
        kill(found)
        _await(found)
    return total


def _await(processes: Iterable[int], seconds: float = 1.0) -> None:
    for pid in processes:
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            poller = select.poll()
            poller.register(descriptor, select.POLLIN)
            poller.poll(int(seconds * 1000))
        finally:
            os.close(descriptor)


def descendants(root: int) -> set[int]:
    """Living processes below `root`, without it."""
    parents = {}
    for pid in pids():
        fields = stat_fields(pid)
        if fields is not None and fields[0] not in "ZX":
            parents[pid] = int(fields[1])
    found: set[int] = set()
    grown = True
    while grown:
        below = {pid for pid, parent in parents.items() if pid not in found and (parent == root or parent in found)}
        grown = bool(below)
        found |= below
    return found
