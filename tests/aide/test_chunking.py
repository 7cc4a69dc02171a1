"""Passages keep exact line numbers, cover every line that says something, and stay near the size asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony.aide.operators.chunking import Chunk, chunk_file, cut, passage, relative, split_passage

lines = st.one_of(
    st.sampled_from(
        ("", "  ", "\t", "def f():", "class A:", "    return 1", "# Heading", "\x0c", "a\u2028b", "x\r", "@dec")
    ),
    st.text(alphabet=st.characters(exclude_characters="\n", codec="utf-8"), max_size=60),
    st.integers(1, 400).map(lambda count: "y" * count),
)
texts = st.lists(lines, max_size=80).map("\n".join)


def check(text: str, chunks: list[Chunk], size: int, overlap: int) -> None:
    numbered = text.split("\n")
    covered: dict[int, str] = {}
    last = Chunk(0, 0, "")
    for chunk in chunks:
        assert 1 <= chunk.first_line <= chunk.last_line <= len(numbered)
        assert chunk.first_line >= last.first_line and chunk.last_line >= last.last_line
        assert len(chunk.text) <= size + size // 4
        assert chunk.text.strip()
        whole = "\n".join(numbered[chunk.first_line - 1 : chunk.last_line])
        if chunk.text == whole:
            assert numbered[chunk.first_line - 1].strip() and numbered[chunk.last_line - 1].strip()
            repeated = last.last_line - chunk.first_line + 1
            assert repeated <= 0 or len("\n".join(numbered[chunk.first_line - 1 : last.last_line])) <= overlap
            covered.update((number, "") for number in range(chunk.first_line, chunk.last_line + 1))
        else:
            assert chunk.first_line == chunk.last_line and chunk.text in whole
            covered[chunk.first_line] = covered.get(chunk.first_line, "") + chunk.text
        last = chunk
    for number, line in enumerate(numbered, start=1):
        if line.strip():
            assert number in covered
            if covered[number]:
                assert "".join(covered[number].split()) == "".join(line.split())


@settings(max_examples=300, deadline=None, print_blob=True)
@given(texts, st.integers(1, 300), st.floats(0, 0.5))
def test_any_text_is_covered_exactly(text, size, share):
    overlap = int(size * share)
    check(text, cut(text, size, overlap), size, overlap)


def test_real_source_is_covered_and_cut_where_a_reader_would(tree):
    import argparse

    text = Path(argparse.__file__).read_text()
    chunks = cut(text)
    check(text, chunks, 800, 120)
    assert sum(len(chunk.text) for chunk in chunks) < 1.15 * len(text)
    numbered = text.split("\n")
    classes = {number for number, line in enumerate(numbered, start=1) if line.startswith("class ")}
    starts = {chunk.first_line for chunk in chunks}
    assert len(classes & starts) > len(classes) / 3
    assert 450 < sum(len(chunk.text) for chunk in chunks) / len(chunks) < 800


def test_small_and_empty_texts():
    assert cut("") == cut("\n\n  \n") == []
    assert cut("a") == cut("a\n") == [Chunk(1, 1, "a")]
    assert cut("\n\na\n\nb\n\n") == [Chunk(3, 5, "a\n\nb")]


def test_only_line_feeds_end_lines():
    assert cut("a\x0cb\u2028c\rd\r\ne") == [Chunk(1, 2, "a\x0cb\u2028c\rd\r\ne")]


def test_a_cut_inside_a_block_repeats_lines_and_one_at_a_definition_does_not():
    block = "\n".join(f"value_{number:04} = {number}" for number in range(200))
    first, second = cut(block)[:2]
    assert second.first_line <= first.last_line
    functions = "\n\n\n".join(f"def f{number}():\n    " + "x = 1; " * 60 for number in range(6))
    assert all(chunk.text.startswith("def ") for chunk in cut(functions))


def test_one_very_long_line_is_cut_into_pieces():
    chunks = cut("short\n" + "z" * 2500 + "\nend")
    assert [(chunk.first_line, chunk.last_line, len(chunk.text)) for chunk in chunks] == [
        (1, 1, 5),
        (2, 2, 800),
        (2, 2, 800),
        (2, 2, 800),
        (2, 2, 100),
        (3, 3, 3),
    ]


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (10, -1), (10, 6)])
def test_sizes_out_of_range_are_refused(size, overlap):
    with pytest.raises(ValueError, match="chunk: size is"):
        cut("a", size, overlap)


@pytest.mark.parametrize("file", ["a.py", "a:3-4", 'a"b', '"quoted"', "line\nend", "größe: x", ""])
def test_a_passage_keeps_its_place(file):
    chunk = Chunk(3, 12, "text\nmore: 1-2\n")
    assert split_passage(passage(file, chunk)) == (file, chunk)


@pytest.mark.parametrize("text", ["", "no place\ntext", "a.py:1-2", "a.py:1\ntext", "a.py:x-2\ntext", "a.py:-2\nx"])
def test_a_text_that_is_no_passage_is_refused(text):
    with pytest.raises(ValueError, match="instead of FILE:FIRST-LAST"):
        split_passage(text)


def test_chunks_a_file_under_its_name_from_the_root(tree):
    root = tree({"src/a.py": "x = 1\n", "latin.txt": "größe\nende\n".encode("latin-1")})
    assert chunk_file(str(root / "src/a.py"), str(root)) == ["src/a.py:1-1\nx = 1"]
    assert chunk_file(str(root / "src/a.py"), str(root) + "/") == ["src/a.py:1-1\nx = 1"]
    assert chunk_file(str(root / "src/a.py")) == [f"{root}/src/a.py:1-1\nx = 1"]
    assert chunk_file(str(root / "latin.txt"), str(root)) == ["latin.txt:1-2\ngr\ufffd\ufffde\nende"]
    assert relative("/a/bc", "/a/b") == "/a/bc"
    assert relative("/a/b", "/") == "a/b"


def test_a_file_that_went_or_changed_is_an_error_or_skipped_as_asked(tree):
    root = tree({"a.bin": b"\0", "big": "x" * 100})
    for name, limit, error in (("gone", 99, FileNotFoundError), ("a.bin", 99, ValueError), ("big", 99, ValueError)):
        with pytest.raises(error, match=name):
            chunk_file(str(root / name), limit_bytes=limit)
        assert chunk_file(str(root / name), limit_bytes=limit, missing="skip") == []
    with pytest.raises(ValueError, match="missing is 'ignore'"):
        chunk_file(str(root / "big"), missing="ignore")


def test_the_standard_library_is_covered():
    for file in sorted(Path(sys.modules["json"].__file__).parent.parent.glob("*.py"))[:40]:
        text = file.read_text(errors="replace")
        check(text, cut(text), 800, 120)
