"""git's ignore patterns, one line at a time, for one file or folder at a time.

Libraries for them answer another question: whether a path lies under something ignored. A walk asks whether this entry
itself is named, as git does; the two differ where a negation names a folder above. A test holds these against git.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

_CLASSES = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "blank": " \\t", "cntrl": "\\x00-\\x1f\\x7f", "digit": "0-9",
    "graph": "!-~", "lower": "a-z", "print": " -~", "punct": "!-/:-@\\[-`{-~", "space": " \\t-\\r", "upper": "A-Z",
    "xdigit": "0-9A-Fa-f",
}  # fmt: skip
_SPECIAL = re.compile(r"[*?\[\\]")


class Pattern(NamedTuple):
    """One line: whether it hides (or, with "!", shows again), and what it fits."""

    hides: bool
    folders_only: bool
    by_name: bool  # else by path from the folder that the line was stated for
    fits: Callable[[str], object]


def parse(line: str) -> Pattern | None:
    """The pattern of one line without its line end; None for a blank line, a comment, or what can fit nothing."""
    if line.startswith("#"):
        return None
    line = _without_trailing_spaces(line)
    hides = not line.startswith("!")
    text = line if hides else line[1:]
    folders_only = text.endswith("/")
    text = text[:-1] if folders_only else text
    by_name = "/" not in text
    source = _regex(text.removeprefix("/"))
    return Pattern(hides, folders_only, by_name, re.compile(source, re.DOTALL).fullmatch) if source else None


def _without_trailing_spaces(line: str) -> str:
    kept = line.rstrip(" ")
    if kept == line:
        return line
    slashes = len(kept) - len(kept.rstrip("\\"))
    return kept + " " if slashes % 2 else kept  # a space after a backslash was meant


def _regex(text: str) -> str | None:
    """A regular expression for a whole name or path; None if the pattern is damaged and so fits nothing."""
    special = _SPECIAL.search(text)
    start = special.start() if special else len(text)
    out, at = [re.escape(text[:start])], start
    while at < len(text):
        char = text[at]
        if char == "*":
            piece, at = _stars(text, at, start)
        elif char == "[":
            piece, at = _bracket(text, at + 1)
        elif char == "\\":
            piece, at = re.escape(text[at + 1 : at + 2]), at + 2
        else:
            piece, at = "[^/]" if char == "?" else re.escape(char), at + 1
        if not piece:
            return None
        out.append(piece)
    return "".join(out)


def _stars(text: str, at: int, start: int) -> tuple[str, int]:
    end = at
    while text.startswith("*", end):
        end += 1
    # Two stars cross folders if they stand for whole ones. Of the plain text before the first star git takes no notice.
    whole = at == start or text[at - 1] == "/"
    if end - at < 2 or not whole or not (end == len(text) or text.startswith(("/", "\\/"), end)):
        return "[^/]*", end
    return ("(?:.*/)?", end + 1) if text.startswith("/", end) else (".*", end)


def _bracket(text: str, at: int) -> tuple[str, int]:
    """The set that begins after the bracket before `at`, and where it ends; "" if it does not end."""
    negated = text.startswith(("!", "^"), at)
    at += negated
    members: list[str] = []
    previous, first = "", True
    while first or not text.startswith("]", at):
        first = False
        named = re.compile(r"\[:([^\]]*):\]").match(text, at)
        if named:
            if named[1] not in _CLASSES:
                return "", at
            members.append(_CLASSES[named[1]])
            previous, at = "", named.end()
        elif previous and text.startswith("-", at) and text[at + 1 : at + 2] not in ("", "]"):
            last, at = _member(text, at + 1)
            if previous <= last:
                members.append(f"{re.escape(previous)}-{re.escape(last)}")
            previous = ""
        else:
            previous, at = _member(text, at)
            members.append(re.escape(previous))
        if at > len(text) or (at == len(text) and not text.endswith("]")):
            return "", at
    if not members:
        return ("[^/]" if negated else "(?!)"), at + 1
    return f"(?!/)[{'^' * negated}{''.join(members)}]", at + 1


def _member(text: str, at: int) -> tuple[str, int]:
    at += text.startswith("\\", at)
    return text[at : at + 1], at + 1
