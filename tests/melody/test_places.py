"""The scanner finds the place of every key and value that tomllib reads, in every spelling of TOML."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.melody.places import Place, scan

TEXT = '''\
# a comment with [a.header] and key = "value"
top = 1 # after
[a . "b c".'d']
plain = "x # no comment"   # comment
literal = 'C:\\path'
multi = """
one "quoted" \\""" two
[not.a.header] = 3"""
raw = \'\'\'
'x' = 1\'\'\'
dotted.inner . deep = true
list = [ 1, "two]", [3, 4], # inside
  { k = 5, "l m" = [6] } ]
inline = { x = { y = "z" } , w=1979-05-27T07:32:00Z }
[[many]]
n = 1
[many.below]
n = 2
[[many]]
n = 3
[[many.sub]]
n = 4
'''

EXPECTED = {
    ("top",): ((2, 1), (2, 7)),
    ("a",): ((3, 2), None),
    ("a", "b c"): ((3, 6), None),
    ("a", "b c", "d"): ((3, 12), (3, 12)),
    ("a", "b c", "d", "plain"): ((4, 1), (4, 9)),
    ("a", "b c", "d", "literal"): ((5, 1), (5, 11)),
    ("a", "b c", "d", "multi"): ((6, 1), (6, 9)),
    ("a", "b c", "d", "raw"): ((9, 1), (9, 7)),
    ("a", "b c", "d", "dotted", "inner", "deep"): ((11, 16), (11, 23)),
    ("a", "b c", "d", "list"): ((12, 1), (12, 8)),
    ("a", "b c", "d", "list", 1): (None, (12, 13)),
    ("a", "b c", "d", "list", 2, 1): (None, (12, 25)),
    ("a", "b c", "d", "list", 3, "k"): ((13, 5), (13, 9)),
    ("a", "b c", "d", "list", 3, "l m", 0): (None, (13, 21)),
    ("a", "b c", "d", "inline", "x", "y"): ((14, 18), (14, 22)),
    ("a", "b c", "d", "inline", "w"): ((14, 30), (14, 32)),
    ("many", 0, "n"): ((16, 1), (16, 5)),
    ("many", 0, "below", "n"): ((18, 1), (18, 5)),
    ("many", 1, "n"): ((20, 1), (20, 5)),
    ("many", 1, "sub", 0, "n"): ((22, 1), (22, 5)),
}


def leaves(document, path=()):
    if isinstance(document, dict):
        for key, value in document.items():
            yield from leaves(value, (*path, key))
    elif isinstance(document, list):
        for number, value in enumerate(document):
            yield from leaves(value, (*path, number))
    else:
        yield path


def test_places_of_every_spelling():
    places = scan(TEXT)
    for path, (key, value) in EXPECTED.items():
        if key:
            assert places.keys[path] == key, path
        if value:
            assert places.values[path] == value, path
    assert set(leaves(tomllib.loads(TEXT))) <= set(places.values)
    assert places.twice == []


def test_an_unknown_path_has_the_place_of_its_parent():
    places = scan(TEXT)
    assert places.value(("top", "below", 3)) == Place(2, 1)
    assert places.value(("nowhere",)) is None and places.value(()) is None


@pytest.mark.parametrize(
    ("text", "path", "first", "again"),
    [
        ("a = 1\nb = 2\na = 3\n", ("a",), (1, 1), (3, 1)),
        ("[t]\nx = 1\n[u]\n[t]\n", ("t",), (1, 2), (4, 2)),
        ("x = { a = 1, a = 2 }\n", ("x", "a"), (1, 7), (1, 14)),
        ("a.b = 1\na.b = 2\n", ("a", "b"), (1, 3), (2, 3)),
    ],
)
def test_what_stands_twice(text, path, first, again):
    with pytest.raises(tomllib.TOMLDecodeError):
        tomllib.loads(text)
    assert scan(text).twice == [(path, first, again)]


def test_what_does_not_stand_twice():
    for text in ("[a.b]\nx = 1\n[a]\ny = 2\n", "[[a]]\nx = 1\n[[a]]\nx = 2\n", "a.b = 1\na.c = 2\n[x.y]\n[x]\n[x.z]\n"):
        tomllib.loads(text)
        assert scan(text).twice == []


NAMES = st.sampled_from(["a", "b-1", "c_d", "e f", "ü", 'q"', ""])
SCALARS = st.sampled_from(
    ["1", "-2.5", "true", '"x"', "'y'", '"""m\n"q" """', "'''r\n'''", "1979-05-27", "inf", '"\\" # \\\\"']
)


def quoted(name):
    plain = name and all(letter in "abcdefghijklmnopqrstuvwxyz0123456789_-" for letter in name)
    return name if plain else '"' + name.replace('"', '\\"') + '"'


VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: "[\n " + " , # c\n".join(parts) + " ]")
        | st.dictionaries(NAMES, inner, max_size=3).map(
            lambda table: "{ " + ", ".join(f"{quoted(name)} = {value}" for name, value in table.items()) + " }"
        )
    ),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, st.dictionaries(NAMES, VALUES, max_size=4), max_size=4))
def test_every_leaf_of_a_generated_text_is_placed_where_it_stands(tables):
    text = "".join(
        f"[{quoted(table)}]\n" + "".join(f" {quoted(name)} = {value}\n" for name, value in pairs.items())
        for table, pairs in tables.items()
    )
    places, lines = scan(text), text.split("\n")
    assert places.twice == []
    for path in leaves(tomllib.loads(text)):
        place = places.values[path]
        assert lines[place.line - 1][place.column - 1] in "1-t\"'i"
        for length in range(1, len(path) + 1):
            if isinstance(path[length - 1], str):
                key = places.keys[path[:length]]
                assert lines[key.line - 1][key.column - 1 :].startswith(quoted(path[length - 1]))


@given(st.text(alphabet="[]{}=.,\"'#\n ab1\\", max_size=60))
def test_scanning_never_raises(text):
    scan(text)
