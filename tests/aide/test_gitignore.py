"""git is the judge: whatever trees and rules, the explorer lists the files that git would track."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symphony.aide.explorer.walking import walk

NAMES = ("a", "b", "ab", "a.o", "b.o", ".c", "a b")
QUIET = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "XDG_CONFIG_HOME": os.devnull, "LC_ALL": "C"}

names = st.sampled_from(NAMES)
paths = st.lists(names, min_size=1, max_size=4).map("/".join)
parts = st.sampled_from(
    (
        *NAMES,
        "*",
        "**",
        "*.o",
        "?",
        "a*",
        "[ab]",
        "[!a]",
        ".*",
        "\\a",
        "a\\ b",
        "a**",
        "**a",
        "***",
        "[a",
        "[]a]",
        "[^a-]",
        "[[:alpha:]]",
        "[a-c]*",
        "[z-a]",
        "[!/]",
        "a\\",
    )
)
patterns = st.builds(
    lambda negated, anchored, middle, folder: "!" * negated + "/" * anchored + "/".join(middle) + "/" * folder,
    st.booleans(),
    st.booleans(),
    st.lists(parts, min_size=1, max_size=3),
    st.booleans(),
)
rules = st.lists(st.one_of(patterns, st.sampled_from(("", "# a", "\\#a", "a ", "!", "/", "//"))), max_size=6)


def plant(root: str, files: list[str], ignores: dict[str, list[str]]) -> None:
    for file in files:
        place = os.path.join(root, file)
        try:
            os.makedirs(os.path.dirname(place), exist_ok=True)
            with open(place, "x"):
                pass
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            continue
    for folder, lines in ignores.items():
        place = os.path.join(root, folder)
        if os.path.isdir(place):
            with open(os.path.join(place, ".gitignore"), "w") as file:
                file.write("\n".join(lines) + "\n")


def listed_by_git(root: str) -> set[str]:
    environment = {**os.environ, **QUIET}
    subprocess.run(["git", "init", "-q", root], check=True, env=environment, capture_output=True)
    listed = subprocess.run(
        ["git", "-C", root, "ls-files", "-o", "-z", "--exclude-standard"],
        check=True,
        env=environment,
        capture_output=True,
    )
    return {name for name in listed.stdout.decode().split("\0") if name}


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed: nobody can judge the ignore rules")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
@given(
    st.lists(paths, min_size=1, max_size=12),
    st.dictionaries(st.one_of(st.just(""), paths), rules, min_size=1, max_size=3),
)
def test_lists_what_git_would_track(files, ignores):
    with tempfile.TemporaryDirectory() as root:
        plant(root, files, ignores)
        expected = listed_by_git(root)
        assert {os.path.relpath(file, root) for file in walk(root)["files"]} == expected
