"""The Artifact Store: rows of puts and of segments, arenas taken and given back. Python code, its writes let through
one by one.

The judge reads as another process does: what says published must be whole, by the digest of its kind.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from symphony.model import value
from symphony.native.layout import constants
from symphony.pit.artifact.store import Store
from symphony.shmem.segment import Region, Segment
from tools.stepping.core import Case, Operation
from tools.stepping.tracer import Scripted

ROWS, ARTIFACTS = 8, 4
REGIONS = [
    Region("engine", "sym_engine_t", 1), Region("segments", "sym_segment_t", ROWS),
    Region("artifacts", "sym_artifact_t", ARTIFACTS),
]  # fmt: skip
PUBLISHED = constants["SYM_ARTIFACT_PUBLISHED"]
FIRST, SECOND = {"what": "was there"}, {"what": "comes", "numbers": list(range(40))}


class StoreCase(Case):
    """A store with one artifact in it, over small tables."""

    def __init__(self, home: Any) -> None:
        self.table = Segment.create(home.registry, home.name, "state", REGIONS)
        self.segments = [self.table]
        self.home = home
        columns = (self.table.table(name) for name in ("segments", "artifacts", "engine"))
        self.store = Store(self._make, *columns)
        self.first = self.store.put(FIRST)

    def _make(self, kind: str, regions: list[Region]) -> Segment:
        made = Segment.create(self.home.registry, self.home.name, kind, regions)
        self.segments.append(made)
        return made

    def does(self, function: Any) -> "StoreCase":
        self.act = Scripted(function)
        return self

    def attach(self) -> dict[str, Segment]:
        return {segment.name: Segment.attach(segment.name) for segment in self.segments}

    def judge(self, there: dict[str, Segment]) -> tuple[Any, Iterable[Any]]:
        table = there[self.table.name]
        problems: list[str] = []
        rows = table.table("segments")
        live = {}
        for number in np.flatnonzero(rows["word"]):
            name = bytes(rows[number]["name"]).split(b"\0")[0].decode()
            if name not in there or int(rows[number]["size_bytes"]) != there[name].size:
                problems.append(
                    f"segment row {number} is live and names {name!r} of {rows[number]['size_bytes']} bytes"
                )
            else:
                live[int(number)] = (there[name], int(rows[number]["kind"]), int(rows[number]["run"]))
        artifacts = [self._artifact(row, live, problems) for row in table.table("artifacts")]
        told = tuple(sorted((number, kind, run) for number, (_, kind, run) in live.items()))
        return (tuple(artifacts), told), problems

    @staticmethod
    def _artifact(row: np.void, live: dict[int, Any], problems: list[str]) -> Any:
        word = int(row["word"])
        state, generation = word >> 60, word & 0xFFFFFFFF
        if state != PUBLISHED:
            # Reserved by one who is dead is free to the next: nothing was promised.
            return "free"
        segment = live[int(row["segment"])][0]
        at, size, kind = int(row["offset_bytes"]), int(row["size_bytes"]), int(row["kind"])
        payload = bytes(memoryview(segment.buffer)[at : at + size])
        name = value.digest(kind, payload)
        if row["hashed"] and bytes(row["id"]) != name:
            problems.append("an id is said to hold and is not the payload's")
        return (generation, kind, name.hex(), int(row["hashed"]))

    def close(self) -> None:
        del self.store, self.first
        self.act = None  # type: ignore[assignment]
        super().close()


def put(home: Any) -> Case:
    case = StoreCase(home)
    return case.does(lambda: case.store.put(SECOND))


def release(home: Any) -> Case:
    case = StoreCase(home)
    return case.does(lambda: case.store.release(case.first))


def identify(home: Any) -> Case:
    case = StoreCase(home)
    return case.does(lambda: case.store.identify(case.first))


def enter(home: Any) -> Case:
    """A segment gets its row; one row was another's before."""
    case = StoreCase(home)
    old = case._make("run", [Region("data", "u8", 100)])
    new = case._make("run", [Region("data", "u8", 9000)])
    number = case.store.enter(old, constants["SYM_SEGMENT_RUN"], 3)
    case.store.leave(old)
    case.store._next = number
    return case.does(lambda: case.store.enter(new, constants["SYM_SEGMENT_RUN"], 4))


def leave(home: Any) -> Case:
    case = StoreCase(home)
    old = case._make("run", [Region("data", "u8", 100)])
    case.store.enter(old, constants["SYM_SEGMENT_RUN"], 3)
    return case.does(lambda: case.store.leave(old))


def take_arena(home: Any) -> Case:
    """One that was kept is given to another run."""
    case = StoreCase(home)
    case.store.arena(100, 5)
    case.store.release_run(5)
    return case.does(lambda: case.store.arena(100, 6))


def release_run(home: Any) -> Case:
    case = StoreCase(home)
    case.store.arena(100, 5)
    return case.does(lambda: case.store.release_run(5))


def write(home: Any) -> Case:
    """Bytes into a run's arena: nothing names them yet."""
    case = StoreCase(home)
    arena = case.store.arena(100, 5)
    encoded = value.encode(SECOND)
    case.unseen, case.least_changes = True, 1
    return case.does(lambda: case.store.write(arena, encoded))


def block(home: Any) -> Case:
    """Memory for a large output: the clerk's own arithmetic, no word."""
    case = StoreCase(home)
    case.store.block(100, 5)
    case.unseen = True
    return case.does(lambda: case.store.block(100, 5))


_S = "symphony.pit.artifact.store.Store."
OPERATIONS = (
    Operation("artifact.put", (_S + "put",), put),
    Operation("artifact.release", (_S + "release",), release),
    Operation("artifact.identify", (_S + "identify", "symphony.pit.artifact.store.ArtifactRef.id"), identify),
    Operation("artifact.enter", (_S + "enter",), enter),
    Operation("artifact.leave", (_S + "leave",), leave),
    Operation("artifact.arena", (_S + "arena",), take_arena),
    Operation("artifact.release_run", (_S + "release_run",), release_run),
    Operation("artifact.write", (_S + "write",), write),
    Operation("artifact.block", (_S + "block",), block),
)
