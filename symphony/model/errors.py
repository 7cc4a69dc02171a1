"""Every error that Symphony raises on purpose, in one place: both sides of a socket catch it by the same name.

A message says what is wrong, where, and what to do. Errors cross the control door as their class name, message
and facts (`to_wire`, `from_wire`): nothing is pickled.
"""

from typing import Any


class SymphonyError(Exception):
    """Base of all. `message` is for people, `facts` are keyword details that survive the control door.

    `exit_code` is what `symphonyctl` ends with when this reaches it.
    """

    exit_code = 1

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts = facts

    def __str__(self) -> str:
        return self.message


class UsageError(SymphonyError):
    """The caller asked for something that cannot be: a wrong argument, name or type."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration file or variable says something that cannot be."""


class MelodyError(UsageError):
    """A melody that cannot be played as written: `file`, `line`, `column` (both from 1, None when unknown) say where.

    `problem` is the text without the place; `nearest` the nearest valid word, if there is one; `errors` all mistakes
    found in the same file, this one first.
    """

    def __init__(
        self,
        problem: str = "",
        *,
        file: str | None = None,
        line: int | None = None,
        column: int | None = None,
        nearest: str | None = None,
        **facts: Any,
    ) -> None:
        place = ":".join(str(part) for part in (file, line, column) if part is not None)
        hint = f"; did you mean {nearest!r}?" if nearest else ""
        super().__init__(
            f"{place}: {problem}{hint}" if place else f"{problem}{hint}",
            problem=problem, file=file, line=line, column=column, nearest=nearest, **facts,
        )  # fmt: skip
        self.problem = problem
        self.file = file
        self.line = line
        self.column = column
        self.nearest = nearest
        self.errors: list[MelodyError] = [self]


class ScoreError(UsageError):
    """A score (the internal form of a melody) breaks one of its own rules: it was not made by our parser."""


class ValueRefused(UsageError):
    """A Python object that cannot travel between steps."""


class ValueDamaged(SymphonyError):
    """A payload that is not a value of the kind it claims: lengths, offsets or text do not fit."""


class EngineNotFound(SymphonyError):
    """No engine of that name runs."""

    exit_code = 3


class EngineExists(SymphonyError):
    """An engine of that name runs already."""

    exit_code = 2


class NothingToRecover(SymphonyError):
    """No state of that engine lies in memory that a Conductor could go on from."""

    exit_code = 3


class EngineLost(SymphonyError):
    """The engine ended or stopped answering while something waited for it."""


class RunNotFound(UsageError):
    """No run of that number."""


class RunFailed(SymphonyError):
    """A run ended as failed; facts name the step and carry the remote traceback."""


class RunCancelled(SymphonyError):
    """A run was cancelled."""

    exit_code = 5


class WaitTimeout(SymphonyError, TimeoutError):
    """What was waited for did not come before the deadline; it may still come."""

    exit_code = 4


class SegmentError(SymphonyError):
    """Something about a shared memory segment."""


class AbiMismatch(SegmentError):
    """The segment was made by another version, layout or instance; the message names what differs."""


class SegmentExists(SegmentError):
    """A segment of that name exists."""


class NoSuchSegment(SegmentError):
    """No segment of that name exists."""


class NoSpace(SegmentError):
    """Shared memory is full."""


class NotAllowed(SegmentError):
    """The file system's rights or the owner's check refuse it."""


class RingError(SymphonyError):
    """Something about a ring."""


class RingFull(RingError):
    """No room for the record now; the consumer has to release some first."""


class RingClosed(RingError):
    """The other side is gone."""


class RingCorrupt(RingError):
    """The other side's words are out of bounds; the ring is not used further."""


class RecordTooLong(RingError):
    """The record can never fit this ring."""


class ExtensionError(SymphonyError):
    """An extension could not be found, started, or broke its contract."""


class ManifestError(ExtensionError):
    """An extension's manifest is wrong; the message names file, line and nearest valid word."""

    exit_code = 2


class HandlerFailed(ExtensionError):
    """A handler raised; facts carry the remote type, message and traceback text."""


class KeeperError(SymphonyError):
    """The Keeper could not do what it was asked, or is gone."""


class DoorError(SymphonyError):
    """The control door refused a message: too long, damaged, or the secret does not match."""


class PoolRefused(SymphonyError):
    """The pool has nothing to give now; `reason` says why."""

    @property
    def reason(self) -> str:
        return self.message


class StaleHandle(SymphonyError):
    """A handle of an earlier generation: what it named was given back."""


class RoomError(SymphonyError):
    """A room's table refuses the edge or is out of rows; the message names the limit or the state."""


class Interrupted(SymphonyError):
    """The user stopped it (Ctrl-C)."""

    exit_code = 130


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str | bytes):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value)


def to_wire(error: BaseException) -> dict[str, Any]:
    """A msgpack-able description of `error`: {"error": class name, "message": text, "facts": {...}}."""
    facts = error.facts if isinstance(error, SymphonyError) else {}
    return {"error": type(error).__name__, "message": str(error), "facts": _plain(facts)}


def _families(root: type[SymphonyError]) -> dict[str, type[SymphonyError]]:
    found = {root.__name__: root}
    for child in root.__subclasses__():
        found.update(_families(child))
    return found


def from_wire(described: dict[str, Any]) -> SymphonyError:
    """The error that `to_wire` described; a class that this process does not know becomes SymphonyError."""
    name = str(described.get("error", "SymphonyError"))
    message = str(described.get("message", ""))
    facts = described.get("facts")
    facts = {str(key): value for key, value in facts.items()} if isinstance(facts, dict) else {}
    kind = _families(SymphonyError).get(name)
    if kind is None:
        return SymphonyError(
            f"{name}: {message}", **{key: value for key, value in facts.items() if key not in ("self", "message")}
        )
    error = kind.__new__(kind, message)
    SymphonyError.__init__(
        error, message, **{key: value for key, value in facts.items() if key not in ("self", "message")}
    )
    if isinstance(error, MelodyError):
        for field in ("problem", "file", "line", "column", "nearest"):
            setattr(error, field, facts.get(field))
        error.errors = [error]
    return error
