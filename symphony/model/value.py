"""The values that travel between steps: one kind number and one payload, the same bytes in a ring, an arena and a file.

Payloads, little endian:
  none   empty                      bytes  raw                     text  UTF-8
  data   canonical msgpack: map keys sorted                        error msgpack map {type, message, traceback}
  array  u32 header_bytes | u32 ndim | 16-byte zero-padded dtype.str | u64 shape[ndim] | zeros to header_bytes
         (a multiple of 64) | C-order bytes
  list   u64 count | u64 offset[count] | u64 size[count] | u8 kind[count], zeros to 8 | items, each aligned to 64
         if array or list, else to 8; offsets count from the payload's start

An array or list payload starts at a 64-aligned address, so its numbers are aligned for whoever maps it.
A payload may come from a process that is not trusted: every length, offset and count is bounded before it is used.
NumPy is imported only when an array is decoded. Functions are safe from any thread; they keep no state.
"""

import sys
from collections.abc import Iterator, Sequence
from operator import index as as_index
from struct import Struct
from typing import Any, NamedTuple, TypeAlias

import msgspec
from msgspec import msgpack

from symphony.model.errors import ValueDamaged, ValueRefused
from symphony.model.limits import ARRAY_DIMENSIONS, LIST_ITEMS, VALUE_DEPTH

NONE, BYTES, TEXT, DATA, ARRAY, LIST, ERROR = range(7)
KIND_NAMES = ("none", "bytes", "text", "data", "array", "list", "error")

Buffer: TypeAlias = bytes | bytearray | memoryview

_U64 = Struct("<Q")
_U32_PAIR = Struct("<II")
_ZEROS = bytes(64)
_ARRAY_FIXED = 24
_ENCODER = msgpack.Encoder(order="deterministic")
_PLAIN_ENCODER = msgpack.Encoder()
_DECODER = msgpack.Decoder()


class Encoded(NamedTuple):
    """A value ready to be written: `pieces` are buffers that follow each other and sum to `size` bytes.

    Pieces may be views of the caller's own memory: it must not change until they were written.
    `count` is the number of items of a list, 0 for every other kind.
    """

    kind: int
    count: int  # type: ignore[assignment]
    pieces: list[Buffer]
    size: int


class ErrorValue(msgspec.Struct, frozen=True):
    """What a handler that raised left behind: the remote type's name, its message, and the traceback as text."""

    type: str = ""
    message: str = ""
    traceback: str = ""


_ERROR_DECODER = msgpack.Decoder(ErrorValue)


# Encoding


def encode(obj: Any, *, kind: str | None = None) -> Encoded:
    """The value of a Python object.

    bytes, bytearray, memoryview -> bytes; str -> text; arrays -> array (no copy if C-contiguous); None -> none;
    list or tuple -> list when every item is bytes, text, array or such a list, else data; everything else -> data.
    `kind` ("text", "data", "list", ...) states what it must be: "list" makes a list of any items, "data" keeps a list
    of texts in one piece. Raises ValueRefused, naming what cannot travel. Cost: a microsecond for small values.
    """
    if kind is not None:
        return _encode_as(obj, kind)
    plain = type(obj)
    if plain is bytes:
        return Encoded(BYTES, 0, [obj], len(obj))
    if plain is str:
        return _encode_text(obj)
    if obj is None:
        return Encoded(NONE, 0, [], 0)
    if plain is dict or plain is int or plain is float or plain is bool:
        return _encode_data(obj)
    return _encode_other(obj)


def encode_error(kind: str, message: str, traceback: str = "") -> Encoded:
    """The value of an exception, as text only: nothing of it is pickled."""
    fields = {"message": _printable(message), "traceback": _printable(traceback), "type": _printable(kind)}
    payload = _ENCODER.encode(fields)
    return Encoded(ERROR, 0, [payload], len(payload))


def encoded_size(obj: Any) -> int:
    """Bytes of the payload that `encode(obj)` would give; costs as much as encoding."""
    return encode(obj).size


def write(encoded: Encoded, target: memoryview) -> int:
    """Copy an encoded value into `target` (writable, byte format, at least `encoded.size` long); returns the size."""
    at = 0
    for piece in encoded.pieces:
        end = at + len(piece)
        target[at:end] = piece
        at = end
    return at


def payload_of(encoded: Encoded) -> bytes:
    """The payload in one piece, copied unless it already is one bytes object."""
    pieces = encoded.pieces
    if len(pieces) == 1 and type(pieces[0]) is bytes:
        return pieces[0]
    return b"".join(pieces)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _encode_text(obj: str) -> Encoded:
    try:
        payload = obj.encode()
    except UnicodeEncodeError as error:
        raise ValueRefused(
            f"text holds a lone surrogate at index {error.start}: decode it with errors='replace', or pass bytes"
        ) from None
    return Encoded(TEXT, 0, [payload], len(payload))


def _encode_data(obj: Any) -> Encoded:
    try:
        payload = _ENCODER.encode(obj)
    except (TypeError, ValueError, OverflowError, RecursionError):
        payload = _encode_unusual(obj)
    return Encoded(DATA, 0, [payload], len(payload))


def _encode_unusual(obj: Any) -> bytes:
    """Data with keys that are not text or with NumPy scalars: brought into a plain form first."""
    try:
        return _PLAIN_ENCODER.encode(_canonical(obj, 0))
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueRefused(f"this {type(obj).__name__} cannot travel as data: {error}") from None


def _canonical(obj: Any, depth: int) -> Any:
    if depth > 500:
        raise ValueRefused("data is nested more than 500 deep, or contains itself")
    if isinstance(obj, dict):
        pairs = [(_PLAIN_ENCODER.encode(_canonical(key, depth + 1)), key, item) for key, item in obj.items()]
        pairs.sort(key=lambda pair: pair[0])
        return {_hashable(_canonical(key, depth + 1)): _canonical(item, depth + 1) for _, key, item in pairs}
    if isinstance(obj, list | tuple):
        return [_canonical(item, depth + 1) for item in obj]
    if isinstance(obj, set | frozenset):
        return sorted((_canonical(item, depth + 1) for item in obj), key=_PLAIN_ENCODER.encode)
    if isinstance(obj, memoryview):
        return bytes(obj)
    if isinstance(obj, ListView):
        return _canonical(obj.tolist(), depth + 1)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(obj, numpy.generic):
        return obj.item()
    if numpy is not None and isinstance(obj, numpy.ndarray):
        raise ValueRefused(
            "an array inside data cannot travel: return it by itself, in a list of arrays, or as a named output"
        )
    return obj


def _hashable(key: Any) -> Any:
    return tuple(_hashable(part) for part in key) if isinstance(key, list) else key


def _encode_other(obj: Any) -> Encoded:
    if isinstance(obj, bytes):
        return Encoded(BYTES, 0, [bytes(obj)], len(obj))
    if isinstance(obj, bytearray | memoryview):
        return _encode_buffer(obj)
    if isinstance(obj, str):
        return _encode_text(str(obj))
    if isinstance(obj, ListView):
        return obj.encoded()
    if isinstance(obj, ErrorValue):
        return encode_error(obj.type, obj.message, obj.traceback)
    if isinstance(obj, list | tuple):
        return _encode_list(obj, 1) if _travels_as_list(obj, 1) else _encode_data(obj)
    if _is_array(obj):
        return _encode_array(obj)
    return _encode_data(obj)


def _encode_buffer(obj: bytearray | memoryview) -> Encoded:
    view = memoryview(obj)
    if view.ndim != 1 or view.format != "B" or not view.contiguous:
        view = memoryview(view.tobytes())
    return Encoded(BYTES, 0, [view], view.nbytes)


def _is_array(obj: Any) -> bool:
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        if isinstance(obj, numpy.ndarray):
            return True
        if isinstance(obj, numpy.generic):
            return False
    return hasattr(type(obj), "__array_interface__") or hasattr(type(obj), "__array__")


def _travels_as_list(obj: Sequence[Any], depth: int) -> bool:
    if depth > VALUE_DEPTH:
        return False
    for item in obj:
        if isinstance(item, str | bytes | bytearray | memoryview):
            continue
        if isinstance(item, ListView) or (isinstance(item, list | tuple) and _travels_as_list(item, depth + 1)):
            continue
        if item is not None and not isinstance(item, dict | list | tuple | int | float) and _is_array(item):
            continue
        return False
    return True


def _encode_array(obj: Any) -> Encoded:
    import numpy

    array = numpy.asarray(obj)
    code = array.dtype.str
    if array.dtype.kind not in "biufcSUmM" or array.dtype.itemsize == 0 or len(code) > 16:
        raise ValueRefused(
            f"an array of dtype {array.dtype} cannot travel: use numbers, booleans, dates or fixed-length text"
        )
    if array.ndim > ARRAY_DIMENSIONS:
        raise ValueRefused(f"an array of {array.ndim} dimensions cannot travel: {ARRAY_DIMENSIONS} is the limit")
    if not array.flags.c_contiguous:
        array = numpy.ascontiguousarray(array)
    header = _U32_PAIR.pack(_array_header(array.ndim), array.ndim) + code.encode("ascii").ljust(16, b"\0")
    header += Struct(f"<{array.ndim}Q").pack(*array.shape)
    header = header.ljust(_array_header(array.ndim), b"\0")
    if array.nbytes == 0:
        return Encoded(ARRAY, 0, [header], len(header))
    body = memoryview(array.reshape(-1).view(numpy.uint8))  # type: ignore[arg-type]
    return Encoded(ARRAY, 0, [header, body], len(header) + array.nbytes)


def _array_header(ndim: int) -> int:
    return (_ARRAY_FIXED + 8 * ndim + 63) & ~63


def _list_table(count: int) -> int:
    return 8 + 16 * count + ((count + 7) & ~7)


def _encode_list(items: Sequence[Any], depth: int) -> Encoded:
    if depth > VALUE_DEPTH:
        raise ValueRefused(f"lists nested more than {VALUE_DEPTH} deep cannot travel")
    return join_list([_encode_item(item, depth) for item in items])


def _encode_item(item: Any, depth: int) -> Encoded:
    if isinstance(item, list | tuple) and _travels_as_list(item, depth + 1):
        return _encode_list(item, depth + 1)
    return encode(item)


def join_list(items: Sequence[Encoded]) -> Encoded:
    """The list of values that are encoded already, in this order; their pieces are taken over, not copied."""
    count = len(items)
    at = _list_table(count)
    offsets, sizes = [], []
    pieces: list[Buffer] = []
    for item in items:
        mask = 63 if item.kind in (ARRAY, LIST) else 7
        pad = -at & mask
        if pad:
            pieces.append(_ZEROS[:pad])
            at += pad
        offsets.append(at)
        sizes.append(item.size)
        pieces.extend(item.pieces)
        at += item.size
    kinds = bytes(item.kind for item in items)
    head = Struct(f"<{2 * count + 1}Q").pack(count, *offsets, *sizes) + kinds + _ZEROS[: -count & 7]
    return Encoded(LIST, count, [head, *pieces], at)


def _encode_as(obj: Any, kind: str) -> Encoded:
    if kind in ("data", "int", "float", "bool"):
        return _encode_data(obj.tolist() if isinstance(obj, ListView) else obj)
    if kind == "list":
        if isinstance(obj, ListView):
            return obj.encoded()
        if isinstance(obj, str | bytes | dict) or not hasattr(obj, "__iter__"):
            raise ValueRefused(f"expected a list, got {type(obj).__name__}")
        return _encode_list(list(obj), 1)
    if kind == "array":
        return _encode_array(obj)
    encoded = encode(obj)
    wanted = "text" if kind == "path" else kind
    if wanted in KIND_NAMES and KIND_NAMES[encoded.kind] != wanted:
        raise ValueRefused(f"expected {kind}, got {type(obj).__name__} (which travels as {KIND_NAMES[encoded.kind]})")
    return encoded


# Decoding


def decode(kind: int, buffer: Buffer, *, copy: bool = False) -> Any:
    """The Python object of a payload.

    Without `copy` bytes come as a memoryview, an array as a read-only ndarray and a list as a ListView, all over
    `buffer`, which they keep alive; with `copy` as bytes, an array of its own, and a Python list. Raises ValueDamaged.
    """
    if kind == BYTES:
        return bytes(buffer) if copy else _view(buffer)
    if kind == TEXT:
        return _decode_text(buffer)
    if kind == DATA:
        return _decode_data(buffer)
    if kind == LIST:
        listed = ListView(buffer)
        return listed.tolist() if copy else listed
    if kind == ARRAY:
        array = _decode_array(buffer)
        return array.copy() if copy else array
    if kind == NONE:
        if len(buffer):
            raise ValueDamaged(f"none has no payload, this one has {len(buffer)} bytes")
        return None
    if kind == ERROR:
        return _decode_error(buffer)
    raise ValueDamaged(f"unknown kind of value: {kind}")


def item(payload: Buffer, index: int) -> tuple[int, memoryview]:
    """Kind and payload of item `index` of a list's payload, no copy, constant cost. Raises ValueDamaged, IndexError."""
    view = _view(payload)
    return _item(view, _list_count(view), index)


def list_count(payload: Buffer) -> int:
    """Number of items of a list's payload, bounded by its size. Raises ValueDamaged."""
    return _list_count(_view(payload))


class ListView(Sequence[Any]):
    """A list's items, decoded as they are asked for, over the payload's own memory (kept alive, never copied)."""

    __slots__ = ("_count", "_depth", "_payload")

    def __init__(self, payload: Buffer, depth: int = 1) -> None:
        if depth > VALUE_DEPTH:
            raise ValueDamaged(f"lists are nested more than {VALUE_DEPTH} deep")
        self._payload = _view(payload)
        self._count = _list_count(self._payload)
        self._depth = depth

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._decode(number) for number in range(*index.indices(self._count))]
        number = as_index(index)
        return self._decode(number + self._count if number < 0 else number)

    def __iter__(self) -> Iterator[Any]:
        return map(self._decode, range(self._count))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(_same(mine, theirs) for mine, theirs in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"ListView({self._count} items)"

    def _decode(self, number: int) -> Any:
        kind, payload = self.raw(number)
        return ListView(payload, self._depth + 1) if kind == LIST else decode(kind, payload)

    def raw(self, index: int) -> tuple[int, memoryview]:
        """Kind and payload of one item."""
        return _item(self._payload, self._count, index)

    def encoded(self) -> Encoded:
        """The same list, to be sent on without a copy."""
        return Encoded(LIST, self._count, [self._payload], len(self._payload))

    def tolist(self) -> list[Any]:
        """A Python list of copies: bytes, text, data, arrays, lists."""
        return [self._copied(*self.raw(number)) for number in range(self._count)]

    def _copied(self, kind: int, payload: memoryview) -> Any:
        return ListView(payload, self._depth + 1).tolist() if kind == LIST else decode(kind, payload, copy=True)


def check(kind: int, buffer: Buffer) -> None:
    """Walk a payload whole, nested lists too; raises ValueDamaged if any part of it could not be decoded."""
    if kind != LIST:
        decode(kind, buffer)
        return
    _check_list(_view(buffer), 1)


def _check_list(view: memoryview, depth: int) -> None:
    if depth > VALUE_DEPTH:
        raise ValueDamaged(f"lists are nested more than {VALUE_DEPTH} deep")
    count = _list_count(view)
    for number in range(count):
        kind, payload = _item(view, count, number)
        if kind == LIST:
            _check_list(payload, depth + 1)
        else:
            decode(kind, payload)


def _same(mine: Any, theirs: Any) -> bool:
    equal = mine == theirs
    return equal if isinstance(equal, bool) else bool(equal.all()) and mine.shape == getattr(theirs, "shape", None)


def _view(buffer: Buffer) -> memoryview:
    view = memoryview(buffer)
    return (view if view.format == "B" and view.ndim == 1 else view.cast("B")).toreadonly()


def _list_count(view: memoryview) -> int:
    size = len(view)
    if size < 8:
        raise ValueDamaged(f"a list needs 8 bytes at least, this one has {size}")
    count: int = _U64.unpack_from(view)[0]
    if count > LIST_ITEMS or _list_table(count) > size:
        raise ValueDamaged(f"a list of {count} items does not fit in {size} bytes")
    return count


def _item(view: memoryview, count: int, index: int) -> tuple[int, memoryview]:
    if not 0 <= index < count:
        raise IndexError(f"item {index} of a list of {count}")
    offset: int = _U64.unpack_from(view, 8 + 8 * index)[0]
    size: int = _U64.unpack_from(view, 8 + 8 * (count + index))[0]
    kind = view[8 + 16 * count + index]
    if kind > ERROR:
        raise ValueDamaged(f"item {index} of a list has the unknown kind {kind}")
    if offset & (63 if kind in (ARRAY, LIST) else 7):
        raise ValueDamaged(f"item {index} of a list lies at {offset}, which is not aligned")
    if offset < _list_table(count) or offset + size > len(view):
        raise ValueDamaged(f"item {index} of a list, {size} bytes at {offset}, lies outside its {len(view)} bytes")
    return kind, view[offset : offset + size]


def _decode_text(buffer: Buffer) -> str:
    try:
        return str(buffer, "utf-8")
    except UnicodeDecodeError as error:
        raise ValueDamaged(f"text is not UTF-8 at byte {error.start}") from None


def _decode_data(buffer: Buffer) -> Any:
    try:
        return _DECODER.decode(buffer)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, TypeError) as error:
        raise ValueDamaged(f"data is not msgpack: {error}") from None


def _decode_error(buffer: Buffer) -> ErrorValue:
    try:
        return _ERROR_DECODER.decode(buffer)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ValueDamaged(f"an error's payload is damaged: {error}") from None


def _decode_array(buffer: Buffer) -> Any:
    view = _view(buffer)
    header, ndim, code = _array_head(view)
    import numpy

    try:
        dtype = numpy.dtype(code)
        shape = Struct(f"<{ndim}Q").unpack_from(view, _ARRAY_FIXED)
        if dtype.kind not in "biufcSUmM" or dtype.itemsize == 0 or dtype.str != code:
            raise ValueDamaged(f"an array cannot be of dtype {code!r}")
        if _bytes_of(shape, dtype.itemsize) != len(view) - header:
            raise ValueDamaged(f"an array of shape {shape} and dtype {code} does not have {len(view) - header} bytes")
        array = numpy.ndarray(shape, dtype, view, header)
    except (TypeError, ValueError, OverflowError, MemoryError) as error:
        raise ValueDamaged(f"an array's header is damaged: {error}") from None
    array.flags.writeable = False
    return array


def _array_head(view: memoryview) -> tuple[int, int, str]:
    size = len(view)
    if size < 64:
        raise ValueDamaged(f"an array needs 64 bytes at least, this one has {size}")
    header, ndim = _U32_PAIR.unpack_from(view)
    if ndim > ARRAY_DIMENSIONS or header != _array_header(ndim) or header > size:
        raise ValueDamaged(f"an array's header of {header} bytes for {ndim} dimensions does not fit in {size} bytes")
    if any(view[_ARRAY_FIXED + 8 * ndim : header]):
        raise ValueDamaged("an array's header is not padded with zeros")
    try:
        return header, ndim, bytes(view[8:24]).rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        raise ValueDamaged("an array's dtype is not ASCII") from None


def _bytes_of(shape: tuple[int, ...], itemsize: int) -> int:
    total = itemsize
    for length in shape:
        total *= length
    return total


# Identity


def identify(kind: int, buffer: Buffer) -> str:
    """The content's id, "b3:" and 64 hex digits.

    BLAKE3 of the payload for bytes (equal to `b3sum`), in derive-key mode by kind for the others, so that equal bytes
    of two kinds never share an id; a list hashes its items' digests. Raises ValueDamaged. Cost: one pass.
    """
    return "b3:" + digest(kind, buffer).hex()


def digest(kind: int, buffer: Buffer) -> bytes:
    """The 32 bytes behind `identify`."""
    return _digest(kind, _view(buffer), 1)


def _digest(kind: int, view: memoryview, depth: int) -> bytes:
    from blake3 import blake3

    if kind == BYTES:
        return blake3(view).digest()
    if not 0 <= kind <= ERROR:
        raise ValueDamaged(f"unknown kind of value: {kind}")
    hasher = blake3(derive_key_context=f"symphony value v1 {KIND_NAMES[kind]}")
    if kind != LIST:
        return hasher.update(view).digest()
    if depth > VALUE_DEPTH:
        raise ValueDamaged(f"lists are nested more than {VALUE_DEPTH} deep")
    count = _list_count(view)
    for number in range(count):
        hasher.update(_digest(*_item(view, count, number), depth + 1))
    return hasher.digest()
