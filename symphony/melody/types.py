"""The types that melodies, handlers and run inputs name, and which of them go together."""

import re
from typing import Any

from symphony.model.limits import SECONDS
from symphony.model.score import INPUT_TYPES

TYPES = (*INPUT_TYPES, "array", "any", "none")

_ALWAYS = ("any", "data")
# What a handler's input accepts besides its own type. `data` that comes from a step may hold any plain value.
_ACCEPTS: dict[str, tuple[str, ...]] = {
    "path": ("text",),
    "text": ("path",),
    "int": ("data",),
    "float": ("int", "data"),
    "bool": ("data",),
    "list": ("data",),
    "data": ("text", "path", "int", "float", "bool", "list", "none"),
    "bytes": (),
    "array": (),
    "none": ("data",),
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)?")
_UNITS = {"ms": 0.001, "s": 1.0, None: 1.0, "m": 60.0, "h": 3600.0}


def base(name: str) -> str:
    """The type's own name: "list" of "list[text]", "any" of one that is not known here."""
    plain = name.split("[", 1)[0].strip()
    return plain if plain in TYPES else "any"


def item_of(name: str) -> str | None:
    """The type of the items of `name`: "text" of "list[text]", "any" where it does not say; None if it has no items."""
    plain = base(name)
    if plain == "list" and name.rstrip().endswith("]"):
        return name.split("[", 1)[1].rstrip().removesuffix("]").strip() or "any"
    return "any" if plain in ("list", "data", "any") else None


def fits(given: str, wanted: str) -> bool:
    """Whether a value of type `given` may be passed where `wanted` is declared."""
    source, target = base(given), base(wanted)
    return source == target or "any" in (source, target) or source in _ACCEPTS[target]


def type_of(value: Any) -> str:
    """The type of a constant as it stands in a document."""
    if isinstance(value, bool):
        return "bool"
    for kind, name in (
        (int, "int"),
        (float, "float"),
        (str, "text"),
        (list, "list"),
        (tuple, "list"),
        (bytes, "bytes"),
    ):
        if isinstance(value, kind):
            return name
    return "none" if value is None else "data"


def constant_fits(value: Any, wanted: str) -> bool:
    """Whether a constant may be passed where `wanted` is declared; `data` takes any constant."""
    given = type_of(value)
    return (given == "data" and base(wanted) in _ALWAYS) or (given != "data" and fits(given, wanted))


def seconds_of(value: Any) -> float | None:
    """The seconds of a duration ("2s", "500ms", "1.5m", "1h", or a number); None if it is none."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value) if 0 <= value <= SECONDS else None
    found = _DURATION.fullmatch(value.strip()) if isinstance(value, str) and len(value) < 32 else None
    if found is None:
        return None
    seconds = float(found.group(1)) * _UNITS[found.group(2)]
    return seconds if seconds <= SECONDS else None
