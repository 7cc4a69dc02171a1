"""The state segment: the engine's fixed tables, made once a life."""

import time

import numpy as np

from symphony.model.errors import NoSuchSegment, NothingToRecover
from symphony.native.layout import constants, names
from symphony.shmem.names import told_by
from symphony.shmem.registry import Registry
from symphony.shmem.segment import Region, Segment

_ROWS = {
    "engine": ("sym_engine_t", 1),
    "counters": ("sym_counter_t", constants["SYM_LIMIT_COUNTERS"]),
    "owners": ("sym_owner_t", constants["SYM_LIMIT_OWNERS"]),
    "extensions": ("sym_extension_t", constants["SYM_LIMIT_EXTENSIONS"]),
    "players": ("sym_player_t", constants["SYM_LIMIT_PLAYERS"]),
    "models": ("sym_model_t", constants["SYM_LIMIT_MODELS"]),
    "instances": ("sym_instance_t", constants["SYM_LIMIT_INSTANCES"]),
    "seats": ("sym_seat_t", constants["SYM_LIMIT_SEATS"]),
    "requests": ("sym_request_t", constants["SYM_LIMIT_REQUESTS"]),
    "resources": ("sym_resource_t", constants["SYM_LIMIT_RESOURCES"]),
    "artifacts": ("sym_artifact_t", constants["SYM_LIMIT_ARTIFACTS"]),
    "segments": ("sym_segment_t", constants["SYM_LIMIT_SEGMENTS"]),
    "runs": ("sym_run_t", constants["SYM_LIMIT_RUNS"]),
}
OWNER_SELF = 1
"""The Conductor's own slot: 0 in a word means nobody."""


class Tables:
    """Typed views of the state segment, one attribute a region; owned by the Conductor, unmapped by `close`."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        for name in _ROWS:
            setattr(self, name, segment.table(name))

    @classmethod
    def create(cls, registry: Registry, instance: str, generation: int) -> "Tables":
        """Fresh tables of a fresh engine. Raises NoSpace."""
        regions = [Region(name, kind, count) for name, (kind, count) in _ROWS.items()]
        tables = cls(Segment.create(registry, instance, "state", regions, generation=generation))
        for number, name in names("sym_counter").items():
            if number < constants["SYM_COUNTER_COUNT"]:
                write_name(tables.counters[number]["name"], name)
        tables.engine[0]["started_ns"] = time.monotonic_ns()
        tables.engine[0]["next_serial"] = 1
        return tables

    @classmethod
    def attach(cls, registry: Registry) -> "Tables":
        """The tables of an engine whose Conductor has ended. Raises NothingToRecover, AbiMismatch, SegmentError."""
        for name in registry.names():
            told = told_by(name)
            if told is None or told[2] != "state":
                continue
            try:
                return cls(Segment.attach(name, writable=True, kind="state", registry=registry))
            except NoSuchSegment:
                continue
        raise NothingToRecover(
            f"{registry.folder} lists no state of an engine that could be gone on from: nothing is left"
        )

    def address(self, name: str, row: int = 0) -> int:
        table: np.ndarray = getattr(self, name)
        return self.segment.address(name) + row * table.strides[0]

    def close(self, keep: bool = False) -> None:
        """Unmap; `keep` leaves the segment for a Conductor that comes later."""
        for name in _ROWS:
            setattr(self, name, None)
        if not keep:
            self.segment.unlink()
        self.segment.close()


def write_name(column: np.ndarray, text: str) -> None:
    """A name into a table's u8 column: cut between characters, zero-padded."""
    raw = text.encode()[: len(column) - 1].decode(errors="ignore").encode()
    column[:] = 0
    column[: len(raw)] = np.frombuffer(raw, np.uint8)


def read_name(column: np.ndarray) -> str:
    return bytes(column).split(b"\0", 1)[0].decode(errors="replace")
