"""`symphony.attach`: an engine seen from any process of its user, by its shared memory alone.

Read-only and without a word to the engine: no request, no lock, no wake-up. What it shows may be a moment old, and a
row that is being written may be seen half; the words that decide (states) are always whole. To act on an engine, or to
be told when something changes, use `symphony.connect`.
"""

import os
import time
from collections.abc import Callable
from typing import Any

from symphony.bus.door_wire import directory_of
from symphony.model.errors import EngineLost, EngineNotFound, NoSuchSegment, SegmentError
from symphony.native.layout import constants, names
from symphony.pit.stale.sweep import start_time
from symphony.shmem.segment import Segment

ROOMS = {
    "pool": ("models", "instances", "seats", "requests"),
    "dag": ("runs",),
    "artifact": ("artifacts", "segments"),
    "arbiter": ("resources",),
    "stale": ("owners", "players", "extensions"),
}
"""The tables of each room in the state segment; the processes, which all rooms speak of, stand with stale."""

_STATE_SHIFT = constants["SYM_RUN_STATE_SHIFT"]
_SEGMENT_LIVE = 1


def attach(name: str = "default") -> "Viewer":
    """A read-only view of the engine `name` of this user.

    Raises EngineNotFound when none of that name runs, AbiMismatch (naming what differs) when it was built from another
    memory layout. Costs one map of its state segment, some tens of microseconds; NumPy is imported.
    """
    return Viewer(name, _state_segment(name))


class Viewer:
    """The tables of one engine's state segment, mapped read-only. Safe from any thread; `close` must not race them.

    Lives on when the engine ends (`alive` says so) and then shows its last state.
    """

    def __init__(self, name: str, segment: Segment):
        self.name = name
        self._segment = segment
        self._stamp = _stamp_of(segment)

    def close(self) -> None:
        """End the map, once no array of `rooms` is held any more."""
        self._segment.close()

    def __enter__(self) -> "Viewer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def alive(self) -> bool:
        """Whether the Conductor that made this memory still lives."""
        return start_time(self._stamp["pid"]) == self._stamp["start"]

    @property
    def rooms(self) -> dict[str, dict[str, Any]]:
        """The tables by room: {"pool": {"models": record array, …}, …}, read-only views over the engine's memory.

        dtype: the struct of that name in `shm/`; all rows, used or not.
        """
        return {room: {table: self._table(table) for table in tables} for room, tables in ROOMS.items()}

    def status(self) -> dict[str, Any]:
        """The engine's own row: processes, isolation level, what is in use, counters, age of its heartbeat."""
        engine = self._table("engine")[0]
        now = time.monotonic_ns()
        used = {k.removesuffix("_used"): int(engine[k]) for k in engine.dtype.names if k.endswith("_used")}
        return {
            "name": self.name,
            "alive": self.alive,
            "pid": int(engine["conductor_pid"]),
            "keeper_pid": int(engine["keeper_pid"]),
            "level": int(engine["level"]),
            "started_ns": int(engine["started_ns"]),
            "ready": bool(engine["ready_ns"]),
            "clock_age_s": max(0, now - int(engine["clock_ns"])) / 1e9,
            "used": used,
            "counters": self._counters(),
        }

    def runs(self) -> list[dict[str, Any]]:
        """The runs that the engine remembers, by serial number; the columns of the control door that its table has."""
        table = self._table("runs")
        states = names("sym_run_state")
        found = []
        for row in table[(table["word"] >> _STATE_SHIFT) != 0]:
            state = states.get(int(row["word"]) >> _STATE_SHIFT, "unknown")
            found.append(
                {
                    "run": int(row["serial"]),
                    "name": _name(row["name"]),
                    "state": state,
                    "nodes": max(0, int(row["total_count"]) - 1),
                    "done": max(0, int(row["done_count"]) - 1),
                    "failed": int(row["failed_count"]),
                    "running": int(row["flight_count"]),
                    "submitted_ns": int(row["submitted_ns"]),
                    "started_ns": int(row["started_ns"]),
                    "ended_ns": int(row["ended_ns"]),
                }
            )
        return sorted(found, key=lambda run: run["run"])

    def segments(self) -> list[dict[str, Any]]:
        """The segments that the engine has made: name, kind, size and the bytes taken from its front."""
        kinds = names("sym_segment_kind")
        table = self._table("segments")
        return [
            {
                "name": _name(row["name"]),
                "kind": kinds.get(int(row["kind"]), "unknown"),
                "size_bytes": int(row["size_bytes"]),
                "used_bytes": int(row["used_bytes"]),
            }
            for row in table[table["word"] == _SEGMENT_LIVE]
        ]

    def _table(self, name: str) -> Any:
        return self._segment.table(name)

    def _counters(self) -> dict[str, int]:
        rows = self._table("counters")[: constants["SYM_COUNTER_COUNT"]]
        return {_name(row["name"]): int(row["value"]) for row in rows}


def _state_segment(name: str) -> Segment:
    """The state segment that the registry names, when its maker lives. One of an earlier life may still be listed."""
    try:
        listed = sorted(os.listdir(directory_of(name) / "segments"))
    except FileNotFoundError:
        listed = []
    ended = None
    for each in listed:
        if ".state." in each:
            segment = _try(lambda each=each: Segment.attach("/" + each, kind="state"))
            if segment is None:
                continue
            stamp = _stamp_of(segment)
            if start_time(stamp["pid"]) == stamp["start"]:
                return segment
            segment.close()
            ended = EngineLost(f"engine {name!r} has ended (process {stamp['pid']} is gone); see: symphonyctl shm ls")
    raise ended or EngineNotFound(f"no engine named {name!r} runs; start it: symphonyctl -n {name} up", engine=name)


def _try(attach: Callable[[], Segment]) -> Segment | None:
    try:
        return attach()
    except NoSuchSegment:
        return None
    except SegmentError as error:
        if type(error) is SegmentError:
            return None  # half-made, or being removed: not an engine's that runs
        raise


def _stamp_of(segment: Segment) -> dict[str, int]:
    from symphony.native import ffi

    stamp = ffi.cast("sym_stamp_t *", segment.address_of_stamp("magic"))
    return {"pid": int(stamp.owner_pid), "start": int(stamp.owner_start)}


def _name(column: Any) -> str:
    return bytes(column).split(b"\0", 1)[0].decode(errors="replace")
