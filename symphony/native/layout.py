"""The memory ABI as Python sees it: constants, names of states, NumPy dtypes, the layout's text and its fingerprint.

Everything comes from the one source, `shm/*.h`: numbers by introspection of the built module, writers and phrases from
the comments, which stand in the committed listing `shm/layout.txt`. The listing is what a segment carries to describe
itself. NumPy is imported by `dtype()` alone, so that tools that print text stay light.
"""

import hashlib
import re
from functools import cache
from pathlib import Path

from symphony.native import ffi

MAGIC = int.from_bytes(b"SYMPHONY", "little")
"""First word of every whole segment."""


@cache
def layout_text() -> str:
    """The committed listing of every struct and enum (form: `tools/gen_layout.py`)."""
    package = Path(__file__).resolve().parents[1]
    installed, in_source_tree = package / "shm" / "layout.txt", package.parent / "shm" / "layout.txt"
    return (installed if installed.exists() else in_source_tree).read_text(encoding="utf-8")


def fingerprint_of(text: str) -> int:
    """Hash of a listing without its phrases, as u64: rewording a comment does not make old segments strangers."""
    bare = "\n".join(line.split(" |")[0] for line in text.splitlines())
    return int.from_bytes(hashlib.blake2b(bare.encode(), digest_size=8).digest(), "little")


FINGERPRINT: int = fingerprint_of(layout_text())
"""What a segment's stamp must carry for this build to attach to it."""


@cache
def _enums() -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    current: dict[str, int] | None = None
    for line in layout_text().splitlines():
        words = line.split()
        if words[:1] == ["enum"]:
            current = found.setdefault(words[1], {})
        elif words[:1] == ["struct"]:
            current = None
        elif current is not None and len(words) == 2:
            current[words[0]] = int(words[1])
    return found


@cache
def _constants() -> dict[str, int]:
    return {name: value for members in _enums().values() for name, value in members.items()}


@cache
def names(enum: str) -> dict[int, str]:
    """Value -> short lower-case name of an enum of the ABI: `names("sym_node_state")[3] == "done"`.

    KeyError names an enum that does not exist."""
    members = _enums()[enum]
    prefix = _common_prefix(enum, members)
    return {value: name.removeprefix(prefix).lower() for name, value in members.items()}


def _common_prefix(enum: str, members: dict[str, int]) -> str:
    """Longest run of whole words, up to an underscore, that all members share: SYM_NODE_, SYM_SEGMENT_."""
    first = min(members)
    ends = [match.end() for match in re.finditer("_", first)]
    return next((first[:end] for end in reversed(ends) if all(m.startswith(first[:end]) for m in members)), "")


@cache
def structs() -> tuple[str, ...]:
    """Names of the ABI's structs, in the listing's order."""
    return tuple(line.split()[1] for line in layout_text().splitlines() if line.startswith("struct "))


def size_of(struct: str) -> int:
    """Bytes of a struct of the ABI or of `csrc`."""
    return ffi.sizeof(struct)


@cache
def dtype(struct: str):
    """NumPy dtype of a struct of the ABI or of `csrc`, by introspection: same offsets, same size; pointers as u8.

    KeyError names a struct that does not exist."""
    try:
        ctype = ffi.typeof(struct)
    except ffi.error as error:
        raise KeyError(f"no struct {struct!r} in the memory ABI") from error
    return _dtype_of(ctype)


def _dtype_of(ctype):
    import numpy as np

    if ctype.kind == "primitive":
        return np.dtype(_primitive(ctype))
    if ctype.kind == "pointer":
        return np.dtype(np.uint64)
    if ctype.kind == "array":
        return np.dtype((_dtype_of(ctype.item), (ctype.length,)))
    fields = [(name, field) for name, field in ctype.fields]
    return np.dtype(
        {
            "names": [name for name, _ in fields],
            "formats": [_dtype_of(field.type) for _, field in fields],
            "offsets": [field.offset for _, field in fields],
            "itemsize": ffi.sizeof(ctype),
        }
    )


def _primitive(ctype) -> str:
    match = re.fullmatch(r"(u?)int(\d+)_t", ctype.cname)
    if match is None:
        raise TypeError(f"{ctype.cname} has no place in the memory ABI: fixed-width integers only")
    return f"<{'u' if match[1] else 'i'}{int(match[2]) // 8}"


class _Constants(dict):
    """name -> value, also as attributes: `constants.SYM_NODE_DONE`."""

    def __getattr__(self, name: str) -> int:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no constant {name} in the memory ABI") from None


constants = _Constants(_constants())
