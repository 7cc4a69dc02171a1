"""The layout's text as the inspector reads it: beside what the compiler says, and when it makes no sense."""

import random

import numpy as np
import pytest

from symphony.inspect.layout import Decoder, parse
from symphony.native.layout import dtype, layout_text, names, size_of, structs


@pytest.fixture(scope="module")
def layout():
    return parse(layout_text())


def test_the_committed_listing_is_understood_whole(layout):
    assert layout.problems == []
    assert set(layout.structs) == set(structs())
    for name, found in layout.structs.items():
        assert found.size == size_of(name)


@pytest.mark.parametrize("enum", ["sym_node_state", "sym_seat_state", "sym_segment_kind", "sym_reason"])
def test_names_of_enums_are_those_of_the_package(layout, enum):
    assert layout.names(enum) == names(enum)


@pytest.mark.parametrize("struct", structs())
def test_rows_decode_as_numpy_reads_them(layout, struct, seed):
    rows = np.frombuffer(random.Random(seed).randbytes(size_of(struct) * 3), dtype(struct))
    decoder = Decoder(layout, struct, raw=True, padding=True)
    for row in rows:
        assert_same(decoder.values(decoder.form.unpack(row.tobytes())), row)


def assert_same(found, row):
    """A decoded row beside NumPy's: texts and digits by their bytes, structs within field by field."""
    assert set(found) == set(row.dtype.names)
    for name, value in found.items():
        if isinstance(value, dict):
            assert_same(value, row[name])
        elif isinstance(value, list):
            assert value == row[name].tolist()
        elif isinstance(value, str):
            raw = bytes(row[name])
            assert value in (raw.hex(), raw.split(b"\0", 1)[0].decode(errors="replace"))
        else:
            assert value == int(row[name])


def values(layout, struct, **fields):
    row = np.zeros(1, dtype(struct))
    for name, value in fields.items():
        row[0][name] = value
    decoder = Decoder(layout, struct)
    return decoder.values(decoder.form.unpack(row.tobytes()))


def test_packed_words_are_taken_apart(layout):
    node = values(layout, "sym_node_t", word=3 << 60 | 3 << 56 | 5 << 44 | 6 << 32 | 7, group=2**32 - 1)
    assert node["word"] == {"state": "done", "flags": ["once", "group"], "attempt": 5, "player": 6, "run_generation": 7}
    assert node["group"] is None
    seat = values(layout, "sym_seat_t", word=3 << 61 | 9 << 48 | 8)
    assert seat["word"] == {"state": "held", "owner": 9, "generation": 8}
    run = values(layout, "sym_run_t", word=2 << 60 | 7)
    assert run["word"] == {"state": "running", "generation": 7}
    owner = values(layout, "sym_owner_t", word=1 << 60 | 7, kind=2)
    assert owner["word"] == {"state": "live", "generation": 7} and owner["kind"] == "member"
    artifact = values(layout, "sym_artifact_t", word=3 << 60 | 7, id=[1] + [0] * 31)
    assert artifact["word"] == {"state": "published", "generation": 7}
    assert artifact["id"] == "01" + "00" * 31
    assert values(layout, "sym_segment_t", word=1)["word"] == "live"


def test_what_no_enum_names_keeps_its_number(layout):
    assert values(layout, "sym_node_t", word=15 << 60 | 15 << 56)["word"]["state"] == "unknown 15"
    assert values(layout, "sym_node_t", word=15 << 56)["word"]["flags"] == ["once", "group", "unknown 12"]
    assert values(layout, "sym_run_t", word=1 << 32)["word"]["zero"] == 1, "bits that have to be zero are told if not"
    assert values(layout, "sym_ref_t", kind=99)["kind"] == "unknown 99"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("  word uint64_t 0 8 1", "not enough|index"),
        ("  word uint64_t 28 8 1 a b |", "does not fit"),
        ("  word uint64_t 0 4 1 a b |", "does not fit"),
        ("  word uint64_t -8 8 1 a b |", "does not fit"),
        ("  word uint64_t 0 8 x a b |", "invalid literal"),
        ("struct huge 99999999999", "cannot be"),
        ("struct", "index"),
    ],
)
def test_a_line_that_makes_no_sense_is_told_and_left_out(line, problem):
    layout = parse(f"struct first 32\n  good uint32_t 24 4 1 a b | kept\n{line}\nenum e\n  E_ONE 1\n  E_TWO 2\n")
    assert len(layout.problems) == 1 and "line 3" in layout.problems[0]
    assert any(word in layout.problems[0] for word in problem.split("|"))
    assert [field.name for field in layout.structs["first"].fields] == ["good"]
    assert layout.names("e") == {1: "one", 2: "two"}


def test_fields_that_overlap_are_refused():
    layout = parse("struct s 16\n  a uint64_t 0 8 1 x y |\n  b uint64_t 4 8 1 x y |\n")
    assert "overlaps" in layout.problems[0]


def test_a_struct_that_holds_itself_ends(seed):
    layout = parse("struct s 16\n  a s 0 16 1 x y |\n")
    decoder = Decoder(layout, "s")
    assert decoder.values(decoder.form.unpack(bytes(16))) == {"a": "00" * 16}


def test_any_text_is_read_without_raising(seed):
    chosen = random.Random(seed)
    text = layout_text()
    for _ in range(150):
        broken = list(text)
        for _ in range(chosen.randrange(1, 40)):
            broken[chosen.randrange(len(broken))] = chosen.choice("0123456789 \n|{}sx-~")
        layout = parse("".join(broken))
        for name in layout.structs:
            decoder = Decoder(layout, name)
            decoder.values(decoder.form.unpack(bytes(decoder.form.size)))
