"""From a step's binding to a call: made once for a step, then run for each of its nodes.

A binding says which of the handler's arguments is a constant, an input slot, a formatted text or a list of slots. The
common shapes get a closure of their own, because this is what every node of a run pays for.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from msgspec import json

from symphony.extension.annotation import PAIR, Conversion, conversion_of
from symphony.extension.views import Items, natural, resolve
from symphony.model import value
from symphony.model.errors import ExtensionError
from symphony.model.words import did_you_mean

REF = Struct("<IHHQQII")
_ASYNC, _GENERATOR, _ASYNC_GENERATOR = 0x80, 0x20, 0x200
_QUICK = {"any": object, "": object, "bytes": bytes, "text": str, "path": str, "none": type(None)}

Get = Callable[[bytes], Any]


class Plan:
    """How one step calls its handler. `call(refs)` runs it; `encode(result)` makes its outputs; `quick` is the type of
    result that may be sent as it is (object: any that the channel takes), None if it must be encoded."""

    __slots__ = ("call", "is_async", "kinds", "name", "outputs", "quick")

    def __init__(self, name: str, call: Get, is_async: bool, outputs: list[str], kinds: list[str | None]):
        self.name = name
        self.call = call
        self.is_async = is_async
        self.outputs = outputs
        self.kinds = kinds
        self.quick = _QUICK.get(kinds[0] or "any") if len(outputs) == 1 else None

    def encode(self, result: Any) -> list[value.Encoded]:
        """One encoded value an output. Raises ExtensionError if the named outputs are not those declared, ValueRefused
        if something cannot travel."""
        if len(self.outputs) == 1:
            return [_encode(result, self.kinds[0])]
        if not isinstance(result, dict) or set(result) != set(self.outputs):
            got = f"the keys {sorted(map(str, result))}" if isinstance(result, dict) else type(result).__name__
            raise ExtensionError(
                f"the handler of step {self.name!r} has to return a dict with exactly "
                f"{sorted(self.outputs)}, it returned {got}"
            )
        return [_encode(result[name], kind) for name, kind in zip(self.outputs, self.kinds, strict=True)]


def _encode(result: Any, kind: str | None) -> value.Encoded:
    if hasattr(result, "encoded"):
        return result.encoded()
    plain = kind.split("[")[0] if kind else ""
    return value.encode(result, kind=None if plain in ("any", "") else plain)


def failing(name: str, error: BaseException) -> Plan:
    """A plan whose every call raises `error`: a step that cannot be bound fails, it does not end the process."""

    def call(refs: bytes) -> Any:
        raise error

    return Plan(name, call, False, [""], [None])


def bind(
    binding: dict[str, Any], handlers: dict[str, Callable[..., Any]], channel: Any, declared: dict[str, dict[str, str]]
) -> Plan:
    """The plan of a binding. `declared` maps a handler to its outputs' types in the manifest. Raises ExtensionError if
    there is no such handler or it does not take such an argument."""
    name, wanted = str(binding.get("name", "")), str(binding["handler"])
    handler = handlers.get(wanted)
    if handler is None:
        raise ExtensionError(f"there is no handler {wanted!r}{did_you_mean(wanted, handlers)}")
    outputs = list(binding.get("outputs") or [""])
    types = declared.get(wanted, {})
    kinds = [types.get(output, types.get("") if len(outputs) == 1 else None) for output in outputs]
    if len(outputs) == 1 and kinds[0] is None and len(types) == 1:
        kinds = list(types.values())
    call = _calling(handler, binding.get("arguments") or {}, binding.get("slots") or [], channel)
    flags = _flags(handler)
    if flags & _GENERATOR:
        call = _collecting(call)
    return Plan(name, call, bool(flags & (_ASYNC | _ASYNC_GENERATOR)), outputs, kinds)


def _flags(handler: Callable[..., Any]) -> int:
    code = getattr(handler, "__code__", None)
    return code.co_flags if code is not None else 0


def _collecting(call: Get) -> Get:
    return lambda refs: list(call(refs))


def parameters(handler: Callable[..., Any]) -> tuple[list[str], bool]:
    """Names that the handler takes, and whether it takes any other as well."""
    function = getattr(handler, "__func__", handler)
    code = getattr(function, "__code__", None)
    if code is None:
        return [], True
    names = list(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
    return names[1:] if function is not handler else names, bool(code.co_flags & 0x08)


def _calling(handler: Callable[..., Any], arguments: dict[str, Any], slots: list[dict[str, Any]], channel: Any) -> Get:
    taken, any_name = parameters(handler)
    for name in arguments:
        if not any_name and name not in taken:
            raise ExtensionError(f"handler {handler.__name__!r} takes no argument {name!r}{did_you_mean(name, taken)}")
    fixed: dict[str, Any] = {}
    gets: dict[str, Get] = {}
    for name, argument in arguments.items():
        if "value" in argument:
            fixed[name] = argument["value"]
        else:
            gets[name] = _getting(argument, conversion_of(handler, name), slots, channel)
    code = getattr(handler, "__code__", None)
    first = taken[0] if taken and code is not None and code.co_argcount else None
    return _closure(handler, fixed, gets, first)


def _closure(handler: Callable[..., Any], fixed: dict[str, Any], gets: dict[str, Get], first: str | None) -> Get:
    if not gets:
        return (lambda refs: handler(**fixed)) if fixed else (lambda refs: handler())
    if len(gets) == 1 and first in gets:
        get = gets[first]
        return (lambda refs: handler(get(refs), **fixed)) if fixed else (lambda refs: handler(get(refs)))
    pairs = list(gets.items())
    return lambda refs: handler(**{name: get(refs) for name, get in pairs}, **fixed)


def _getting(argument: dict[str, Any], conversion: Conversion, slots: list[dict[str, Any]], channel: Any) -> Get:
    if "slot" in argument:
        return _slot(argument["slot"], conversion, slots, channel)
    any_type = conversion_of(None, "")
    if "format" in argument:
        parts = [_slot(number, any_type, slots, channel) for number in argument.get("slots", ())]
        template = argument["format"]
        return lambda refs: template.format(*[_as_text(part(refs)) for part in parts])
    if "slots" in argument:
        each = [_slot(number, conversion.item or any_type, slots, channel) for number in argument["slots"]]
        return lambda refs: [get(refs) for get in each]
    raise ExtensionError(f"an argument is a slot, a value, a format or slots, not {sorted(argument)}")


def _as_text(part: Any) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, bytes):
        return part.decode("utf-8", "replace")
    if isinstance(part, dict | list):
        return json.encode(part).decode()
    return str(part)


def _slot(number: int, conversion: Conversion, slots: list[dict[str, Any]], channel: Any) -> Get:
    many = number < len(slots) and bool(slots[number].get("many"))
    view = channel.view
    if many:
        return lambda refs: conversion.many(Items(refs_of(refs, number), view))
    take, mode, convert = channel.value, conversion.mode, conversion.one

    def general(refs: bytes) -> Any:
        rows = refs_of(refs, number)
        if len(rows) > 1 or (rows and rows[0][6] > 1 and rows[0][1] == value.LIST):
            return conversion.many(Items(rows, view))
        return convert(*(resolve(rows[0], view) if rows else (value.NONE, memoryview(b""))))

    if mode is None:

        def pair(refs: bytes) -> Any:
            found = take(refs, number, PAIR)
            return general(refs) if found is NotImplemented else convert(*found)

        return pair

    def get(refs: bytes) -> Any:
        found = take(refs, number, mode)
        return general(refs) if found is NotImplemented else found

    return get


def refs_of(refs: bytes, number: int) -> list[tuple[int, ...]]:
    """The rows of one slot, in order."""
    return [ref for ref in REF.iter_unpack(refs) if ref[2] == number]


__all__ = ["Plan", "bind", "failing", "natural", "parameters", "refs_of"]
