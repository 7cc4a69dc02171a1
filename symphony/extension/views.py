"""Inputs without a copy: the engine's memory, read-only, as a handler sees it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from typing import Any

from symphony.model import value
from symphony.model.value import Encoded, ListView


class ArtifactView:
    """A value in the engine's memory. `buffer` is a read-only memoryview of its payload, which it keeps mapped;
    everything else is made from it on demand.

    `kind` is "bytes", "text", "data", "array", "list" or "none"; `len()` its bytes. On Python 3.12 and later it is
    itself a buffer; before, pass `view.buffer` to what wants one.
    """

    __slots__ = ("_kind", "buffer")

    def __init__(self, kind: int, buffer: memoryview):
        self._kind = kind
        self.buffer = buffer

    @property
    def kind(self) -> str:
        return value.KIND_NAMES[self._kind]

    def __len__(self) -> int:
        return len(self.buffer)

    def __bytes__(self) -> bytes:
        return bytes(self.buffer)

    def __buffer__(self, flags: int) -> memoryview:
        return self.buffer

    def __str__(self) -> str:
        return str(self.buffer, "utf-8")

    def __getitem__(self, index: Any) -> Any:
        return self.buffer[index]

    def text(self, errors: str = "strict") -> str:
        """The payload as UTF-8."""
        return str(self.buffer, "utf-8", errors)

    def value(self) -> Any:
        """The value's natural object: bytes copied, an array or list as a view."""
        return natural(self._kind, self.buffer)

    def array(self) -> Any:
        """A read-only NumPy array over the same memory. Raises TypeError if it is no array."""
        if self._kind != value.ARRAY:
            raise TypeError(f"a {self.kind} is not an array")
        return value.decode(self._kind, self.buffer)

    def encoded(self) -> Encoded:
        count = value.list_count(self.buffer) if self._kind == value.LIST else 0
        return Encoded(self._kind, count, [self.buffer], len(self.buffer))

    def __repr__(self) -> str:
        return f"<{self.kind} of {len(self.buffer)} bytes>"


def natural(kind: int, buffer: memoryview) -> Any:
    return bytes(buffer) if kind == value.BYTES else value.decode(kind, buffer)


class Items(ListView):
    """A list whose items lie wherever the engine put them: a batch, or all the outputs of a fanned-out step. Items are
    resolved as they are asked for; nothing is copied before.

    `refs` are (segment, kind, slot, offset, size, first, count) rows; `view` maps (segment, offset, size) to memory.
    """

    __slots__ = ("_ends", "_refs", "_view")

    def __init__(self, refs: list[tuple[int, ...]], view: Callable[[int, int, int], memoryview]):
        self._refs = refs
        self._view = view
        self._depth = 1
        many = any(ref[6] > 1 and ref[1] == value.LIST for ref in refs)
        self._ends = list(accumulate(max(1, ref[6]) if ref[1] == value.LIST else 1 for ref in refs)) if many else None
        self._count = self._ends[-1] if self._ends else len(refs)

    def raw(self, index: int) -> tuple[int, memoryview]:
        if not 0 <= index < self._count:
            raise IndexError(f"item {index} of {self._count}")
        inner = 0
        if self._ends is not None:
            row = bisect_right(self._ends, index)
            inner = index - (self._ends[row - 1] if row else 0)
            index = row
        return resolve(self._refs[index], self._view, inner)

    def encoded(self) -> Encoded:
        rows = [self.raw(number) for number in range(self._count)]
        return value.join_list([ArtifactView(kind, buffer).encoded() for kind, buffer in rows])


View = Callable[[int, int, int], memoryview]


def resolve(ref: tuple[int, ...], view: View, inner: int = 0) -> tuple[int, memoryview]:
    """Kind and payload of a ref's value, or of item `first + inner` of its list if it chooses items."""
    segment, kind, _slot, offset, size, first, count = ref
    if segment == 0:  # an empty value takes no memory, and keeps its kind
        return kind if kind in (value.BYTES, value.TEXT) else value.NONE, memoryview(b"")
    payload = view(segment, offset, size)
    if count == 0 or kind != value.LIST:
        return kind, payload
    return value.item(payload, first + inner)
