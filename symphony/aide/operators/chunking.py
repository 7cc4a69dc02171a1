"""Cuts text into passages of a readable size at places where a reader would pause, and keeps their line numbers."""

from __future__ import annotations

import json
import os
import re
import stat
from typing import NamedTuple

SIZE = 800
OVERLAP = 120
LIMIT_BYTES = 1 << 20

# A line that opens something new: a definition, a decorator, a heading, a table of a TOML file, a comment block.
_OPENS = re.compile(
    r"(?: {0,4}|\t)(?:(?:async def|def|class|fn|pub|impl|func|function|struct|enum|typedef|static|export)\b|@)"
    r"|#{1,6} |\[\w|/\*|//"
)
# How good a place to cut before a line is; a cut in the middle of a block repeats some lines.
_ANYWHERE, _AFTER_BLANK, _OPENING, _TOP = 1, 2, 3, 4


class Chunk(NamedTuple):
    """Lines first_line to last_line (counted from 1, both included) of a file, or a piece of one very long line."""

    first_line: int
    last_line: int
    text: str


def cut(text: str, size: int = SIZE, overlap: int = OVERLAP) -> list[Chunk]:
    """Cut `text` into chunks of about `size` characters (at most 5/4 of it, but for a line's end).

    Lines end at "\\n" alone, as editors count them. Every line that is not blank is in a chunk; a chunk's text is
    exactly its lines without a last line end, and neither begins nor ends with a blank line. Cuts are made before
    definitions and headings or after blank lines where there are any; elsewhere the next chunk repeats up to `overlap`
    characters of whole lines. A line longer than a chunk may be is cut into pieces of `size`.
    Cost: about 0.2 ms for 20 KB. Raises `ValueError`.
    """
    if size < 1 or overlap < 0 or overlap * 2 > size:
        raise ValueError(f"chunk: size is {size} and overlap {overlap}: size is at least 1, overlap at most half of it")
    lines = text.split("\n")
    lengths = [len(line) + 1 for line in lines]
    blank = [not line or line.isspace() for line in lines]
    chunks: list[Chunk] = []
    start, count, most = 0, len(lines), size + size // 4
    while start < count:
        if blank[start]:
            start += 1
        elif lengths[start] > most:
            chunks.extend(_pieces(lines[start], start + 1, size))
            start += 1
        else:
            end, strength = _end(lines, lengths, blank, start, size)
            chunks.append(_chunk(lines, blank, start, end))
            start = end if strength > _ANYWHERE else _repeat(lengths, start, end, overlap)
    return chunks


def _end(lines: list[str], lengths: list[int], blank: list[bool], start: int, size: int) -> tuple[int, int]:
    """The line to cut before, and how good a place it is. The second half of the allowed size is searched."""
    total, end, count = lengths[start], start + 1, len(lines)
    best, strength, enough, most = end, _ANYWHERE, size // 2, size + size // 4
    while end < count and total + lengths[end] <= most:
        if enough <= total <= size:
            here = _strength(lines[end], blank[end - 1])
            if here >= strength:
                best, strength = end, here
        elif total < enough:
            best = end
        total += lengths[end]
        end += 1
    if end == count:  # what is left fits whole: no crumb is left behind
        return end, _TOP
    return best, strength


def _strength(line: str, after_blank: bool) -> int:
    if not after_blank:
        return _OPENING if line.startswith(("def ", "class ", "# ", "## ")) else _ANYWHERE
    if not _OPENS.match(line):
        return _AFTER_BLANK
    return _OPENING if line[0] in " \t" else _TOP


def _repeat(lengths: list[int], start: int, end: int, overlap: int) -> int:
    """Where the next chunk begins so that up to `overlap` characters before `end` are in both."""
    begin, left = end, overlap
    while begin - 1 > start and lengths[begin - 1] <= left:
        begin -= 1
        left -= lengths[begin]
    return begin


def _chunk(lines: list[str], blank: list[bool], start: int, end: int) -> Chunk:
    while blank[end - 1]:
        end -= 1
    return Chunk(start + 1, end, "\n".join(lines[start:end]))


def _pieces(line: str, number: int, size: int) -> list[Chunk]:
    pieces = (line[at : at + size] for at in range(0, len(line), size))
    return [Chunk(number, number, piece) for piece in pieces if not piece.isspace()]


# A passage: one text that says in its first line where it stands ("src/ring.py:10-42"), then the chunk.
# One text travels as it is, and a fan-out may hand it on without opening it.


def passage(file: str, chunk: Chunk) -> str:
    return f"{label(file)}:{chunk.first_line}-{chunk.last_line}\n{chunk.text}"


def label(file: str) -> str:
    """A file's name for a passage's first line: as it is, or as JSON if it holds a line end or starts with a quote."""
    return json.dumps(file) if "\n" in file or file.startswith('"') else file


def split_passage(text: str) -> tuple[str, Chunk]:
    """(file, chunk) of a passage. Raises `ValueError` if its first line is not FILE:FIRST-LAST."""
    head, newline, body = text.partition("\n")
    file, colon, lines = head.rpartition(":")
    first, dash, last = lines.partition("-")
    if not (newline and colon and dash and first.isdecimal() and last.isdecimal()):
        raise ValueError(
            f"search: a passage begins with {head[:80]!r} instead of FILE:FIRST-LAST: pass what chunk returned"
        )
    return (json.loads(file) if file.startswith('"') else file), Chunk(int(first), int(last), body)


def chunk_file(
    file: str,
    root: str = "",
    size: int = SIZE,
    overlap: int = OVERLAP,
    limit_bytes: int = LIMIT_BYTES,
    missing: str = "error",
) -> list[str]:
    """Passages of one text file, named relative to `root` if it lies below it.

    Bytes that are not UTF-8 become U+FFFD, one for one wrong sequence, so lines keep their numbers.
    missing="skip" gives no passages for a file that is gone or has become unreadable, binary or too large since it was
    listed; "error" raises `OSError` or `ValueError`.
    """
    if missing not in ("error", "skip"):
        raise ValueError(f'chunk: missing is {missing!r}: give "error" or "skip"')
    try:
        text = _read(file, limit_bytes)
    except (OSError, ValueError):
        if missing == "skip":
            return []
        raise
    name = relative(file, root)
    return [passage(name, chunk) for chunk in cut(text, size, overlap)]


def relative(file: str, root: str) -> str:
    top = os.path.abspath(os.path.expanduser(root)).rstrip("/") + "/" if root else ""
    return file[len(top) :] if top and file.startswith(top) else file


def _open(file: str, flags: int) -> int:
    return os.open(file, flags | os.O_NONBLOCK)  # a fifo must not hold the player


def _read(file: str, limit_bytes: int) -> str:
    with open(file, "rb", opener=_open) as opened:
        if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            raise ValueError(f"chunk: {file} is not a plain file: pass text files, such as walk lists")
        raw = opened.read(limit_bytes + 1)
    if len(raw) > limit_bytes:
        raise ValueError(f"chunk: {file} is larger than limit_bytes = {limit_bytes}: raise the limit or leave it out")
    if b"\0" in raw[:8000]:
        raise ValueError(f"chunk: {file} is binary (it holds NUL bytes): pass text files, such as walk lists")
    return raw.decode("utf-8", errors="replace")
