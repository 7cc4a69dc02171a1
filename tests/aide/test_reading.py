"""Reading decodes what it can, says what it replaced, and refuses what is not text."""

from __future__ import annotations

import os

import pytest

from symphony.aide.explorer.reading import NotText, TooLarge, read_text


def test_reads_text_as_it_is(tree):
    root = tree({"a.txt": "grüße\r\n\ufffd\n", "empty": ""})
    text, summary = read_text(str(root / "a.txt"))
    assert text == "grüße\r\n\ufffd\n"
    assert summary == {"file": str(root / "a.txt"), "size_bytes": 13, "encoding": "utf-8", "replaced": 0}
    assert read_text(str(root / "empty"))[0] == ""


def test_says_how_much_was_not_utf8(tree):
    root = tree({"a.txt": "größer \ufffd".encode("latin-1", "replace") + b"\xef\xbf\xbd\n"})
    text, summary = read_text(str(root / "a.txt"))
    assert text == "gr\ufffd\ufffder ?\ufffd\n"
    assert summary["replaced"] == 2


def test_refuses_binary_huge_missing_and_folders(tree):
    root = tree({"a.bin": b"a\0b", "big": "x" * 11})
    with pytest.raises(NotText, match=r"a\.bin is binary"):
        read_text(str(root / "a.bin"))
    with pytest.raises(TooLarge, match="big has 11 bytes, more than limit_bytes = 10"):
        read_text(str(root / "big"), 10)
    assert read_text(str(root / "big"), 11)[0] == "x" * 11
    with pytest.raises(FileNotFoundError):
        read_text(str(root / "nowhere"))
    with pytest.raises(OSError, match="directory"):
        read_text(str(root))
    os.mkfifo(root / "pipe")
    with pytest.raises(NotText, match="neither a file nor a link"):
        read_text(str(root / "pipe"))
