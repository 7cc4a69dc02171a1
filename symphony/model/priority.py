"""Priorities as people say them; the rooms store the number."""

from enum import IntEnum

from symphony.model.errors import UsageError
from symphony.model.words import did_you_mean


class Priority(IntEnum):
    """Higher goes first."""

    CRITICAL = 1000
    HIGH = 100
    NORMAL = 0
    LOW = -100
    BACKGROUND = -1000


def parse_priority(text: "str | int | Priority") -> int:
    """The number of a priority given by name ("high") or number; raises UsageError with the nearest name."""
    if isinstance(text, int):
        number = int(text)
    else:
        name = text.strip().lower()
        named = {member.name.lower(): int(member) for member in Priority}
        if name in named:
            return named[name]
        try:
            number = int(name)
        except ValueError:
            raise UsageError(f"unknown priority {text!r}{did_you_mean(name, named)}") from None
    if not -(1 << 31) <= number < (1 << 31):
        raise UsageError(f"priority {number} is out of range (32-bit signed)")
    return number
