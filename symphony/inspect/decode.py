"""A segment taken apart: stamp, directory, layout, and the rows of each region, as far as they can be told.

Only the place of the stamp's first fields and the form of a directory's row are known beforehand, and only to find the
layout's text; with it everything is decoded, the stamp and the directory too. Nothing here raises because of what
stands in a segment: what does not fit is a problem in words, and the rest is decoded.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from symphony.inspect.layout import MAX_BYTES, PLAIN, Decoder, Field, Layout, parse
from symphony.inspect.memory import Memory

MAGIC = int.from_bytes(b"SYMPHONY", "little")
STAMP_BYTES, REGION = 256, struct.Struct("<32s32sQQQ8x")
"""Where the directory begins, and its row: name, type, offset, rows, stride. The form with which to find the layout."""
STAMP = struct.Struct("<QIIQQQQII16s32sQQ136x")
STAMP_FIELDS = (
    "magic", "abi", "kind", "fingerprint", "size_bytes", "generation", "owner_start", "owner_pid", "region_count",
    "boot_id", "instance", "heartbeat_ns", "state",
)  # fmt: skip
_STAMP_TYPES: dict[str, Any] = dict.fromkeys(STAMP_FIELDS, int) | {
    "kind": (int, str), "state": (int, str), "boot_id": (str, type(None)), "instance": str,
}  # fmt: skip
"""What a layout that is whole makes of the stamp's fields."""
LINE_BYTES = 128
MAX_REGIONS = 256
"""A directory that claims more is read so far."""
MAX_LAYOUT_BYTES = 1 << 20
_LANDMARK = b"struct sym_stamp_t "


@dataclass(frozen=True)
class Place:
    """A region as the directory has it. `present`: rows that lie inside the segment."""

    name: str
    type: str
    offset: int
    count: int
    stride: int
    present: int

    @property
    def end(self) -> int:
        return self.offset + self.present * self.stride


class View:
    """A segment's parts over a Memory, which stays the caller's. Cheap: stamp, directory and layout are read once."""

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.problems: list[str] = []
        self.places = self._directory()
        self.layout = self._layout()
        self.stamp = self._stamp()

    @property
    def name(self) -> str:
        return self.memory.name

    @property
    def whole(self) -> bool:
        """Whether the stamp says that the segment is finished and not being removed."""
        return self.stamp["magic"] == MAGIC

    @property
    def kind(self) -> str | None:
        return self.stamp["kind"] if isinstance(self.stamp["kind"], str) else None

    # -- finding ------------------------------------------------------------------------------------------

    def _directory(self) -> dict[str, Place]:
        if self.memory.size < STAMP_BYTES:
            self.problems.append(f"has {self.memory.size} bytes: too short for a stamp; it is being made, or cut off")
            return {}
        claimed = self.memory.unpack(STAMP, 0)[STAMP_FIELDS.index("region_count")]
        fit = min(claimed, MAX_REGIONS, (self.memory.size - STAMP_BYTES) // REGION.size)
        if fit < claimed:
            self.problems.append(f"directory: {claimed} regions are claimed, {fit} are looked at")
        places: dict[str, Place] = {}
        for index in range(fit):
            place = self._place(index)
            if place is not None:
                if place.name in places:
                    self.problems.append(f"directory, row {index}: a second region {place.name}")
                else:
                    places[place.name] = place
        return places

    def _place(self, index: int) -> Place | None:
        raw_name, raw_type, offset, count, stride = self.memory.unpack(REGION, STAMP_BYTES + index * REGION.size)
        name, kind = (raw.split(b"\0", 1)[0].decode(errors="replace") for raw in (raw_name, raw_type))
        if not name or not 0 < stride <= MAX_BYTES or offset >= self.memory.size:
            where = f"at {offset} with rows of {stride} bytes"
            self.problems.append(f"directory, row {index}: no region can be {where} ({name!r})")
            return None
        present = min(count, (self.memory.size - offset) // stride)
        if present < count:
            self.problems.append(f"region {name}: {count} rows are claimed, {present} lie inside the segment")
        return Place(name, kind, offset, count, stride, present)

    def _layout(self) -> Layout:
        place = self.places.get("layout")
        told = place is not None and place.stride == 1
        text = self.memory.read(place.offset, min(place.present, MAX_LAYOUT_BYTES)) if place and told else b""
        if _LANDMARK not in text:
            text = self._search()
            self.problems.append("layout: not where the directory says" + ("; found by looking for it" if text else ""))
        found = parse(text.rstrip(b"\0").decode(errors="replace"))
        self.problems += found.problems
        return found

    def _search(self) -> bytes:
        """The layout by its first words, in the last written pieces: the last region is its place."""
        left = MAX_LAYOUT_BYTES
        for begin, end in reversed(self.memory.extents):
            begin = max(begin, end - left)
            data = self.memory.read(begin, end - begin)
            at = data.find(_LANDMARK)
            if at >= 0:
                return data[at:].split(b"\0", 1)[0]
            left -= end - begin
            if left <= 0:
                break
        return b""

    def _stamp(self) -> dict[str, Any]:
        if self.memory.size < STAMP_BYTES:
            return dict.fromkeys(STAMP_FIELDS)
        if "sym_stamp_t" in self.layout.structs:
            decoder = Decoder(self.layout, "sym_stamp_t")
            if decoder.form.size <= self.memory.size:
                found = decoder.values(self.memory.unpack(decoder.form, 0))
                if all(isinstance(found.get(name, ...), kinds) for name, kinds in _STAMP_TYPES.items()):
                    return found
        found = dict(zip(STAMP_FIELDS, self.memory.unpack(STAMP, 0), strict=True))
        found["boot_id"] = found["boot_id"].hex()
        found["instance"] = found["instance"].split(b"\0", 1)[0].decode(errors="replace")
        return found

    # -- rows ---------------------------------------------------------------------------------------------

    def decoder(self, region: str, *, raw: bool = False) -> Decoder | None:
        """How this region's rows are read; None when the layout does not describe them, or not as wide as they are."""
        place = self.places[region]
        kind = "u8" if place.type == "text" else place.type
        decoder = Decoder(self.layout, kind, raw=raw)
        return decoder if decoder.described and decoder.form.size == place.stride else None

    def field(self, region: str, name: str) -> Field:
        """A field of a region's rows; KeyError when its layout does not have it."""
        decoder = self.decoder(region)
        found = [field for field in decoder.fields if field.name == name] if decoder else []
        if not found:
            raise KeyError(f"{region}.{name} is not described")
        return found[0]

    def row(self, region: str, index: int, *, raw: bool = False) -> dict[str, Any]:
        """One row; KeyError without such a region, IndexError without such a row."""
        place = self.places[region]
        if not 0 <= index < place.present:
            raise IndexError(f"region {region} has {place.present} rows")
        return next(iter(self.rows(region, index, index + 1, raw=raw, idle=True)))

    def rows(
        self, region: str, begin: int = 0, end: int | None = None, *, raw: bool = False, idle: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Rows [begin, end) as {"row": index, field: value, …}. Of a row that has never been written there is nothing
        to tell: it is left out, untouched, unless `idle`; so are rows of zeros alone, and, without an `end`, those
        above the used count."""
        place = self.places[region]
        top = place.present if idle or end is not None else min(place.present, self.used(region, place.present))
        end = top if end is None else min(end, top)
        decoder = self.decoder(region, raw=raw)
        form, zero = struct.Struct(f"{place.stride}s"), bytes(place.stride)
        for index in range(begin, end) if idle else self._written(place, begin, end):
            at = place.offset + index * place.stride
            if not idle and self.memory.unpack(form, at)[0] == zero:
                continue
            yield {"row": index, **self._values(decoder, form, at)}

    def _values(self, decoder: Decoder | None, form: struct.Struct, at: int) -> dict[str, Any]:
        if decoder is None:
            return {"bytes": self.memory.unpack(form, at)[0].hex()}
        numbers = self.memory.unpack(decoder.form, at)
        return decoder.values(numbers) if decoder.kind not in PLAIN else {"value": numbers[0]}

    def _written(self, place: Place, begin: int, end: int) -> Iterator[int]:
        """Rows that lie in written memory, none twice."""
        low, high = place.offset + begin * place.stride, place.offset + end * place.stride
        last = begin - 1
        for piece, piece_end in self.memory.pieces(low, high):
            first = max(last + 1, (piece - place.offset) // place.stride)
            last = (min(piece_end, high) - place.offset - 1) // place.stride
            yield from range(first, last + 1)

    def used(self, region: str, otherwise: int) -> int:
        """Rows in use as the segment itself says it: the engine's row, or the head of a run; else `otherwise`."""
        place = self.places[region]
        found = self._used_of_engine(region)
        if found is None:
            found = self._used_of_run(region)
        return otherwise if found is None or not 0 <= found <= place.count else found

    def numbers(self, region: str) -> dict[str, int]:
        """The whole numbers of a region's one row; a damaged layout may have made anything else of a field."""
        if region not in self.places or not self.places[region].present:
            return {}
        return {name: value for name, value in self.row(region, 0, raw=True).items() if isinstance(value, int)}

    def _used_of_engine(self, region: str) -> int | None:
        return self.numbers("engine").get(f"{region}_used")

    def _used_of_run(self, region: str) -> int | None:
        graph = self.numbers("graph")
        if not graph or region == "graph":
            return None
        if region in ("nodes", "cold", "marks"):
            return self._nodes(graph)
        if region in ("remaining", "order", "ranks"):
            return graph.get("vertex_count")
        if region == "edge_first":
            return graph.get("vertex_count", -2) + 1
        if region == "vertex_at":
            return graph.get("order_count")
        if region == "story":
            return min(graph.get("story_count", 0), graph.get("story_capacity", 0))
        return graph.get(f"{region.removesuffix('s')}_count")

    def _nodes(self, graph: dict[str, int]) -> int | None:
        """Rows of nodes in use: the vertices, and what the expanded groups have added."""
        columns = [self.column("groups", name, graph.get("group_count", 0)) for name in ("expanded", "first", "count")]
        ends = [first + count for expanded, first, count in zip(*columns, strict=False) if expanded == 1]
        return max([graph.get("vertex_count", -1), *ends])

    def column(self, region: str, field: str, count: int | None = None) -> list[int]:
        """One integer field of the first rows, as numbers; empty when the layout does not have it. One copy of the
        region: for checks of whole tables."""
        place, decoder = self.places.get(region), self.decoder(region) if region in self.places else None
        if place is None or decoder is None:
            return []
        rows = max(0, min(place.present, self.used(region, place.present) if count is None else count))
        found = next((f for f in decoder.fields if f.name == field), None)
        if decoder.kind in PLAIN:
            form = decoder.form
        elif found is None or found.type not in PLAIN:
            return []
        else:
            after = place.stride - found.offset - PLAIN[found.type][1]
            form = struct.Struct(f"<{found.offset}x{PLAIN[found.type][0]}{after}x")
        data = self.memory.read(place.offset, rows * place.stride)
        return [number for (number,) in form.iter_unpack(data)]

    def allocated(self, region: str) -> int:
        """Bytes of a region that have been written, in whole pages."""
        place = self.places[region]
        return sum(end - begin for begin, end in self.memory.pieces(place.offset, place.end))


def alive(stamp: dict[str, Any]) -> bool | None:
    """Whether the process that made a segment still lives: its pid, with its start time, in this boot. None when it is
    of another pid namespace, where nobody here can look."""
    pid, start = stamp.get("owner_pid"), stamp.get("owner_start")
    if not pid or not start or stamp.get("boot_id") != boot_id():
        return False
    if stamp.get("pid_namespace") not in (None, 0, os.stat("/proc/self/ns/pid").st_ino):
        return None
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return False
    return len(fields) > 19 and fields[0] not in (b"Z", b"X") and int(fields[19]) == start


def boot_id() -> str:
    """The kernel's boot id, 32 hex digits."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip().replace("-", "")
