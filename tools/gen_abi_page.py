"""Writes docs/abi.md, the reference page of the memory ABI, from shm/layout.txt; with --check says whether it is out of
date. Needs no build: the listing is the committed witness of the headers (tools/gen_layout.py)."""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LISTING = ROOT / "shm" / "layout.txt"
PAGE = ROOT / "docs" / "abi.md"

HEAD = """# The memory ABI

Every struct and constant that lies in shared memory, with offsets in bytes. Made from `shm/layout.txt` by
`tools/gen_abi_page.py`; the headers `shm/*.h` are the source, and `docs/memory.md` says how the words are used.

*Writer* and *reader* are who may touch the field and by which operation: `loop:cas` is the loop by compare-and-swap,
`any:acquire` anybody by a load with acquire. Without an operation the field is plain memory, published by a word that
is written after it. `once`: the reader copies it into private memory once and checks the copy. `rmw` and `exchange`
are sequentially consistent read-modify-writes.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 if the page is out of date")
    check = parser.parse_args().check
    text = page(LISTING.read_text(encoding="utf-8"))
    if not check:
        PAGE.write_text(text, encoding="utf-8")
        return 0
    if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
        return 0
    print("docs/abi.md is not what shm/layout.txt says: run tools/gen_abi_page.py", file=sys.stderr)
    return 1


def page(listing: str) -> str:
    """The whole page: structs in the listing's order, then enums."""
    structs, enums = [], []
    for block in blocks(listing):
        head, *rest = block
        kind, name, *size = head.split()
        if kind == "struct":
            structs += struct(name, size[0], rest)
        else:
            enums += enum(name, rest)
    return "\n".join([HEAD, "## Structs", "", *structs, "## Constants", "", *enums]).rstrip() + "\n"


def blocks(listing: str) -> list[list[str]]:
    found: list[list[str]] = []
    for line in listing.splitlines():
        if line.startswith(("struct ", "enum ")):
            found.append([])
        if line.strip():
            found[-1].append(line)
    return found


def struct(name: str, size: str, lines: list[str]) -> list[str]:
    rows = [
        f"### {name}",
        "",
        f"{size} bytes.",
        "",
        "| offset | field | type | writer | reader | |",
        "|---:|---|---|---|---|---|",
    ]
    for line in lines:
        words, _, phrase = line.strip().partition(" |")
        field, kind, offset, _, count, writer, reader = words.split()
        if field.startswith("pad"):
            continue
        shape = f"{kind}[{count}]" if int(count) > 1 else kind
        rows.append(
            f"| {offset} | `{field}` | {shape} | {writer} | {reader} | {phrase.strip().replace('|', chr(92) + '|')} |"
        )
    return [*rows, ""]


def enum(name: str, lines: list[str]) -> list[str]:
    title = name if name != "-" else "Without a name"
    values = [f"| `{constant}` | {value} |" for constant, value in (line.split()[:2] for line in lines)]
    return [f"### {title}", "", "| constant | value |", "|---|---:|", *values, ""]


if __name__ == "__main__":
    sys.exit(main())
