"""Where in a TOML text a key or a value stands: `tomllib` gives no positions, and an error needs one.

The scanner reads what `tomllib` has accepted; on a text that it refused it goes as far as it can, which finds the
first place of a key that stands twice.
"""

import re
import tomllib
from contextlib import suppress
from typing import NamedTuple

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
_EMPTY = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SCALAR = re.compile(r"[^,\]}\r\n#]*")
_STRINGS = (
    re.compile(r'"""(?:[^\\]|\\.)*?"{3,5}', re.S),
    re.compile(r"'''.*?'{3,5}", re.S),
    re.compile(r'"(?:[^"\\\n]|\\.)*"'),
    re.compile(r"'[^'\n]*'"),
)


class Place(NamedTuple):
    """Line and column, both counted from 1."""

    line: int
    column: int


class Places:
    """Places of the keys and values of one document, by path: ("steps", "walk", "with", "path")."""

    def __init__(self) -> None:
        self.keys: dict[Path, Place] = {}
        self.values: dict[Path, Place] = {}
        self.twice: list[tuple[Path, Place, Place]] = []

    def key(self, path: Path) -> Place | None:
        """Where the key at `path` stands; its nearest known parent's place if it has none of its own."""
        return self._nearest(self.keys, path)

    def value(self, path: Path) -> Place | None:
        """Where the value at `path` stands."""
        return self.values.get(path) or self._nearest(self.keys, path)

    @staticmethod
    def _nearest(table: dict[Path, Place], path: Path) -> Place | None:
        for length in range(len(path), 0, -1):
            if path[:length] in table:
                return table[path[:length]]
        return None


class _Stop(Exception):
    """The text is not TOML from here on."""


def scan(text: str) -> Places:
    """The places of a TOML text; never raises. Cost: linear in its length."""
    scanner = _Scanner(text)
    with suppress(_Stop, RecursionError):
        scanner.document()
    return scanner.places


class _Scanner:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.places = Places()
        self.lists: dict[Path, int] = {}
        self.starts = [0, *(found.end() for found in re.finditer("\n", text))]

    def place(self, at: int) -> Place:
        from bisect import bisect_right

        line = bisect_right(self.starts, at)
        return Place(line, at - self.starts[line - 1] + 1)

    def document(self) -> None:
        table: Path = ()
        while self.skip(_EMPTY) < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)

    def skip(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self.text, self.at)
        if found:
            self.at = found.end()
        return self.at

    def take(self, word: str) -> bool:
        if not self.text.startswith(word, self.at):
            return False
        self.at += len(word)
        return True

    def expect(self, word: str) -> None:
        if not self.take(word):
            raise _Stop

    def header(self) -> Path:
        self.expect("[")
        many = self.take("[")
        self.skip(_BLANK)
        names = self.names()
        path, start = self.resolve(names), names[-1][1]
        self.expect("]]" if many else "]")
        if many:
            number = self.lists.get(path, 0)
            self.lists[path] = number + 1
            self.places.keys.setdefault(path, self.place(start))
            path = (*path, number)
        self.define(path, start)
        self.places.values.setdefault(path, self.place(start))
        return path

    def resolve(self, names: list[tuple[str, int]]) -> Path:
        """A header's path: below an array of tables it means the last of them."""
        path: Path = ()
        for name, at in names:
            path = (*path, name)
            if (name, at) != names[-1]:
                self.places.keys.setdefault(path, self.place(at))
                if path in self.lists:
                    path = (*path, self.lists[path] - 1)
        return path

    def define(self, path: Path, at: int) -> None:
        """A key or table that may stand once only. A parent that a longer path implied is no duplicate."""
        place = self.place(at)
        if path in self.places.values:
            self.places.twice.append((path, self.places.keys.get(path, place), place))
        else:
            self.places.keys[path] = place

    def names(self) -> list[tuple[str, int]]:
        """A dotted key's parts, each with its offset."""
        parts = [self.name()]
        while True:
            self.skip(_BLANK)
            if not self.take("."):
                return parts
            self.skip(_BLANK)
            parts.append(self.name())

    def name(self) -> tuple[str, int]:
        start = self.at
        if self.text[start : start + 1] in ('"', "'"):
            raw = self.string()
            try:
                return str(tomllib.loads(f"x = {raw}")["x"]), start
            except tomllib.TOMLDecodeError:
                raise _Stop from None
        if self.skip(_BARE) == start:
            raise _Stop
        return self.text[start : self.at], start

    def pair(self, table: Path) -> None:
        path = table
        names = self.names()
        for name, at in names[:-1]:
            path = (*path, name)
            self.places.keys.setdefault(path, self.place(at))
        path = (*path, names[-1][0])
        self.define(path, names[-1][1])
        self.expect("=")
        self.skip(_BLANK)
        self.value(path)

    def value(self, path: Path) -> None:
        self.places.values.setdefault(path, self.place(self.at))
        mark = self.text[self.at : self.at + 1]
        if mark in ('"', "'"):
            self.string()
        elif mark == "[":
            self.array(path)
        elif mark == "{":
            self.inline(path)
        elif not mark or self.skip(_SCALAR) < 0:
            raise _Stop

    def string(self) -> str:
        for pattern in _STRINGS:
            found = pattern.match(self.text, self.at)
            if found:
                self.at = found.end()
                return found.group()
        raise _Stop

    def array(self, path: Path) -> None:
        self.expect("[")
        number = 0
        while True:
            self.skip(_EMPTY)
            if self.take("]"):
                return
            self.value((*path, number))
            number += 1
            self.skip(_EMPTY)
            if not self.take(","):
                self.expect("]")
                return

    def inline(self, path: Path) -> None:
        self.expect("{")
        self.skip(_BLANK)
        while not self.take("}"):
            self.pair(path)
            self.skip(_BLANK)
            if not self.take(","):
                self.expect("}")
                return
            self.skip(_BLANK)
