"""The explorer lists text files alone, in order, and accounts for everything else."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from symphony.aide.explorer.walking import walk

NOBODY = 65534


def names(found: dict, root: Path) -> list[str]:
    return [os.path.relpath(file, root) for file in found["files"]]


def as_nobody(work: Callable[[], None]) -> None:
    """Run `work` in a child without root's right to read everything; its failure is this test's."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            work()
            code = 0
        except BaseException:
            os.write(write_end, traceback.format_exc().encode()[:4000])
            code = 1
        os._exit(code)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, said


def open_to_all(folder: Path) -> None:
    """Let nobody pass through pytest's private folders down to `folder`."""
    for above in (folder, *folder.parents):
        if above.stat().st_uid == os.getuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o755)


def test_lists_text_in_order_with_absolute_paths(tree):
    root = tree({"b.txt": "b", "a/z.py": "z", "a/b/c.md": "c", "a.txt": "", "Z.txt": "Z"})
    found = walk(str(root))
    assert names(found, root) == ["Z.txt", "a/b/c.md", "a/z.py", "a.txt", "b.txt"]
    assert all(os.path.isabs(file) for file in found["files"])
    assert found["summary"] == {
        "root": str(root),
        "files": 5,
        "size_bytes": 4,
        "folders": 3,
        "skipped": {},
        "examples": {},
    }
    assert walk(str(root)) == found


def test_nested_ignore_files_negation_anchors_and_folders(tree):
    root = tree(
        {
            ".gitignore": "*.log\n/only_top\nbuild/\n# comment\n\n!keep.log\ndocs/*.tmp\n",
            "a.log": "",
            "keep.log": "",
            "only_top": "",
            "sub/only_top": "",
            "sub/a.log": "",
            "build/x": "",
            "sub/build/y": "",
            "other/build": "a file of that name stays",
            "docs/a.tmp": "",
            "docs/deep/a.tmp": "",
            "sub/.gitignore": "!a.log\n*.txt\n/local\n",
            "sub/n.txt": "",
            "n.txt": "",
            "sub/local/f": "",
            "sub/deep/local": "",
        }
    )
    found = walk(str(root))
    assert names(found, root) == [
        ".gitignore",
        "docs/deep/a.tmp",
        "keep.log",
        "n.txt",
        "other/build",
        "sub/.gitignore",
        "sub/a.log",
        "sub/deep/local",
        "sub/only_top",
    ]
    assert found["summary"]["skipped"] == {"ignored": 7}


def test_what_lies_under_an_ignored_folder_cannot_be_brought_back(tree):
    root = tree({".gitignore": "out/\n!out/kept.txt\n", "out/kept.txt": "", "a": ""})
    assert names(walk(str(root)), root) == [".gitignore", "a"]


def test_rules_of_the_repository_above_hold(tree):
    root = tree(
        {
            ".git/info/exclude": "*.secret\n",
            ".gitignore": "*.o\n",
            "src/.gitignore": "*.gen\n",
            "src/in/a.o": "",
            "src/in/a.gen": "",
            "src/in/a.c": "",
            "src/in/a.secret": "",
        }
    )
    assert names(walk(str(root / "src/in")), root) == ["src/in/a.c"]
    assert names(walk(str(root)), root) == [".gitignore", "src/.gitignore", "src/in/a.c"]


def test_a_folder_that_is_asked_for_by_name_is_walked_though_ignored(tree):
    root = tree({".git/HEAD": "", ".gitignore": "build/\n", "build/in/a.txt": "", "build/b.txt": ""})
    assert names(walk(str(root / "build")), root) == ["build/b.txt", "build/in/a.txt"]
    assert names(walk(str(root / "build/in")), root) == ["build/in/a.txt"]


@pytest.mark.parametrize("name", [".git", ".venv", "__pycache__", "node_modules", ".hypothesis"])
def test_some_folders_are_never_entered(tree, name):
    root = tree({f"{name}/a.txt": "", f"sub/{name}/b.txt": "", "c.txt": ""})
    found = walk(str(root))
    assert names(found, root) == ["c.txt"]
    assert found["summary"]["skipped"] == {"always skipped": 2}


def test_binary_and_huge_files_are_counted_with_examples(tree):
    root = tree(
        {
            "a.bin": b"ab\0cd",
            "late.bin": b"x" * 7999 + b"\0",
            "big.txt": "x" * 101,
            "fits.txt": "x" * 100,
            "utf16.txt": "text".encode("utf-16"),
            "latin.txt": "größer".encode("latin-1"),
        }
    )
    found = walk(str(root), limit_bytes=100)
    assert names(found, root) == ["fits.txt", "latin.txt"]
    assert found["summary"]["skipped"] == {"binary": 2, "huge": 2}
    assert found["summary"]["examples"]["binary"] == [str(root / "a.bin"), str(root / "utf16.txt")]
    assert walk(str(root), include=["late.*"])["files"] == []


def test_include_takes_suffixes_and_globs(tree):
    root = tree({"a.py": "", "b.md": "", "docs/c.md": "", "docs/d.txt": "", "e.pyc": ""})
    assert names(walk(str(root), include=[".py"]), root) == ["a.py"]
    assert names(walk(str(root), include=".py, docs/*.md"), root) == ["a.py", "docs/c.md"]
    assert walk(str(root), include=[".py"])["summary"]["skipped"] == {"not included": 4}


def test_links_and_special_files_are_skipped_and_cannot_trap_or_block(tree):
    root = tree({"a/b.txt": ""})
    (root / "a/loop").symlink_to(root)
    (root / "a/self").symlink_to("self")
    (root / "file_link").symlink_to(root / "a/b.txt")
    (root / "gone").symlink_to("nowhere")
    os.mkfifo(root / "pipe")
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(root / "door"))
    found = walk(str(root))
    assert names(found, root) == ["a/b.txt"]
    assert found["summary"]["skipped"] == {"link": 4, "not a file": 1, "unreadable": 1}


def test_a_root_that_is_a_link_or_a_file(tree, tmp_path):
    root = tree({"a.txt": "1", "b.bin": b"\0"})
    (tmp_path / "link").symlink_to(root)
    assert walk(str(tmp_path / "link"))["files"] == [str(tmp_path / "link/a.txt")]
    assert walk(str(root / "a.txt"))["files"] == [str(root / "a.txt")]
    assert walk(str(root / "b.bin"))["summary"]["skipped"] == {"binary": 1}


def test_a_name_that_is_not_utf8_is_skipped_and_counted(tree):
    root = tree({"a.txt": ""})
    with open(os.fsencode(root) + b"/b\xff.txt", "wb"):
        pass
    found = walk(str(root))
    assert names(found, root) == ["a.txt"]
    assert found["summary"]["skipped"] == {"name is not UTF-8": 1}
    found["summary"]["examples"]["name is not UTF-8"][0].encode("utf-8")


def test_what_may_not_be_read_is_counted_inside_and_an_error_at_the_root(tree):
    root = tree({"open/a.txt": "", "shut/b.txt": "", "c.txt": ""})
    open_to_all(root / "open")
    (root / "shut").chmod(0)
    (root / "c.txt").chmod(0)

    def look() -> None:
        found = walk(str(root))
        assert names(found, root) == ["open/a.txt"]
        assert found["summary"]["skipped"] == {"unreadable": 2}
        with pytest.raises(PermissionError, match=r"no right to read the folder .*shut"):
            walk(str(root / "shut"))

    try:
        as_nobody(look)
    finally:
        (root / "shut").chmod(0o755)


def test_a_root_that_cannot_be_walked_says_so(tree):
    root = tree({"a": ""})
    with pytest.raises(FileNotFoundError, match=r"there is no folder or file .*nowhere: check path"):
        walk(str(root / "nowhere"))
    os.mkfifo(root / "pipe")
    with pytest.raises(NotADirectoryError, match="neither a folder nor a plain file"):
        walk(str(root / "pipe"))
    with pytest.raises(ValueError, match="give a folder or a file"):
        walk("")
    with pytest.raises(ValueError, match="limit_bytes is 0"):
        walk(str(root), limit_bytes=0)


def test_an_ignore_file_that_is_damaged_hides_nothing_else(tree):
    root = tree({".gitignore": b"\xef\xbb\xbf*.o\r\n!\n\\\n\xff\xfe\n*.tmp\r\n", "a.o": "", "a.tmp": "", "a.c": ""})
    assert names(walk(str(root)), root) == [".gitignore", "a.c"]


def test_a_deep_tree_does_not_exhaust_the_stack(tree):
    root = tree({})
    places = [str(root)]
    for _ in range(sys.getrecursionlimit() + 100):
        places.append(places[-1] + "/d")
        os.mkdir(places[-1])
    deepest = places[-1] + "/f.txt"
    with open(deepest, "x"):
        pass
    try:
        assert walk(str(root))["files"] == [deepest]
    finally:  # from the bottom: the standard library's own removal recurses
        os.unlink(deepest)
        for place in reversed(places[1:]):
            os.rmdir(place)
