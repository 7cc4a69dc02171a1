"""The layout's text, read as a segment carries it: structs with their fields, enums, and words that are packed.

    struct NAME SIZE
      FIELD TYPE OFFSET SIZE COUNT WRITER READER | phrase
    enum NAME
      CONST VALUE

A line that makes no sense is a problem and is left out; what stands around it is still understood. A phrase says more
of a field in fixed forms: `enum sym_x` names its values, `{state 4 | flags 4 | …}` says how its bits are packed (the
topmost first), `{1: live | 0: free}` names values in place, `~0: …` says that all bits set stand for nothing.
"""

import re
import struct
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

PLAIN = {
    "uint8_t": ("B", 1), "uint16_t": ("H", 2), "uint32_t": ("I", 4), "uint64_t": ("Q", 8),
    "int8_t": ("b", 1), "int16_t": ("h", 2), "int32_t": ("i", 4), "int64_t": ("q", 8),
    "u8": ("B", 1), "u16": ("H", 2), "u32": ("I", 4), "u64": ("Q", 8),
}  # fmt: skip
TEXTS = {"name", "type", "instance"}
"""Byte arrays of these names hold zero-padded text; others are shown in hexadecimal digits."""
MAX_BYTES = 1 << 20
"""A struct that claims to be larger is not believed."""
MAX_DEPTH = 4

_PADDING = re.compile(r"pad\d*|reserved")
_PACKED = re.compile(r"\{([^}]*)\}")
_ENUM = re.compile(r"\benum (sym_\w+)")


@dataclass(frozen=True)
class Field:
    """One field of a struct: where it lies, who writes and reads it in which order, and what the header says of it."""

    name: str
    type: str
    offset: int
    size: int
    count: int
    writer: str
    reader: str
    phrase: str

    @property
    def padding(self) -> bool:
        return _PADDING.fullmatch(self.name) is not None

    @property
    def enums(self) -> list[str]:
        return _ENUM.findall(self.phrase)

    @cached_property
    def packed(self) -> list[tuple[str, int]]:
        """(name, bits) of a packed word's parts, the topmost first; empty when it is not packed."""
        found = _PACKED.search(self.phrase)
        parts = [_part(text.strip()) for text in found[1].split("|")] if found else []
        whole = [part for part in parts if part]
        return whole if len(whole) == len(parts) and sum(bits for _, bits in whole) == self.size * 8 else []

    @cached_property
    def values(self) -> dict[int, str]:
        """Names that the phrase itself gives to values: {1: live | 0: free}."""
        found = _PACKED.search(self.phrase)
        pairs = [re.fullmatch(r"(\d+): (\w+)", text.strip()) for text in found[1].split("|")] if found else []
        return {int(pair[1]): pair[2] for pair in pairs if pair}

    @property
    def empty(self) -> int | None:
        """The value that stands for nothing, if there is one."""
        return (1 << self.size * 8) - 1 if re.search(r"~0\b", self.phrase) and self.count == 1 else None


def _part(text: str) -> tuple[str, int] | None:
    named = re.fullmatch(r"([a-z][a-z ]*) (\d+)", text)
    if named:
        return named[1].replace(" ", "_"), int(named[2])
    zero = re.fullmatch(r"(\d+) zero", text)
    return ("zero", int(zero[1])) if zero else None


@dataclass
class Struct:
    name: str
    size: int
    fields: list[Field] = field(default_factory=list)


@dataclass
class Layout:
    """What a layout's text says. `problems`: lines that make no sense."""

    structs: dict[str, Struct] = field(default_factory=dict)
    enums: dict[str, dict[str, int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def names(self, enum: str) -> dict[int, str]:
        """Value -> short lower-case name of an enum; empty when the text does not describe it."""
        members = self.enums.get(enum, {})
        prefix = _common_prefix(list(members))
        return {value: name.removeprefix(prefix).lower() for name, value in members.items()}


def _common_prefix(names: list[str]) -> str:
    if not names:
        return ""
    ends = [match.end() for match in re.finditer("_", names[0])]
    return next((names[0][:end] for end in reversed(ends) if all(n.startswith(names[0][:end]) for n in names)), "")


def parse(text: str) -> Layout:
    """Read a layout's text. Never raises: what is wrong is in `problems`."""
    layout = Layout()
    open_struct: Struct | None = None
    open_enum: dict[str, int] | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split(" | ", 1)[0].rstrip("|").split()
        try:
            if not words:
                continue
            if words[0] == "struct":
                open_struct, open_enum = _open_struct(layout, words), None
            elif words[0] == "enum":
                open_struct, open_enum = None, layout.enums.setdefault(words[1], {})
            elif open_struct is not None:
                open_struct.fields.append(_field(layout, open_struct, words, line))
            elif open_enum is not None:
                open_enum[words[0]] = int(words[1])
        except (ValueError, IndexError) as error:
            layout.problems.append(f"layout, line {number}: {error}")
    return layout


def _open_struct(layout: Layout, words: list[str]) -> Struct:
    size = int(words[2])
    if not 0 < size <= MAX_BYTES:
        raise ValueError(f"a struct of {size} bytes cannot be")
    return layout.structs.setdefault(words[1], Struct(words[1], size))


def _field(layout: Layout, owner: Struct, words: list[str], line: str) -> Field:
    name, kind, offset, size, count, writer, reader = words[:7]
    phrase = line.split(" | ", 1)[1].strip() if " | " in line else ""
    found = Field(name, kind, int(offset), int(size), int(count), writer, reader, phrase)
    item = PLAIN[kind][1] if kind in PLAIN else layout.structs[kind].size if kind in layout.structs else None
    if item is None:
        # A struct inside another may be described further down.
        item = found.size // max(1, found.count)
    fits = found.count >= 1 and found.size == item * found.count and 0 <= found.offset <= owner.size - found.size
    if not fits:
        raise ValueError(f"field {name} of {owner.name} does not fit it")
    if owner.fields and found.offset < owner.fields[-1].offset + owner.fields[-1].size:
        raise ValueError(f"field {name} of {owner.name} overlaps the one before")
    return found


class Decoder:
    """Rows of one type, from bytes to plain values: names of enums, parts of packed words, text, None for nothing."""

    def __init__(self, layout: Layout, kind: str, *, raw: bool = False, padding: bool = False) -> None:
        self.layout, self.kind, self.raw, self.padding = layout, kind, raw, padding
        self.described = kind in PLAIN or kind in layout.structs
        self._plan: list[tuple[Field, Any]] = []
        if kind in layout.structs:
            self.form = self._compile(kind)
        elif kind in PLAIN:
            self.form = struct.Struct("<" + PLAIN[kind][0])

    @property
    def fields(self) -> list[Field]:
        """The fields that rows are decoded into, in order."""
        return [field for field, _ in self._plan]

    def _compile(self, kind: str) -> struct.Struct:
        owner, text, at = self.layout.structs[kind], "<", 0
        for each in owner.fields:
            if each.padding and not self.padding:
                continue
            text += f"{each.offset - at}x" + _form(each)
            self._plan.append((each, self._converter(each)))
            at = each.offset + each.size
        return struct.Struct(text + f"{owner.size - at}x")

    def _converter(self, each: Field) -> Any:
        if each.type in self.layout.structs:
            return self._nested(each)
        if each.count > 1 or each.type not in PLAIN:
            return self._array(each)
        if self.raw:
            return _same
        return self._integer(each)

    def _nested(self, each: Field) -> Any:
        if each.type == self.kind or _depth(self.layout, each.type) > MAX_DEPTH:
            return bytes.hex
        inner = Decoder(self.layout, each.type, raw=self.raw, padding=self.padding)
        size = inner.form.size
        if each.count == 1:
            return lambda data: inner.values(inner.form.unpack(data))
        return lambda data: [inner.values(inner.form.unpack(data[i : i + size])) for i in range(0, len(data), size)]

    def _array(self, each: Field) -> Any:
        if each.type not in PLAIN:
            return bytes.hex
        if each.type == "uint8_t":
            return _text if each.name in TEXTS else _digits
        form = struct.Struct(f"<{each.count}{PLAIN[each.type][0]}")
        return lambda data: list(form.unpack(data))

    def _integer(self, each: Field) -> Any:
        if each.packed:
            return self._word(each)
        named = each.values or (self.layout.names(each.enums[0]) if each.enums else {})
        if named and each.enums and each.enums[0].endswith("_flag"):
            return lambda value: _flags(value, named)
        if named:
            return lambda value: _named(value, named, each.empty)
        if each.empty is not None:
            return lambda value: None if value == each.empty else value
        return _same

    def _word(self, each: Field) -> Any:
        parts, shift = [], each.size * 8
        for name, bits in each.packed:
            shift -= bits
            enum = next((e for e in each.enums if e.endswith("_" + name) or e.endswith("_" + name.rstrip("s"))), "")
            parts.append((name, shift, (1 << bits) - 1, self.layout.names(enum), enum.endswith("_flag")))

        def unpack(value: int) -> dict[str, Any]:
            found: dict[str, Any] = {}
            for name, low, mask, named, flags in parts:
                part = value >> low & mask
                if name == "zero" and part == 0:
                    continue
                found[name] = _flags(part, named) if flags else _named(part, named, None) if named else part
            return found

        return unpack

    def values(self, numbers: tuple[Any, ...]) -> dict[str, Any]:
        """One row's fields by name."""
        return {each.name: convert(number) for (each, convert), number in zip(self._plan, numbers, strict=True)}


def _form(each: Field) -> str:
    return f"{each.size}s" if each.count > 1 or each.type not in PLAIN else PLAIN[each.type][0]


def _depth(layout: Layout, kind: str, seen: int = 0) -> int:
    if seen > MAX_DEPTH:
        return seen
    inner = [f.type for f in layout.structs[kind].fields if f.type in layout.structs]
    return max((_depth(layout, each, seen + 1) for each in inner), default=seen)


def _same(value: Any) -> Any:
    return value


def _text(data: bytes) -> str:
    return data.split(b"\0", 1)[0].decode(errors="replace")


def _digits(data: bytes) -> str | None:
    return data.hex() if any(data) else None


def _named(value: int, named: dict[int, str], empty: int | None) -> str | int | None:
    return named.get(value, None if value == empty else f"unknown {value}")


def _flags(value: int, named: dict[int, str]) -> list[str]:
    found = [name for bit, name in sorted(named.items()) if bit and value & bit == bit]
    rest = value & ~sum(bit for bit in named if bit)
    return found + ([f"unknown {rest}"] if rest else [])
