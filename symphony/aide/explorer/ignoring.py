"""Which files the `.gitignore` files of a tree hide: rules of deeper folders win, the last rule that fits decides, and
what stands under a hidden folder stays hidden.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import pairwise

from .patterns import Pattern, parse
from .reading import opener_of_files

ALWAYS = frozenset({".git", ".venv", "__pycache__", "node_modules", ".hypothesis"})
RULES_LIMIT_BYTES = 1 << 20

# Rules in force in a folder, the strongest first: (length of the path that they are relative to, with its slash;
# its patterns, the last line first).
Rules = tuple[tuple[int, list[Pattern]], ...]


def rules_of(file: str, folder: str) -> Rules:
    """The rules that `file` states for `folder`; none if it is missing, unreadable or not a plain file."""
    try:
        with open(file, "rb", opener=opener_of_files) as opened:
            raw = opened.read(RULES_LIMIT_BYTES)
    except OSError:
        return ()
    text = raw.removeprefix(b"\xef\xbb\xbf").decode("utf-8", errors="surrogateescape")
    patterns = [pattern for line in text.split("\n") if (pattern := parse(line.removesuffix("\r")))]
    return ((len(folder.rstrip("/")) + 1, patterns[::-1]),)


def is_ignored(rules: Rules, path: str, is_folder: bool) -> bool:
    """Whether `path` (absolute) is hidden by rules of folders above it, none of which is hidden itself."""
    name = path[path.rfind("/") + 1 :]
    for skip, patterns in rules:
        below = path[skip:]
        for hides, folders_only, by_name, fits in patterns:
            if (is_folder or not folders_only) and fits(name if by_name else below):
                return hides
    return False


def rules_above(root: str) -> Rules:
    """Rules that folders above `root` state for it, up to the top of its git repository; none outside of one.

    A root that these rules hide was asked for by name: then they do not apply.
    """
    folders = list(_down_from_repository(root))
    if not folders:
        return ()
    rules = rules_of(os.path.join(folders[0], ".git", "info", "exclude"), folders[0])
    for folder, below in pairwise(folders):
        rules = rules_of(os.path.join(folder, ".gitignore"), folder) + rules
        if is_ignored(rules, below, True):
            return ()
    return rules


def _down_from_repository(root: str) -> Iterator[str]:
    """Folders from the top of the repository that holds `root` down to `root`; none if no repository does."""
    folders, folder = [root], root
    while not os.path.exists(os.path.join(folder, ".git")):
        folder, below = os.path.dirname(folder), folder
        if folder == below:
            return iter(())
        folders.append(folder)
    return reversed(folders)
