"""The invariants of the state segment that its own words tell."""

from collections.abc import Iterator
from typing import Any

from symphony.inspect.decode import View

NONE = 0xFFFFFFFF
OPEN = ("ready", "active")
MANY = 1 << 16
"""More seats than this an instance cannot have, whatever a damaged row says."""


def _engine(view: View, living: bool) -> Iterator[tuple[str, str]]:
    """What is in use fits its table."""
    for name, used in view.row("engine", 0).items():
        table = name.removesuffix("_used")
        if name.endswith("_used") and table in view.places and used > view.places[table].count:
            yield name, f"is {used}, the table has {view.places[table].count} rows"


def _references(view: View, living: bool) -> Iterator[tuple[str, str]]:
    """A row that names another names one that is in use. Of a row that stands empty or has ended nothing is asked."""
    engine = view.row("engine", 0)
    for table, column, other, idle in (
        ("models", "extension", "extensions", ()),
        ("instances", "model", "models", ()),
        ("instances", "player", "players", ("cold", "failed")),
        ("players", "extension", "extensions", ("free", "dead")),
        ("players", "instance", "instances", ("free", "dead")),
        ("seats", "model", "models", ("closed",)),
    ):
        top = engine[f"{other}_used"]
        for row in view.rows(table):
            if _state(row) not in idle and row[column] not in (None, NONE) and row[column] >= top:
                yield f"{table}, row {row['row']}", f"names {column} {row[column]}, {top} are in use"


def _state(row: dict[str, Any]) -> Any:
    state = row.get("state", row.get("word"))
    return state.get("state") if isinstance(state, dict) else state


def _seats(view: View, living: bool) -> Iterator[tuple[str, str]]:
    """A free or closed seat names nobody; a held or offered one an owner whose slot is in use; a ready instance has no
    closed seat, a cold one no free seat, and its seats lie in its model's block."""
    owners = {row["row"]: row["word"]["state"] for row in view.rows("owners")}
    words = {row["row"]: row["word"] for row in view.rows("seats")}
    for seat, word in words.items():
        if word["state"] in ("free", "closed") and word["owner"]:
            yield f"seat {seat}", f"is {word['state']} and names owner {word['owner']}"
        if word["state"] in ("held", "offered") and owners.get(word["owner"], "free") == "free":
            yield f"seat {seat}", f"is {word['state']} by owner {word['owner']}, whose slot is free"
    models = {row["row"]: row for row in view.rows("models")}
    instances = {row["row"]: row for row in view.rows("instances")}
    for row in instances.values():
        yield from _instance(row, words, models.get(row["model"]))
    for row in view.rows("seats"):
        if row["word"]["state"] == "free" and not _serves(instances.get(row["instance"]), row["row"]):
            yield f"seat {row['row']}", f"is free, and its instance {row['instance']} is cold"


def _serves(instance: dict[str, Any] | None, seat: int) -> bool:
    """Whether the instance is not cold and the seat one of its own."""
    if instance is None or instance["state"] == "cold":
        return False
    return instance["seat_first"] <= seat < instance["seat_first"] + instance["seat_count"]


def _instance(row: dict[str, Any], words: dict[int, Any], model: dict[str, Any] | None) -> Iterator[tuple[str, str]]:
    where, first, count = f"instance {row['row']}", row["seat_first"], row["seat_count"]
    if not count:
        return
    inside = model is not None and (
        model["seat_first"] <= first and first + count <= model["seat_first"] + model["seat_count"]
    )
    if not inside:
        yield where, "has seats outside its model's block"
    # A row of zeros alone is not told: a closed seat that was never open.
    states = {words[seat]["state"] if seat in words else "closed" for seat in range(first, first + min(count, MANY))}
    if row["state"] in OPEN and "closed" in states:
        yield where, f"is {row['state']} with a closed seat"
    if row["state"] == "cold" and "free" in states:
        yield where, "is cold with a free seat"


def _runs(view: View, living: bool) -> Iterator[tuple[str, str]]:
    """A run that is not free has a number of its own, a live segment, and counts that can be."""
    segments = {row["row"]: row for row in view.rows("segments")}
    serials: dict[int, int] = {}
    for row in view.rows("runs"):
        where, state = f"run {row['serial']} (row {row['row']})", row["word"]["state"]
        if str(state).startswith("unknown"):
            yield where, f"is in a state that does not exist: {state}"
        if state == "free":
            continue
        if serials.setdefault(row["serial"], row["row"]) != row["row"]:
            yield where, f"has the number of row {serials[row['serial']]}"
        segment = segments.get(row["segment"])
        if segment is None or segment["word"] != "live" or segment["kind"] != "run":
            yield where, f"lies in segment {row['segment']}, which is no live segment of a run"
        if row["done_count"] + row["failed_count"] + row["flight_count"] > max(row["node_count"], row["total_count"]):
            yield where, "counts more nodes done, failed and in flight than it has"


def _artifacts(view: View, living: bool) -> Iterator[tuple[str, str]]:
    """What is published lies inside a live segment."""
    segments = {row["row"]: row for row in view.rows("segments")}
    for row in view.rows("artifacts"):
        if row["word"]["state"] != "published" or not row["size_bytes"]:
            continue
        where, segment = f"artifact {row['row']}", segments.get(row["segment"])
        if segment is None or segment["word"] != "live":
            yield where, f"lies in segment {row['segment']}, which is not live"
        elif row["offset_bytes"] + row["size_bytes"] > segment["size_bytes"]:
            yield where, f"ends behind the end of segment {row['segment']}"


def _segments(view: View, living: bool) -> Iterator[tuple[str, str]]:
    """What is taken of a segment fits it."""
    for row in view.rows("segments"):
        if row["word"] == "live" and row["used_bytes"] > row["size_bytes"]:
            yield f"segment {row['row']}", f"has {row['used_bytes']} bytes taken of {row['size_bytes']}"


CHECKS = {
    "engine": _engine,
    "references": _references,
    "seats": _seats,
    "runs": _runs,
    "artifacts": _artifacts,
    "segments": _segments,
}
