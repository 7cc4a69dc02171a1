"""A run's inputs: what the caller gave, as text of a command line or as Python values, against what is declared."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

from symphony.melody.types import constant_fits, type_of
from symphony.model.errors import UsageError
from symphony.model.score import InputType, Score
from symphony.model.value import encode
from symphony.model.words import did_you_mean

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


def parse_inputs(score: Score, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of every input of `score` by name, defaults filled in.

    A text is read by the input's type: int, float, bool; data and list as JSON (a list also as words with commas
    between); bytes as UTF-8, or @FILE for a file's content; a path is made absolute here, since the engine may stand
    in another folder. Other values must have the type already. Raises UsageError naming the input and the nearest
    valid name.
    """
    for name in given:
        if name not in score.inputs:
            raise UsageError(f"melody {score.name!r} has no input {name!r}{did_you_mean(name, score.inputs)}")
    missing = [name for name in score.input_order if score.inputs[name].required and name not in given]
    if missing:
        wanted = ", ".join(f"{name} ({score.inputs[name].type})" for name in missing)
        raise UsageError(f"melody {score.name!r} needs {wanted}: give it with -i {missing[0]}=VALUE")
    values = {}
    for name in score.input_order:
        declared = score.inputs[name]
        values[name] = _value(name, declared, given.get(name, declared.default))
    return values


def split_pair(text: str) -> tuple[str, str]:
    """Key and value of a command line's KEY=VALUE; raises UsageError."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UsageError(f"an input is KEY=VALUE, not {text!r}")
    return key.strip(), value


def _value(name: str, declared: InputType, given: Any) -> Any:
    kind = declared.type
    if kind == "path" and isinstance(given, str | os.PathLike):
        return _path(name, os.fspath(given))
    if isinstance(given, str):
        return _from_text(name, kind, given)
    return _typed(name, kind, given)


def _path(name: str, given: Any) -> str:
    if not isinstance(given, str) or "\0" in given or given == "":
        raise UsageError(f"input {name!r} must be a path, not {given!r}")
    return os.path.abspath(os.path.expanduser(given))


def _typed(name: str, kind: str, given: Any) -> Any:
    """A Python value that must be of the type already; encoded once, so that what cannot travel is refused here."""
    if kind == "bytes" and isinstance(given, bytes | bytearray | memoryview):
        return given
    if kind == "float" and type(given) is int:
        return float(given)
    if kind == "list" and isinstance(given, tuple):
        given = list(given)
    elif not constant_fits(given, kind) or (given is None and kind != "data"):
        raise UsageError(f"input {name!r} must be {kind}, not {type_of(given)} ({given!r:.60})")
    encode(given)
    return given


def _from_text(name: str, kind: str, text: str) -> Any:
    readers: dict[str, Callable[[str], Any]] = {
        "int": _int, "float": _float, "bool": _bool, "data": json.loads, "list": _list, "bytes": _bytes,
    }  # fmt: skip
    if kind not in readers:
        encode(text)
        return text
    try:
        return readers[kind](text)
    except (ValueError, RecursionError):
        raise UsageError(f"input {name!r} must be {_FORMS[kind]}, not {text[:60]!r}") from None
    except OSError as error:
        raise UsageError(f"input {name!r}: cannot read {text[1:]!r}: {error.strerror or error}") from None


_FORMS = {
    "int": "a whole number of 64 bits", "float": "a number", "bool": "true or false", "data": "JSON",
    "list": "a JSON list, or words with commas between", "bytes": "text, or @FILE",
}  # fmt: skip


def _int(text: str) -> int:
    number = int(text)
    if not -(1 << 63) <= number < 1 << 64:
        raise ValueError
    return number


def _float(text: str) -> float:
    return float(text)


def _bool(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE + _FALSE:
        raise ValueError
    return word in _TRUE


def _list(text: str) -> list[Any]:
    if not text.strip().startswith("["):
        return [word.strip() for word in text.split(",")] if text.strip() else []
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError
    return found


def _bytes(text: str) -> bytes:
    if not text.startswith("@"):
        return text.encode()
    with open(text[1:], "rb") as file:
        return file.read()
