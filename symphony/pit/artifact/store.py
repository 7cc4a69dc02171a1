"""The Artifact Store: segments from size classes, what lies in them, and who may read them.

Two homes: *arenas*, taken front to back, one user at a time (a run, by the loop for small outputs and by the
clerk for large ones), re-used whole when the run is gone; and *puts*, a block of an arena with a row of its own.
What is published is never written again while anything can name it. Extensions map the segments read-only.
"""

import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from symphony.model import value
from symphony.model.errors import NoSpace, RoomError, StaleHandle, SymphonyError
from symphony.native import ffi, lib
from symphony.native.layout import constants
from symphony.shmem.segment import Region, Segment

FREE = constants["SYM_ARTIFACT_FREE"]
RESERVED = constants["SYM_ARTIFACT_RESERVED"]
PUBLISHED = constants["SYM_ARTIFACT_PUBLISHED"]
STATE_SHIFT = 60
SMALLEST_BYTES = 256 << 10
LARGEST_CLASS_BYTES = 64 << 20
KEPT_FREE_BYTES = 256 << 20
"""Freed segments are kept, touched, up to this much: the first touch of a page costs about 3 µs."""
NOBODY = 0xFFFFFFFF
ALIGN = 64


def size_class(size: int) -> int:
    """The segment size for a need: powers of four from 256 KiB to 64 MiB, then whole multiples of that."""
    fit = SMALLEST_BYTES
    while fit < size and fit < LARGEST_CLASS_BYTES:
        fit *= 4
    return fit if size <= fit else -(-size // LARGEST_CLASS_BYTES) * LARGEST_CLASS_BYTES


@dataclass
class Arena:
    """A segment in use: `used` is the first free byte, counted from the segment's start."""

    id: int
    segment: Segment
    begin: int
    used: int
    run: int
    fit: int

    @property
    def size(self) -> int:
        return self.segment.size

    @property
    def address(self) -> int:
        """Of the segment's first byte in this process."""
        return self.segment.address("bytes") - self.begin

    def take(self, size: int) -> int | None:
        """Offset of a 64-aligned block, or None."""
        at = -(-self.used // ALIGN) * ALIGN
        if at + size > self.size:
            return None
        self.used = at + size
        return at


@dataclass(frozen=True)
class ArtifactRef:
    """A handle on something published: `generation` makes a handle of an earlier life of the row an error."""

    row: int
    generation: int
    kind: int
    size_bytes: int
    store: "Store"

    def view(self) -> Any:
        """The value over the store's own memory: arrays and bytes are read-only views, no copy."""
        return value.decode(self.kind, self.store.payload(self))

    @property
    def id(self) -> str:
        """`b3:` and 64 hex digits; hashed at the first call (about 4 GB/s)."""
        return self.store.identify(self)


class Store:
    """All artifact memory of one engine. Methods are safe from any thread of the Conductor's process."""

    def __init__(
        self, make: Callable[[str, list[Region]], Segment], rows: np.ndarray, artifacts: np.ndarray, engine: np.ndarray
    ) -> None:
        self._make, self._rows, self._artifacts, self._engine = make, rows, artifacts, engine
        self._lock = threading.RLock()
        self._arenas: dict[int, Arena] = {}
        self._free: dict[int, list[Arena]] = {}
        self._free_bytes = 0
        self._clerk: dict[int, Arena] = {}
        self._puts: Arena | None = None
        self._next = 1
        self._entered: dict[str, int] = {}
        self._next_artifact = 0
        self.granted: list[Callable[[int, Segment], None]] = []
        self.forgotten: list[Callable[[int], None]] = []

    def enter(self, segment: Segment, kind: int, run: int = NOBODY) -> int:
        """A segment's id, the same as long as it exists; its row in the table is the id modulo the table's length.

        An id is never given again: a player that has not read yet that a segment is gone must not take another for it.
        """
        with self._lock:
            number = self._entered.get(segment.name)
            if number is not None:
                # It is live: whoever comes after a crash attaches what its row names, so the row is never half a name.
                self._row(number)["run"] = run
                return number
            number = self._entered[segment.name] = self._free_id()
            row = self._row(number)
            name = segment.name.encode()[: row["name"].size - 1]
            row["name"][:] = 0
            row["name"][: len(name)] = np.frombuffer(name, np.uint8)
            row["size_bytes"], row["kind"], row["run"], row["id"], row["word"] = segment.size, kind, run, number, 1
            return number

    def resume(self, attach: Callable[[str], Segment], live_runs: set[int]) -> dict[int, Segment]:
        """Take up what an earlier Conductor's tables name. Arenas of runs that are no more are free; those that a put
        artifact lies in stay. Returns the run segments by id, for whoever takes up the runs."""
        put = {int(row["segment"]) for row in self._artifacts if int(row["word"]) >> STATE_SHIFT == PUBLISHED}
        runs: dict[int, Segment] = {}
        for row in self._rows[np.flatnonzero(self._rows["word"])]:
            number, kind = int(row["id"]), int(row["kind"])
            segment = attach(bytes(row["name"]).split(b"\0", 1)[0].decode())
            self._entered[segment.name] = number
            if kind == constants["SYM_SEGMENT_RUN"]:
                runs[number] = segment
            else:
                self._resume_arena(number, segment, int(row["run"]), put, live_runs)
        self._next = int(self._rows["id"].max()) + 1
        for number in np.flatnonzero(self._artifacts["word"] >> STATE_SHIFT == RESERVED):
            self._set_word(int(number), FREE << STATE_SHIFT | int(self._artifacts[number]["word"]) & 0xFFFFFFFF)
        return runs

    def _resume_arena(self, number: int, segment: Segment, run: int, put: set[int], live_runs: set[int]) -> None:
        begin = segment.offset("bytes")
        arena = Arena(number, segment, begin, segment.size, run, segment.regions["bytes"].count)
        self._arenas[number] = arena
        if run not in live_runs and number not in put:
            self._release(arena)

    def leave(self, segment: Segment) -> None:
        """The segment is about to go: its row is free."""
        with self._lock:
            number = self._entered.pop(segment.name, None)
            if number is not None:
                self._row(number)["word"] = 0

    def _row(self, number: int) -> np.void:
        return self._rows[number % len(self._rows)]

    def _free_id(self) -> int:
        count = len(self._rows)
        for number in range(self._next, self._next + count):
            if number % count and not self._row(number)["word"]:
                self._next = number + 1
                self._engine[0]["segments_used"] = min(self._next, count)
                return number
        raise RoomError(f"{count - 1} segments at once are the limit; wait for some runs to end")

    def arena(self, size: int, run: int) -> Arena:
        """An arena with room for `size` bytes, for one user. Raises NoSpace, RoomError; nothing is taken then."""
        with self._lock:
            fit = size_class(size + 4096 * 4)
            kept = self._free.get(fit)
            if kept:
                arena = kept.pop()
                self._free_bytes -= arena.size
                arena.used, arena.run = arena.begin, run
                self._row(arena.id)["run"] = run
                return arena
            segment = self._make_arena(fit)
            try:
                number = self.enter(segment, constants["SYM_SEGMENT_ARENA"], run)
            except RoomError:
                segment.unlink()
                segment.close()
                raise
            begin = segment.offset("bytes")
            arena = self._arenas[number] = Arena(number, segment, begin, begin, run, fit)
            for tell in self.granted:
                tell(arena.id, segment)
            return arena

    def _make_arena(self, fit: int) -> Segment:
        regions = [Region("bytes", "u8", fit)]
        try:
            return self._make("arena", regions)
        except NoSpace:
            # What is kept for later gives way to what is needed now.
            if not self._free_bytes:
                raise
            for arena in [arena for kept in self._free.values() for arena in kept]:
                self._drop(arena)
            self._free.clear()
            self._free_bytes = 0
            return self._make("arena", regions)

    def block(self, size: int, run: int) -> tuple[Arena, int]:
        """Memory for one large output of a run (the clerk): arena and offset."""
        with self._lock:
            arena = self._clerk.get(run)
            at = arena.take(size) if arena is not None else None
            if at is None:
                arena = self._clerk[run] = self.arena(max(size, 4 << 20), run)
                at = arena.take(size)
            return arena, at

    def size_of_run(self, run: int) -> int:
        """Bytes of the arenas that a run has."""
        with self._lock:
            return sum(arena.size for arena in self._arenas.values() if arena.run == run)

    def release_run(self, run: int) -> None:
        """Nothing names what this run made any more: its arenas may be used again."""
        with self._lock:
            self._clerk.pop(run, None)
            for arena in [a for a in self._arenas.values() if a.run == run]:
                self._release(arena)

    def _release(self, arena: Arena) -> None:
        arena.run = NOBODY
        self._row(arena.id)["run"] = NOBODY
        if self._free_bytes + arena.size <= KEPT_FREE_BYTES:
            self._free_bytes += arena.size
            self._free.setdefault(arena.fit, []).append(arena)
            return
        self._drop(arena)

    def _drop(self, arena: Arena) -> None:
        del self._arenas[arena.id]
        self.leave(arena.segment)
        for tell in self.forgotten:
            tell(arena.id)
        arena.segment.unlink()
        arena.segment.close()

    def live(self) -> Iterable[tuple[int, Segment]]:
        """What a new player has to be granted."""
        with self._lock:
            return [(arena.id, arena.segment) for arena in self._arenas.values()]

    def names(self) -> list[str]:
        """Of every segment that has a row."""
        with self._lock:
            return list(self._entered)

    def address_of(self, segment: int) -> int:
        """Where a live segment's first byte lies in this process. Raises StaleHandle."""
        with self._lock:
            arena = self._arenas.get(segment)
        if arena is None:
            raise StaleHandle(f"segment {segment} was released")
        return arena.address

    def bytes_at(self, segment: int, offset: int, size: int) -> memoryview:
        """A read-only view of published memory; valid until the run that made it is released. Raises StaleHandle."""
        with self._lock:
            arena = self._arenas.get(segment)
        if arena is None or offset < 0 or size < 0 or offset + size > arena.size:
            raise StaleHandle(f"segment {segment} has no {size} bytes at {offset}: what lay there was released")
        return memoryview(arena.segment.buffer)[offset : offset + size].toreadonly()

    def write(self, arena: Arena, encoded: value.Encoded) -> int | None:
        """A value into an arena: its offset, or None if it does not fit."""
        at = arena.take(encoded.size)
        if at is not None and encoded.size:
            value.write(encoded, memoryview(arena.segment.buffer)[at : at + encoded.size])
        return at

    def put(self, obj: Any) -> ArtifactRef:
        """Publish a Python value from outside any run: a handle at once, its id when asked for.

        Copied once into memory that only the Conductor writes. Raises ValueRefused, NoSpace, RoomError.
        """
        encoded = value.encode(obj)
        with self._lock:
            row = self._reserve()
            try:
                arena, at = self._room_for_put(encoded.size)
            except SymphonyError:
                self._set_word(row, FREE << STATE_SHIFT | int(self._artifacts[row]["word"]) & 0xFFFFFFFF)
                raise
        if encoded.size:
            value.write(encoded, memoryview(arena.segment.buffer)[at : at + encoded.size])
        return self._publish(row, arena, at, encoded)

    def _room_for_put(self, size: int) -> tuple[Arena, int]:
        at = self._puts.take(size) if self._puts is not None else None
        if at is None:
            self._puts = self.arena(max(size, 4 << 20), NOBODY)
            at = self._puts.take(size)
        return self._puts, at

    def _reserve(self) -> int:
        for step in range(len(self._artifacts)):
            row = (self._next_artifact + step) % len(self._artifacts)
            word = int(self._artifacts[row]["word"])
            if word >> STATE_SHIFT == FREE:
                self._next_artifact = row + 1
                self._artifacts[row]["word"] = RESERVED << STATE_SHIFT | ((word + 1) & 0xFFFFFFFF)
                return row
        raise RoomError(f"{len(self._artifacts)} artifacts are the limit; release some")

    def _publish(self, row: int, arena: Arena, at: int, encoded: value.Encoded) -> ArtifactRef:
        record = self._artifacts[row]
        record["segment"], record["offset_bytes"], record["size_bytes"] = arena.id, at, encoded.size
        record["kind"], record["count"], record["hashed"] = encoded.kind, encoded.count, 0
        record["run"], record["node"], record["made_ns"] = NOBODY, NOBODY, time.monotonic_ns()
        generation = int(record["word"]) & 0xFFFFFFFF
        # SYNC artifact: everything beside the word is written before it says published.
        self._set_word(row, PUBLISHED << STATE_SHIFT | generation)
        return ArtifactRef(row, generation, encoded.kind, encoded.size, self)

    def _set_word(self, row: int, word: int) -> None:
        lib.sym_store_release_u64(self._word_address(row), word)

    def _word_address(self, row: int) -> Any:
        base = self._artifacts.__array_interface__["data"][0]
        return ffi.cast("uint64_t *", base + row * self._artifacts.strides[0])

    def _record(self, ref: ArtifactRef) -> np.void:
        record = self._artifacts[ref.row]
        word = int(record["word"])
        if word >> STATE_SHIFT != PUBLISHED or word & 0xFFFFFFFF != ref.generation:
            raise StaleHandle(f"artifact {ref.row} of generation {ref.generation} was released")
        return record

    def payload(self, ref: ArtifactRef) -> memoryview:
        record = self._record(ref)
        return self.bytes_at(int(record["segment"]), int(record["offset_bytes"]), int(record["size_bytes"]))

    def identify(self, ref: ArtifactRef) -> str:
        record = self._record(ref)
        if not record["hashed"]:
            record["id"] = np.frombuffer(value.digest(ref.kind, self.payload(ref)), np.uint8)
            record["hashed"] = 1
        return "b3:" + bytes(record["id"]).hex()

    def release(self, ref: ArtifactRef) -> None:
        """Forget a put artifact. Its memory comes back with its arena. Raises StaleHandle."""
        with self._lock:
            self._record(ref)
            self._set_word(ref.row, FREE << STATE_SHIFT | ref.generation)

    def totals(self) -> dict[str, int]:
        """Bytes in use and kept, segments; for status."""
        with self._lock:
            used = sum(arena.used - arena.begin for arena in self._arenas.values() if arena.run != NOBODY)
            return {
                "segments": len(self._arenas),
                "bytes": sum(arena.size for arena in self._arenas.values()),
                "used_bytes": used,
                "kept_bytes": self._free_bytes,
            }

    def close(self, keep: bool = False) -> None:
        """Unmap everything; unlink it too, unless it is kept for a Conductor that comes later."""
        with self._lock:
            for arena in self._arenas.values():
                if not keep:
                    arena.segment.unlink()
                arena.segment.close()
            self._arenas.clear()
            self._free.clear()
            self._puts = None


__all__ = ["Arena", "ArtifactRef", "Store", "size_class"]
