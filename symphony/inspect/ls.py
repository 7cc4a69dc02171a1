"""Which segments there are: named ones in shared memory, and the memfds that a living engine holds."""

import os
import time
from collections.abc import Iterable
from typing import Any

from symphony.inspect.decode import View, alive, boot_id
from symphony.inspect.memory import SHM, Memory, open_file, open_segment
from symphony.model.errors import SegmentError
from symphony.shmem import names

_MEMFD = "/memfd:symphony."


def segments(instance: str | None = None) -> list[dict[str, Any]]:
    """Every segment of this user's engines (or of one): what its stamp says, what it takes, who made it and whether
    that one lives. By instance and name.

    A name that is listed without a segment, or the other way round, says so (`listed`, `state`: "missing").
    """
    listed = _listed(instance)
    found = [described(name, listed) for name in _present(instance)]
    present = {item["name"] for item in found}
    found += [_missing(name) for name in listed if name not in present]
    owners = {item["owner_pid"]: None for item in found if item["alive"]}
    found += [item for pid in owners for item in _memfds(pid, instance)]
    return sorted(found, key=lambda item: (item["engine"] or "", item["name"]))


def described(name: str, listed: Iterable[str] | None = None) -> dict[str, Any]:
    """One segment by its name; `state` is "gone" when it went meanwhile, and says what is wrong when it cannot be
    read."""
    own = names.told_by(name)
    item = _blank(name, own[1] if own else None, own[2] if own else None)
    if listed is not None:
        item["listed"] = name in listed
    try:
        with open_segment(name) as memory:
            return item | facts(View(memory))
    except SegmentError as error:
        return item | {"state": "gone" if "there is no" in str(error) else "unreadable", "problems": [str(error)]}


def facts(view: View) -> dict[str, Any]:
    """What a segment says of itself, and what it takes."""
    stamp, memory = view.stamp, view.memory
    told = {
        "size_bytes": memory.size,
        "allocated_bytes": memory.allocated_bytes,
        "owner_pid": stamp["owner_pid"] or None,
        "alive": alive(stamp),
        "state": _state(view),
        "generation": stamp["generation"],
        "age_s": round(max(0.0, time.time() - memory.changed_s), 3),
        "heartbeat_age_s": _since(stamp),
        "problems": list(view.problems),
    }
    if view.whole:
        told |= {"engine": stamp["instance"], "kind": stamp["kind"]}
    return told


def _blank(name: str, engine: str | None, kind: str | None) -> dict[str, Any]:
    return {
        "name": name, "engine": engine, "kind": kind, "listed": None, "size_bytes": 0, "allocated_bytes": 0,
        "owner_pid": None, "alive": False, "state": "unknown", "generation": None, "age_s": None,
        "heartbeat_age_s": None, "problems": [],
    }  # fmt: skip


def _state(view: View) -> str:
    if view.whole:
        return str(view.stamp["state"])
    if view.stamp["magic"]:
        return "damaged"
    return "closing" if view.stamp["state"] == "closing" else "half-made"


def _since(stamp: dict[str, Any]) -> float | None:
    """Age of the heartbeat; None when there is none, or when it was of another boot's clock."""
    beat = stamp["heartbeat_ns"]
    if not beat or stamp["boot_id"] != boot_id():
        return None
    return round(max(0, time.monotonic_ns() - beat) / 1e9, 3)


def _present(instance: str | None) -> list[str]:
    try:
        entries = os.listdir(SHM)
    except FileNotFoundError:
        return []
    return sorted("/" + entry for entry in entries if _mine(entry, instance))


def _mine(name: str, instance: str | None) -> bool:
    told = names.told_by(name)
    return told is not None and told[0] == os.getuid() and instance in (None, told[1])


def _listed(instance: str | None) -> list[str]:
    base = names.base_path()
    try:
        instances = [instance] if instance is not None else sorted(os.listdir(base))
    except OSError:
        return []
    found = []
    for each in instances:
        try:
            found += ["/" + name for name in os.listdir(base / each / "segments") if names.told_by(name)]
        except OSError:
            continue
    return found


def _missing(name: str) -> dict[str, Any]:
    told = names.told_by(name)
    return _blank(name, told[1], told[2]) | {"listed": True, "state": "missing"} if told else _blank(name, None, None)


def _memfds(pid: int, instance: str | None) -> list[dict[str, Any]]:
    """Nameless segments that a process holds, each once, under the place where /proc shows it."""
    found: dict[tuple[int, int], dict[str, Any]] = {}
    folder = f"/proc/{pid}/fd"
    try:
        entries = os.listdir(folder)
    except OSError:
        return []
    for entry in sorted(entries, key=int):
        path = f"{folder}/{entry}"
        try:
            if not os.readlink(path).startswith(_MEMFD):
                continue
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in found:
                continue
            with open_file(path) as memory:
                found[status.st_dev, status.st_ino] = _of_memfd(path, memory)
        except (OSError, SegmentError):
            continue
    return [item for item in found.values() if instance in (None, item["engine"])]


def _of_memfd(path: str, memory: Memory) -> dict[str, Any]:
    return _blank(path, None, None) | facts(View(memory))
