"""Run inputs: what a command line or a program gives becomes typed values, or an error that names the input."""

import numpy as np
import pytest

from symphony.melody.inputs import parse_inputs, split_pair
from symphony.model.errors import SymphonyError, UsageError
from symphony.model.score import InputType, Score

TYPES = ("path", "text", "int", "float", "bool", "data", "bytes", "list")


def score_of(**inputs):
    kinds = {name: kind if isinstance(kind, InputType) else InputType(kind) for name, kind in inputs.items()}
    return Score("m", kinds, list(kinds))


def one(kind, given):
    return parse_inputs(score_of(x=kind), {"x": given})["x"]


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("text", "5", "5"), ("text", "", ""), ("int", "5", 5), ("int", " -7 ", -7), ("float", "1e3", 1000.0),
        ("bool", "Yes", True), ("bool", "0", False), ("data", '{"a": [1]}', {"a": [1]}),
        ("list", '["a", "b"]', ["a", "b"]), ("list", "a, b,c", ["a", "b", "c"]),
        ("list", "", []), ("bytes", "é", "é".encode()),
    ],
)  # fmt: skip
def test_texts_are_read_by_type(kind, text, expected):
    assert one(kind, text) == expected


@pytest.mark.parametrize(
    ("kind", "value"),
    [("int", 5), ("float", 5), ("float", 0.5), ("bool", True), ("data", {"a": 1}), ("data", 3), ("data", None),
     ("list", ["a"]), ("list", [1, 2]), ("list", ("a",)), ("bytes", b"x"), ("bytes", bytearray(b"x"))],
)  # fmt: skip
def test_values_of_the_type_pass(kind, value):
    assert one(kind, value) == (list(value) if isinstance(value, tuple) else value)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("int", "five", "input 'x' must be a whole number of 64 bits, not 'five'"),
        ("int", "99999999999999999999", "whole number of 64 bits"),
        ("float", "x", "must be a number"), ("bool", "maybe", "must be true or false"), ("data", "{", "must be JSON"),
        ("data", "[" * 100_000, "must be JSON"), ("list", "[1", "a JSON list, or words"),
        ("bytes", "@/nowhere/at/all", "cannot read '/nowhere/at/all': No such file"),
        ("int", 1.5, "must be int, not float"), ("int", True, "must be int, not bool"),
        ("text", 5, "must be text, not int"),
        ("text", None, "must be text, not none"), ("list", 3, "must be list, not int"),
        ("path", 3, "must be path, not int"),
        ("path", "", "must be a path"), ("path", "a\0b", "must be a path"), ("path", b"x", "must be path, not bytes"),
        ("text", "\ud800", "surrogate"), ("data", object(), "cannot travel"),
        ("data", {"a": np.zeros(2)}, "array inside data"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(kind, given, message):
    with pytest.raises(UsageError) as caught:
        one(kind, given)
    assert message in str(caught.value)


def test_paths_are_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    assert one("path", "sub/../file") == str(tmp_path / "file")
    assert one("path", tmp_path) == str(tmp_path)
    assert one("path", "~/x") == "/home/somebody/x"


def test_bytes_of_a_file(tmp_path):
    (tmp_path / "blob").write_bytes(b"\0\xff")
    assert one("bytes", f"@{tmp_path / 'blob'}") == b"\0\xff"


def test_defaults_missing_and_unknown(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    score = score_of(
        path=InputType("path", ".", required=False), question="text", top=InputType("int", 5, required=False)
    )
    assert parse_inputs(score, {"question": "q"}) == {"path": str(tmp_path), "question": "q", "top": 5}
    assert list(parse_inputs(score, {"top": "7", "question": "q"})) == ["path", "question", "top"]
    with pytest.raises(UsageError, match=r"needs question \(text\): give it with -i question=VALUE"):
        parse_inputs(score, {})
    with pytest.raises(UsageError, match="has no input 'qestion'; did you mean 'question'"):
        parse_inputs(score, {"qestion": "q"})


def test_pairs():
    assert split_pair("a=b=c") == ("a", "b=c") and split_pair(" a =") == ("a", "")
    for text in ("a", "=b", ""):
        with pytest.raises(SymphonyError, match="KEY=VALUE"):
            split_pair(text)
