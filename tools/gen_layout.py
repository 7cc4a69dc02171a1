"""Writes shm/layout.txt, the committed listing of the memory ABI, or with --check says whether it is out of date.

The numbers come from the built module, writers and phrases from the trailing comments of shm/*.h:

    struct NAME SIZE
      FIELD TYPE OFFSET SIZE COUNT WRITER READER | phrase
    enum NAME
      CONST VALUE

WRITER and READER are as in the comment (`loop:cas`, `any:acquire`); `-` where a field is padding or reserved.
"""

import argparse
import difflib
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from symphony.native import ffi, lib  # noqa: E402  (not .layout, which needs the listing)

LISTING = ROOT / "shm" / "layout.txt"
HEADERS = ("types", "stamp", "ring", "channel", "owner", "pool", "dag", "artifact", "arbiter", "counter")
FIELD = re.compile(r"\s+(\w+) (\w+)(?:\[(\w+)\])?;\s*(?:/\* w:(\S+) r:(\S+) \| ?(.*?) ?\*/)?\s*$")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 and show the difference")
    arguments = parser.parse_args()
    text = listing()
    if not arguments.check:
        LISTING.write_text(text, encoding="utf-8")
        return 0
    committed = LISTING.read_text(encoding="utf-8") if LISTING.exists() else ""
    difference = difflib.unified_diff(
        committed.splitlines(), text.splitlines(), "shm/layout.txt", "headers", lineterm=""
    )
    lines = list(difference)
    print("\n".join(lines), file=sys.stderr, end="\n" if lines else "")
    return 1 if lines else 0


def listing() -> str:
    blocks = [
        block for name in HEADERS for block in blocks_of((ROOT / "shm" / f"{name}.h").read_text(encoding="utf-8"))
    ]
    return "\n".join(line for block in blocks for line in block) + "\n"


def blocks_of(header: str) -> list[list[str]]:
    """Each enum and struct of a header, in its order, as lines of the listing."""
    bare = "\n".join(line for line in header.splitlines() if not line.startswith("#"))
    pattern = re.compile(r"typedef struct \{\n(.*?)\n\} (\w+);|enum ?(\w*) \{(.*?)\};", re.S)
    found = []
    for match in pattern.finditer(bare):
        body, struct, enum, members = match.groups()
        found.append(struct_lines(struct, body) if struct else enum_lines(enum or "-", members))
    return found


def struct_lines(struct: str, body: str) -> list[str]:
    ctype = ffi.typeof(struct)
    fields = dict(ctype.fields)
    comments = dict(parse_field(struct, line) for line in body.splitlines())
    if list(fields) != list(comments):
        raise SystemExit(f"{struct}: cffi sees {list(fields)}, its text says {list(comments)}")
    lines = [f"struct {struct} {ffi.sizeof(ctype)}"]
    for name, field in fields.items():
        array = field.type.kind == "array"
        item, count = (field.type.item, field.type.length) if array else (field.type, 1)
        writer, reader, phrase = comments[name]
        size = ffi.sizeof(field.type)
        line = f"  {name} {item.cname} {field.offset} {size} {count} {writer} {reader} | {phrase}"
        lines.append(line.rstrip())
    return lines


def parse_field(struct: str, line: str) -> tuple[str, tuple[str, str, str]]:
    match = FIELD.match(line)
    if match is None:
        raise SystemExit(
            f"{struct}: not of the fixed form `type name; /* w:WRITER r:READER | phrase */`: {line.strip()}"
        )
    _, name, _, writer, reader, phrase = match.groups()
    return name, (writer or "-", reader or "-", phrase or "")


def enum_lines(enum: str, members: str) -> list[str]:
    without_comments = re.sub(r"/\*.*?\*/", "", members, flags=re.S)
    names = re.findall(r"(\w+) *=", without_comments)
    return [f"enum {enum}"] + [f"  {name} {getattr(lib, name)}" for name in names]


if __name__ == "__main__":
    sys.exit(main())
