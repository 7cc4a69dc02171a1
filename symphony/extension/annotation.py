"""What an argument's annotation asks for, found out once a step. No step pays for it again."""

from __future__ import annotations

import collections.abc
import types
from collections.abc import Callable
from typing import Any, Union, get_args, get_origin

from symphony.extension.views import ArtifactView, Items, natural
from symphony.model import value

# The modes of PlayerChannel.value: what the channel gives without help.
NATURAL, BYTES, TEXT, VIEW, PAIR = range(5)


class Conversion:
    """How an argument is made: `mode` is what the channel may give as it is (None: never), `one(kind, buffer)` makes
    it from a payload, `many(Items)` from several, `item` is the conversion of a list's items."""

    __slots__ = ("item", "many", "mode", "one")

    def __init__(
        self,
        mode: int | None,
        one: Callable[[int, memoryview], Any],
        many: Callable[[Items], Any] | None = None,
        item: Conversion | None = None,
    ):
        self.mode = mode
        self.one = one
        self.many = many or (lambda items: items)
        self.item = item


def conversion_of(handler: Any, name: str) -> Conversion:
    function = getattr(handler, "__func__", handler)
    annotation = getattr(function, "__annotations__", {}).get(name)
    if isinstance(annotation, str):
        annotation = _evaluated(annotation, getattr(function, "__globals__", {}))
    return _conversion(annotation)


def _evaluated(text: str, names: dict[str, Any]) -> Any:
    try:
        return eval(text, names)
    except Exception:  # a name that exists for type checkers only: go by how it is spelt
        tail = text.split("[")[0].rpartition(".")[2]
        return "ndarray" if tail in ("ndarray", "NDArray") else {"ArtifactView": ArtifactView}.get(tail)


def _conversion(annotation: Any) -> Conversion:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        choices = [choice for choice in get_args(annotation) if choice is not type(None)]
        return _optional(_conversion(choices[0])) if len(choices) == 1 else _ANY
    plain = origin or annotation
    if plain in (list, tuple) or plain is collections.abc.Sequence:
        arguments = get_args(annotation)
        return _list_of(_conversion(arguments[0]) if arguments else _ANY, plain)
    try:
        known = _BY_TYPE.get(plain)
    except TypeError:
        known = None
    if known is None and (plain == "ndarray" or _is_ndarray(plain)):
        return _ARRAY
    return known or _ANY


def _is_ndarray(plain: Any) -> bool:
    return getattr(plain, "__name__", "") == "ndarray" and getattr(plain, "__module__", "") == "numpy"


def _optional(inner: Conversion) -> Conversion:
    def one(kind: int, buffer: memoryview) -> Any:
        return None if kind == value.NONE else inner.one(kind, buffer)

    return Conversion(inner.mode if inner.mode != VIEW else None, one, inner.many, inner.item)


def _wanted(what: str, kind: int) -> TypeError:
    return TypeError(f"the handler wants {what}, the step before gave a value of kind {value.KIND_NAMES[kind]}")


def _as_bytes(kind: int, buffer: memoryview) -> bytes:
    if kind in (value.BYTES, value.TEXT):
        return bytes(buffer)
    if kind == value.DATA and isinstance(found := value.decode(kind, buffer), bytes):
        return found
    raise _wanted("bytes", kind)


def _as_text(kind: int, buffer: memoryview) -> str:
    if kind in (value.TEXT, value.BYTES):
        return str(buffer, "utf-8")
    if kind == value.DATA and isinstance(found := value.decode(kind, buffer), str):
        return found
    raise _wanted("text", kind)


def _scalar(kind_of: type) -> Callable[[int, memoryview], Any]:
    def one(kind: int, buffer: memoryview) -> Any:
        found = value.decode(kind, buffer) if kind == value.DATA else None
        if kind_of is float and type(found) is int:
            return float(found)
        if not isinstance(found, kind_of) or (kind_of is int and isinstance(found, bool)):
            raise _wanted(kind_of.__name__, kind)
        return found

    return one


def _as_array(kind: int, buffer: memoryview) -> Any:
    if kind == value.ARRAY:
        return value.decode(kind, buffer)
    if kind in (value.DATA, value.LIST):
        import numpy

        return numpy.asarray(value.decode(kind, buffer, copy=True))
    raise _wanted("an array", kind)


def _stacked(items: Items) -> Any:
    import numpy

    return numpy.asarray([items[number] for number in range(len(items))])


def _list_of(item: Conversion, kind_of: Any) -> Conversion:
    make = tuple if kind_of is tuple else list

    def many(items: value.ListView) -> Any:
        return make(item.one(*items.raw(number)) for number in range(len(items)))

    def one(kind: int, buffer: memoryview) -> Any:
        if kind == value.LIST:
            return many(value.ListView(buffer))
        found = value.decode(kind, buffer) if kind == value.DATA else None
        if not isinstance(found, list):
            raise _wanted("a list", kind)
        return make(found)

    return Conversion(None, one, many, item)


def _lazy(kind: int, buffer: memoryview) -> Any:
    if kind != value.LIST:
        raise _wanted("a list", kind)
    return value.ListView(buffer)


def _as_view(kind: int, buffer: memoryview) -> ArtifactView:
    return ArtifactView(kind, buffer)


def _joined(items: Items) -> ArtifactView:
    encoded = items.encoded()
    return ArtifactView(value.LIST, memoryview(value.payload_of(encoded)))


_ANY = Conversion(NATURAL, natural)
_ARRAY = Conversion(None, _as_array, _stacked)
_BY_TYPE: dict[Any, Conversion] = {
    bytes: Conversion(BYTES, _as_bytes),
    bytearray: Conversion(None, lambda kind, buffer: bytearray(_as_bytes(kind, buffer))),
    str: Conversion(TEXT, _as_text),
    memoryview: Conversion(VIEW, lambda kind, buffer: buffer),
    dict: Conversion(None, _scalar(dict)),
    int: Conversion(None, _scalar(int)),
    float: Conversion(None, _scalar(float)),
    bool: Conversion(None, _scalar(bool)),
    value.ListView: Conversion(None, _lazy),
    Items: Conversion(None, _lazy),
    ArtifactView: Conversion(None, _as_view, _joined),
}
