"""What stands in a segment: its regions, or the rows of one of them, as plain dicts."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from symphony.inspect.decode import View
from symphony.inspect.layout import PLAIN, Field
from symphony.inspect.ls import facts
from symphony.model.errors import UsageError
from symphony.model.words import did_you_mean

BYTES_A_LINE = 16
MEANING = {
    "cas": "compare-and-swap", "exchange": "exchange, sequentially consistent", "rmw": "add, sequentially consistent",
    "release": "store, release", "acquire": "load, acquire", "seq_cst": "load, sequentially consistent",
    "relaxed": "relaxed", "once": "read once into private memory, then checked", "": "plain",
}  # fmt: skip


def summary(view: View) -> dict[str, Any]:
    """A segment's stamp and regions: {"segment", "stamp", "regions": [{"region", "type", "offset_bytes", "rows",
    "used", "stride_bytes", "size_bytes", "written_bytes", "described"}], "problems", …facts}."""
    regions = [
        {
            "region": place.name,
            "type": place.type,
            "offset_bytes": place.offset,
            "rows": place.count,
            "used": view.used(place.name, place.count),
            "stride_bytes": place.stride,
            "size_bytes": place.count * place.stride,
            "written_bytes": view.allocated(place.name),
            "described": view.decoder(place.name) is not None,
        }
        for place in view.places.values()
    ]
    told = facts(view)
    return {"segment": view.name, "kind": told.get("kind"), "stamp": view.stamp, "regions": regions, **told}


def fields(view: View, region: str) -> list[dict[str, Any]]:
    """The fields of a region's rows as the layout's text has them, with who writes and reads each, in which order."""
    decoder = view.decoder(region)
    return [_told(field) for field in decoder.fields] if decoder else []


def rows(
    view: View,
    region: str,
    *,
    begin: int = 0,
    end: int | None = None,
    where: dict[str, str] | None = None,
    limit: int | None = None,
    raw: bool = False,
    idle: bool = False,
) -> dict[str, Any]:
    """Rows of a region: {"segment", "region", "type", "rows_total", "used", "fields", "rows": […], "more"}.

    `where`: only rows whose field of that name (parts of packed words as "word.state") reads so. `idle`: also rows
    never used. Bytes come in lines of sixteen. `more`: `limit` cut some off. Raises UsageError for a region or field
    that is not there.
    """
    place = _place(view, region)
    found = _lines(view, region, begin, end) if place.stride == 1 else view.rows(region, begin, end, raw=raw, idle=idle)
    if place.type == "sym_story_t" and not raw:
        found = (_story(view, row) for row in found if _whole(view, row))
    if where:
        _check_where(view, region, where)
        found = (row for row in found if all(_reads(row, path, text) for path, text in where.items()))
    taken = list(found if limit is None else islice(found, limit + 1))
    cut = limit is not None and len(taken) > limit
    return {
        "segment": view.name,
        "region": region,
        "type": place.type,
        "rows_total": place.count,
        "used": view.used(region, place.count),
        "fields": fields(view, region),
        "rows": taken[:limit] if cut else taken,
        "more": cut,
    }


def text(view: View, region: str = "layout") -> str:
    """A region of text, whole."""
    place = _place(view, region)
    return view.memory.read(place.offset, place.present).decode(errors="replace")


def _place(view: View, region: str) -> Any:
    if region not in view.places:
        known = ", ".join(view.places) or "none can be told"
        near = did_you_mean(region, view.places) if len(view.places) > 12 else ""
        raise UsageError(f"{view.name} has no region {region!r}{near}; its regions: {known}")
    return view.places[region]


def _told(field: Field) -> dict[str, Any]:
    writer, _, written = field.writer.partition(":")
    reader, _, read = field.reader.partition(":")
    return {
        "field": field.name, "type": field.type, "count": field.count, "offset_bytes": field.offset,
        "size_bytes": field.size, "writer": writer, "writes": MEANING.get(written, written), "reader": reader,
        "reads": MEANING.get(read, read), "phrase": field.phrase,
    }  # fmt: skip


def _lines(view: View, region: str, begin: int, end: int | None) -> Iterator[dict[str, Any]]:
    """A region of bytes in lines of sixteen; lines of zeros and what was never written are left out."""
    place = view.places[region]
    low, high = place.offset + begin, place.offset + min(place.present, place.present if end is None else end)
    last = low
    for piece, piece_end in view.memory.pieces(low, high):
        at = max(last, low + (piece - low) // BYTES_A_LINE * BYTES_A_LINE)
        while at < piece_end:
            data = view.memory.read(at, min(BYTES_A_LINE, high - at))
            if any(data):
                shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in data)
                yield {"row": at - place.offset, "bytes": data.hex(" ", 4), "text": shown}
            at += BYTES_A_LINE
        last = at


def _whole(view: View, row: dict[str, Any]) -> bool:
    """Whether a record of a story may be believed. The next one is written over the oldest, whose number stands there
    until the last: of a driver that was killed there, or lives and is just writing, half of it may be the next one's."""
    graph = view.numbers("graph")
    count, capacity = graph.get("story_count"), graph.get("story_capacity")
    return count is None or not capacity or row["row"] != count % capacity or row.get("sequence") == count + 1


def _story(view: View, row: dict[str, Any]) -> dict[str, Any]:
    """A transition of the run itself is told in the states of runs, though its columns name those of nodes."""
    if row.get("node") is not None:
        return row
    values = {name: value for value, name in view.layout.names("sym_node_state").items()}
    of_runs = view.layout.names("sym_run_state")
    told = {key: of_runs.get(values.get(str(row.get(key)), -1), row.get(key)) for key in ("before", "after")}
    return {**row, **told}


def _check_where(view: View, region: str, where: dict[str, str]) -> None:
    decoder = view.decoder(region)
    known = ["row", *(field.name for field in decoder.fields)] if decoder else ["row", "value", "bytes", "text"]
    if view.places[region].type in PLAIN:
        known += ["value", "bytes", "text"]
    for path in where:
        if path.split(".")[0] not in known:
            raise UsageError(f"region {region} has no field {path!r}; its fields: {', '.join(known)}")


def _reads(row: dict[str, Any], path: str, text: str) -> bool:
    found: Any = row
    for part in path.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    if isinstance(found, list):
        return text in map(str, found)
    return str(found).lower() == text.lower() if found is not None else text.lower() in ("none", "")
