"""Does a segment hold together? What can be told from outside: stamp, directory, layout, the invariants of its kind.

Of a living engine only what lasts is a problem: a check that fails is made again, and counts that follow their words
(derived ones) are compared only where nothing moves any more.
"""

from collections.abc import Callable, Iterator
from typing import Any

from symphony.inspect import verify_run, verify_state
from symphony.inspect.decode import LINE_BYTES, MAGIC, REGION, STAMP_BYTES, View, alive
from symphony.inspect.layout import PLAIN
from symphony.inspect.memory import Memory

AGAIN = 4
"""How often a check of a living engine is made before its finding is believed."""

Finding = tuple[str, str]
"""Where, and what is wrong."""


def verify(view: View) -> dict[str, Any]:
    """All checks of one segment: {"segment", "kind", "alive", "build": "this" or "another", "ok", "checks": [{"check",
    "ok", "problems": [text, …]}]}. Another build's segment is checked by its own layout as far as that goes."""
    living = alive(view.stamp) is not False  # of one that cannot be judged, what may pass is not believed either
    checks = {"stamp": _stamp, "directory": _directory, "layout": _layout, "values": _values, **_of_kind(view.kind)}
    found = {name: _found(check, view, living) for name, check in checks.items()}
    if living and any(found.values()):
        found = _lasting(view, checks, found)
    told = [
        {"check": name, "ok": not findings, "problems": [f"{where}: {text}" for where, text in findings]}
        for name, findings in found.items()
    ]
    return {
        "segment": view.name,
        "kind": view.kind,
        "alive": alive(view.stamp),
        "build": _build(view),
        "ok": all(check["ok"] for check in told),
        "checks": told,
    }


Check = Callable[[View, bool], Iterator[Finding]]


def _of_kind(kind: str | None) -> dict[str, Check]:
    by_kind: dict[str | None, dict[str, Check]] = {
        "state": {**verify_state.CHECKS},
        "run": {**verify_run.CHECKS},
        "ring": {"ring": _ring},
    }
    return by_kind.get(kind, {})


def _found(check: Check, view: View, living: bool) -> list[Finding]:
    try:
        return list(check(view, living))
    except (LookupError, TypeError, ValueError, ArithmeticError) as error:
        # Columns that this check needs are missing from the segment's own layout, or hold what no number can be.
        return [(type(error).__name__, f"cannot be checked: {error}")]


def _lasting(view: View, checks: dict[str, Check], found: dict[str, list[Finding]]) -> dict[str, list[Finding]]:
    """What is still wrong, in the same place, at every further look."""
    for _ in range(AGAIN):
        with Memory(view.memory.name, view.memory.path) as memory:
            again = View(memory)
            for name, findings in found.items():
                if findings:
                    now = {where: text for where, text in _found(checks[name], again, True)}
                    found[name] = [(where, now[where]) for where, _ in findings if where in now]
        if not any(found.values()):
            break
    return found


def _build(view: View) -> str | None:
    from symphony.native.layout import FINGERPRINT

    told = view.stamp["fingerprint"]
    return None if told is None else "this" if told == FINGERPRINT else "another"


def _stamp(view: View, living: bool) -> Iterator[Finding]:
    stamp = view.stamp
    if stamp["magic"] is None:
        yield "stamp", view.problems[0]
        return
    if stamp["magic"] == 0:
        yield "magic", "is not there: the segment is not whole yet, or is being removed"
    elif stamp["magic"] != MAGIC:
        yield "magic", f"is {stamp['magic']:#x}: these bytes are no segment of Symphony, or are damaged"
    if stamp["size_bytes"] != view.memory.size:
        yield "size_bytes", f"says {stamp['size_bytes']}, there are {view.memory.size}"
    for name in ("kind", "state"):
        if (view.layout.enums and not isinstance(stamp[name], str)) or str(stamp[name]).startswith("unknown"):
            yield name, f"is {stamp[name]}, which its layout does not know"
    if not stamp["owner_pid"] or not stamp["owner_start"]:
        yield "owner", "is not named"


def _directory(view: View, living: bool) -> Iterator[Finding]:
    for problem in view.problems:
        if problem.startswith(("directory", "region")):
            yield tuple(problem.split(": ", 1))  # type: ignore[misc]
    places = sorted(view.places.values(), key=lambda place: place.offset)
    end, before = STAMP_BYTES + len(places) * REGION.size, "the directory"
    for place in places:
        if place.offset % LINE_BYTES:
            yield f"region {place.name}", f"begins at {place.offset}, which is no multiple of {LINE_BYTES}"
        if place.offset < end:
            yield f"region {place.name}", f"overlaps {before}"
        end, before = max(end, place.end), f"region {place.name}"


def _layout(view: View, living: bool) -> Iterator[Finding]:
    for problem in view.problems:
        if problem.startswith("layout"):
            yield tuple(problem.split(": ", 1))  # type: ignore[misc]
    for place in view.places.values():
        if place.type in PLAIN or place.type == "text":
            size = PLAIN["u8" if place.type == "text" else place.type][1]
        elif place.type in view.layout.structs:
            size = view.layout.structs[place.type].size
        else:
            yield f"region {place.name}", f"holds {place.type}, which its layout does not describe"
            continue
        if size != place.stride:
            yield f"region {place.name}", f"has rows of {place.stride} bytes, {place.type} has {size}"


def _values(view: View, living: bool) -> Iterator[Finding]:
    """What an enum names, reads as one of its values; 0 may also be what was never written."""
    for region in view.places:
        decoder = view.decoder(region)
        for field in decoder.fields if decoder else ():
            names = view.layout.names(field.enums[0]) if field.enums and not field.packed else {}
            if not names or field.enums[0].endswith("_flag"):
                continue
            numbers = view.column(region, field.name)
            for number in sorted({*numbers} - {*names} - {0, field.empty}):
                yield (
                    f"{region}, row {numbers.index(number)}",
                    f"{field.name} is {number}, which {field.enums[0]} has not",
                )


def _ring(view: View, living: bool) -> Iterator[Finding]:
    """Head and tail of a ring that one segment holds, read the head first: both only grow."""
    head, tail = view.column("consumer", "head", 1), view.column("producer", "tail", 1)
    if not head or not tail or "data" not in view.places:
        yield "ring", "has no head, tail and data"
        return
    size = view.places["data"].count
    if head[0] % 8 or tail[0] % 8:
        yield "positions", f"head {head[0]} and tail {tail[0]} are no multiples of 8"
    elif not 0 <= tail[0] - head[0] <= size:
        yield "positions", f"head {head[0]} and tail {tail[0]} cannot be of a ring of {size} bytes"
    elif not living:
        yield from _records(view, head[0], tail[0], size)


def _records(view: View, head: int, tail: int, size: int) -> Iterator[Finding]:
    from symphony.inspect.layout import Decoder

    decoder = Decoder(view.layout, "sym_record_t", raw=True)
    if not decoder.described:
        return
    base = view.places["data"].offset
    while head < tail:
        record = decoder.values(view.memory.unpack(decoder.form, base + head % size))
        end = head + -(-(decoder.form.size + record["length"]) // 8) * 8
        if end > tail:
            yield "records", f"the one at position {head} has {record['length']} bytes and ends behind the tail {tail}"
            return
        head = end
