"""Lists the text files under a folder, and says what it left out and why: a silent gap would look like an answer."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

from .ignoring import ALWAYS, Rules, is_ignored, rules_above, rules_of
from .patterns import Pattern, parse
from .reading import LIMIT_BYTES, look

EXAMPLES = 3


class Walk:
    """One walk: what was found, and what was skipped. Used by one thread."""

    def __init__(self, root: str, include: list[Pattern], limit_bytes: int) -> None:
        self.root = root
        self.include = include
        self.limit_bytes = limit_bytes
        self.files: list[str] = []
        self.size_bytes = 0
        self.folders = 0
        self.skipped: Counter[str] = Counter()
        self.examples: dict[str, list[str]] = {}

    def skip(self, reason: str, path: str) -> None:
        self.skipped[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < EXAMPLES:
            examples.append(path.encode("utf-8", "backslashreplace").decode())

    def folder(self, path: str, rules: Rules) -> list[tuple[str, bool, Rules]]:
        """Enter a folder: its entries that may be of use as (path, is folder, rules), last name first."""
        try:
            with os.scandir(path) as entries:
                found = sorted(entries, key=lambda entry: entry.name, reverse=True)
        except OSError:
            self.skip("unreadable", path)
            return []
        self.folders += 1
        if any(entry.name == ".gitignore" for entry in found):
            rules = rules_of(os.path.join(path, ".gitignore"), path) + rules
        return [(entry.path, is_folder, rules) for entry in found for is_folder in self._entry(entry, rules)]

    def _entry(self, entry: os.DirEntry[str], rules: Rules) -> tuple[bool, ...]:
        """(True,) for a folder to enter, (False,) for a file to look at, () for what is skipped."""
        try:
            is_link, is_folder = entry.is_symlink(), entry.is_dir(follow_symlinks=False)
        except OSError:
            self.skip("unreadable", entry.path)
            return ()
        if entry.name in ALWAYS:
            self.skip("always skipped", entry.path)
        elif is_ignored(rules, entry.path, is_folder):
            self.skip("ignored", entry.path)
        elif is_link:
            self.skip("link", entry.path)
        else:
            return (is_folder,)
        return ()

    def file(self, path: str, *, follow: bool = False) -> None:
        if self.include and not is_included(self.include, os.path.relpath(path, self.root)):
            self.skip("not included", path)
            return
        try:
            path.encode("utf-8")
        except UnicodeEncodeError:
            self.skip("name is not UTF-8", path)
            return
        reason, size = look(path, self.limit_bytes, follow=follow)
        if reason:
            self.skip(reason, path)
            return
        self.files.append(path)
        self.size_bytes += size

    def summary(self) -> dict:
        skipped = {reason: self.skipped[reason] for reason in sorted(self.skipped)}
        return {
            "root": self.root,
            "files": len(self.files),
            "size_bytes": self.size_bytes,
            "folders": self.folders,
            "skipped": skipped,
            "examples": {reason: self.examples[reason] for reason in skipped},
        }


def included(include: str | Iterable[str]) -> list[Pattern]:
    """Compile `include`: suffixes (".py") and patterns ("docs/**/*.md", "docs/"), as a list or one text with commas."""
    wanted = include.split(",") if isinstance(include, str) else [str(one) for one in include]
    compiled = []
    for one in filter(None, map(str.strip, wanted)):
        is_suffix = one.startswith(".") and not set(one) & set("*?[/")
        pattern = parse(f"*{one}" if is_suffix else one)
        if pattern is None or not pattern.hides:
            raise ValueError(
                f"walk: include holds {one!r}: give suffixes (.py) or patterns of names and paths (docs/*.md)"
            )
        compiled.append(pattern)
    return compiled


def is_included(include: list[Pattern], path: str) -> bool:
    """Whether a pattern fits the file at `path` (relative to the root) or a folder that it lies in."""
    parts = path.split("/")
    for count in range(len(parts), 0, -1):
        below, is_folder = "/".join(parts[:count]), count < len(parts)
        for pattern in include:
            if (is_folder or not pattern.folders_only) and pattern.fits(parts[count - 1] if pattern.by_name else below):
                return True
    return False


def walk(path: str, include: str | Iterable[str] = (), limit_bytes: int = LIMIT_BYTES) -> dict:
    """List the text files under `path`: {"files": absolute paths in the order of their names, "summary": data}.

    `.gitignore` files are honoured, those above `path` too up to the top of its repository; `.git`, `.venv`,
    `__pycache__`, `node_modules` and `.hypothesis` are never entered; links are not followed, so a loop cannot trap it.
    Binary files and files above `limit_bytes` are skipped. The summary counts what was skipped by reason, with up to
    three examples of each. `path` may also be one file. Cost: about 20 us a file.

    Raises `FileNotFoundError`, `PermissionError` or `NotADirectoryError` if `path` itself cannot be walked,
    `ValueError` if an argument is out of range.
    """
    if not path or "\0" in path:
        raise ValueError(f"walk: path is {path!r}: give a folder or a file")
    if limit_bytes < 1:
        raise ValueError(f"walk: limit_bytes is {limit_bytes}: give the largest size of a file that counts, at least 1")
    root = os.path.abspath(os.path.expanduser(path))
    if os.path.isfile(root):
        found = Walk(os.path.dirname(root), included(include), limit_bytes)
        found.file(root, follow=True)
        return {"files": found.files, "summary": found.summary()}
    _check_root(root)
    found = Walk(root, included(include), limit_bytes)
    left: list[tuple[str, bool, Rules]] = [(root, True, rules_above(root))]
    while left:
        place, is_folder, rules = left.pop()
        if is_folder:
            left.extend(found.folder(place, rules))
        else:
            found.file(place)
    return {"files": found.files, "summary": found.summary()}


def _check_root(root: str) -> None:
    try:
        with os.scandir(root):
            return
    except FileNotFoundError:
        raise FileNotFoundError(f"walk: there is no folder or file {root}: check path") from None
    except PermissionError:
        raise PermissionError(f"walk: no right to read the folder {root}: grant it or choose another path") from None
    except NotADirectoryError:
        raise NotADirectoryError(f"walk: {root} is neither a folder nor a plain file: check path") from None
