"""A segment's table of counters (`sym_counter_t`): named numbers, one writer each, that anybody may read.

Without NumPy, so that a tool that only prints them stays light.
"""

from collections.abc import Iterable

from symphony.model.errors import UsageError
from symphony.native import ffi, lib
from symphony.shmem.segment import Segment

NAME_LIMIT = 39


class Counters:
    """The counters of one region. Holds no view: valid while the segment is mapped.

    Reading is safe from any thread and process at any time. A counter has one writer; two would lose counts.
    """

    def __init__(self, segment: Segment, region: str = "counters") -> None:
        place = segment.regions[region]
        if place.type != "sym_counter_t":
            raise UsageError(f"region {region} of {segment.name} holds {place.type}, not counters")
        self._rows = ffi.cast("sym_counter_t *", segment.address(region))
        self._count = place.count

    def name(self, names: Iterable[str]) -> None:
        """Name the first counters, by the segment's maker, once. Names of at most 39 bytes; raises UsageError."""
        for index, name in enumerate(names):
            raw = name.encode()
            if len(raw) > NAME_LIMIT or index >= self._count:
                raise UsageError(f"no room for counter {index}, {name!r}: {self._count} counters, names of 39 bytes")
            ffi.memmove(self._rows[index].name, raw + bytes(NAME_LIMIT + 1 - len(raw)), NAME_LIMIT + 1)

    def add(self, index: int, number: int = 1) -> None:
        """Count. Wraps at 2**64. About 0.3 µs: for what is rare."""
        word = ffi.addressof(self._row(index), "value")
        value = lib.sym_load_relaxed_u64(word) + number
        lib.sym_store_relaxed_u64(word, value & (2**64 - 1))

    def value(self, index: int) -> int:
        return lib.sym_load_relaxed_u64(ffi.addressof(self._row(index), "value"))

    def read(self) -> dict[str, int]:
        """Every named counter and its value, in the table's order; each value whole, all of about one moment."""
        rows = (self._rows[index] for index in range(self._count))
        named = ((ffi.string(ffi.cast("char *", row.name), NAME_LIMIT + 1), row) for row in rows)
        return {
            raw.decode(errors="replace"): lib.sym_load_relaxed_u64(ffi.addressof(row, "value"))
            for raw, row in named
            if raw
        }

    def _row(self, index: int):
        if not 0 <= index < self._count:
            raise IndexError(f"counter {index} of {self._count}")
        return self._rows[index]
