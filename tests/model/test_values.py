"""Values round trip whatever they hold, and a payload made to hurt is refused, never believed."""

import struct
import subprocess
import sys

import numpy as np
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from symphony.model import value
from symphony.model.errors import ValueDamaged, ValueRefused
from symphony.model.limits import VALUE_DEPTH

WIDE = st.integers(-(1 << 63), (1 << 64) - 1)
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SCALARS = st.none() | st.booleans() | WIDE | st.floats(allow_nan=False) | TEXT | st.binary()
DATA = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4), max_leaves=20
)
LEAVES = st.binary() | TEXT
LISTS = st.lists(st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=12), max_size=6)
DTYPES = ["|b1", "|i1", "<i2", ">i4", "<u8", "<f4", "<f8", "<c16", "|S5", "<U3", "<M8[ns]", "<m8[D]"]


def round_trip(obj, **how):
    encoded = value.encode(obj, **how)
    payload = value.payload_of(encoded)
    assert len(payload) == encoded.size
    target = bytearray(encoded.size)
    assert value.write(encoded, memoryview(target)) == encoded.size
    assert target == payload
    value.check(encoded.kind, payload)
    return encoded, payload, value.decode(encoded.kind, payload, copy=True)


@given(st.binary())
def test_bytes(content):
    encoded, payload, back = round_trip(content)
    assert (encoded.kind, payload, back) == (value.BYTES, content, content)


@given(TEXT)
def test_text(text):
    encoded, payload, back = round_trip(text)
    assert (encoded.kind, payload, back) == (value.TEXT, text.encode(), text)


@given(st.dictionaries(TEXT, DATA, max_size=5) | st.booleans() | WIDE | st.floats(allow_nan=False))
def test_data(obj):
    encoded, _, back = round_trip(obj)
    assert encoded.kind == value.DATA
    assert back == obj


@given(LISTS)
def test_lists_of_texts_and_bytes(items):
    encoded, payload, back = round_trip(items)
    assert (encoded.kind, encoded.count, back) == (value.LIST, len(items), items)
    view = value.decode(value.LIST, payload)
    assert list(view) == items and view == items and len(view) == len(items)
    assert view[::-1] == items[::-1]
    assert value.list_count(payload) == len(items)


@given(st.sampled_from(DTYPES), st.lists(st.integers(0, 5), max_size=4))
def test_arrays(code, shape):
    count = int(np.prod(shape, dtype=int))
    array = np.arange(count).astype("<i8").astype(code).reshape(shape)
    encoded, payload, back = round_trip(array)
    assert encoded.kind == value.ARRAY
    assert back.dtype == array.dtype and back.shape == array.shape
    assert np.array_equal(back, array)
    view = value.decode(value.ARRAY, payload)
    assert not view.flags.writeable
    with pytest.raises(ValueError):
        view.setflags(write=True)


@given(DATA)
def test_anything_that_is_data_comes_back(obj):
    encoded, _, back = round_trip(obj, kind="data")
    assert encoded.kind == value.DATA
    assert back == obj


def test_kinds_of_python_objects():
    kinds = {
        value.NONE: [None],
        value.BYTES: [b"x", bytearray(b"x"), memoryview(b"x"), np.bytes_(b"x")],
        value.TEXT: ["x", np.str_("x")],
        value.DATA: [1, 2.5, True, {}, {"a": [1]}, [1, 2], ["a", 1], [{"a": 1}], [None], np.float32(1), np.int64(3)],
        value.ARRAY: [np.zeros(3), np.array(1.0)],
        value.LIST: [[], (), ["a"], [b"a", "b"], [np.zeros(2)], [["a"], []]],
        value.ERROR: [value.ErrorValue("KeyError", "'x'", "")],
    }
    for kind, objects in kinds.items():
        for obj in objects:
            assert value.encode(obj).kind == kind, obj


def test_stated_kind_wins():
    assert value.encode([{"a": 1}, 2], kind="list").count == 2
    assert value.encode(["a"], kind="data").kind == value.DATA
    assert value.encode([[1, 2]], kind="array").kind == value.ARRAY
    assert value.encode("/tmp", kind="path").kind == value.TEXT
    assert value.encode((text for text in "ab"), kind="list").count == 2
    with pytest.raises(ValueRefused, match="expected text, got bytes"):
        value.encode(b"x", kind="text")
    with pytest.raises(ValueRefused, match="expected a list, got str"):
        value.encode("abc", kind="list")


def test_list_layout_is_as_written():
    payload = value.payload_of(value.encode([b"abc", "d", np.zeros(1, "<f4")]))
    assert struct.unpack_from("<7Q", payload) == (3, 64, 72, 128, 3, 1, 68)
    assert payload[56:64] == bytes([value.BYTES, value.TEXT, value.ARRAY, 0, 0, 0, 0, 0])
    assert payload[64:67] == b"abc" and payload[72:73] == b"d"
    assert value.item(payload, 0) == (value.BYTES, b"abc")


def test_array_layout_is_as_written():
    payload = value.payload_of(value.encode(np.array([[1, 2, 3]], "<u2")))
    assert struct.unpack_from("<II", payload) == (64, 2)
    assert payload[8:24] == b"<u2" + bytes(13)
    assert struct.unpack_from("<QQ", payload, 24) == (1, 3)
    assert payload[64:] == b"\1\0\2\0\3\0"


def test_data_is_canonical():
    assert value.encode({"b": 1, "a": {"d": 1, "c": 2}}).pieces == value.encode({"a": {"c": 2, "d": 1}, "b": 1}).pieces
    assert value.encode({2: "x", 1: "y"}).pieces == value.encode({1: "y", 2: "x"}).pieces
    assert round_trip({1: "a", "b": (1, 2)})[2] == {1: "a", "b": [1, 2]}
    assert round_trip({"n": np.int32(4), "x": np.float64(0.5), "s": {3, 1}})[2] == {"n": 4, "x": 0.5, "s": [1, 3]}


def test_decoding_without_copy_shares_memory():
    memory = bytearray(value.payload_of(value.encode(np.arange(4, dtype="<i8"))))
    array = value.decode(value.ARRAY, memory)
    own = value.decode(value.ARRAY, memory, copy=True)
    memory[64] = 9
    assert array[0] == 9 and own[0] == 0
    assert value.decode(value.BYTES, memory).obj is memory


def test_array_is_not_copied_to_be_encoded():
    array = np.arange(1000)
    assert np.shares_memory(np.frombuffer(value.encode(array).pieces[1], "<i8"), array)
    strided = round_trip(np.arange(12).reshape(3, 4)[:, ::2])[2]
    assert strided.tolist() == [[0, 2], [4, 6], [8, 10]]


def test_a_view_is_sent_on_without_decoding():
    view = value.decode(value.LIST, value.payload_of(value.encode(["a", ["b"]])))
    assert value.payload_of(value.encode(view)) == value.payload_of(value.encode(["a", ["b"]]))
    assert round_trip([view, "c"])[2] == [["a", ["b"]], "c"]
    assert round_trip({"in": view})[2] == {"in": ["a", ["b"]]}


@pytest.mark.parametrize(
    "obj",
    [object(), {"a": object()}, 1 << 70, "\ud800", {"a": "\ud800"}, np.array([object()]), np.zeros(2, [("a", "i4")]),
     {"a": np.zeros(2)}, [1, np.zeros(2)], {"x": 1 << 70}, np.zeros((1,) * 33)],
    ids=lambda obj: type(obj).__name__,
)  # fmt: skip
def test_what_cannot_travel_is_refused(obj):
    with pytest.raises(ValueRefused):
        value.encode(obj)


def test_what_contains_itself_is_refused():
    loop: list = []
    loop.append(loop)
    table: dict = {}
    table["self"] = table
    for obj in (loop, table):
        with pytest.raises(ValueRefused):
            value.encode(obj)


def test_depth_is_bounded_on_both_sides():
    deep: list = ["x"]
    for _ in range(VALUE_DEPTH - 1):
        deep = [deep]
    assert round_trip(deep)[2] == deep
    encoded = value.encode(deep)
    too_deep = value.payload_of(value.join_list([encoded]))
    for walk in (value.check, value.identify, lambda kind, payload: value.decode(kind, payload, copy=True)):
        with pytest.raises(ValueDamaged, match="nested"):
            walk(value.LIST, too_deep)


# Hostile payloads


def damaged_list(count, offsets=(), sizes=(), kinds=b"", tail=b""):
    head = struct.pack(f"<{1 + len(offsets) + len(sizes)}Q", count, *offsets, *sizes)
    return head + kinds + bytes(-len(kinds) & 7) + tail


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\1", bytes(7),
        damaged_list(1), damaged_list(1 << 31), damaged_list((1 << 64) - 1), damaged_list(1 << 60, [8]),
        damaged_list(1, [32], [1 << 63], b"\1", b"xxxxxxxx"),
        damaged_list(1, [(1 << 64) - 8], [16], b"\1", b"xxxxxxxx"),
        damaged_list(1, [8], [1], b"\1", b"xxxxxxxx"),
        damaged_list(1, [33], [1], b"\1", b"xxxxxxxx"),
        damaged_list(1, [32], [9], b"\1", b"xxxxxxxx"),
        damaged_list(1, [32], [8], b"\7", b"xxxxxxxx"),
        damaged_list(1, [32], [8], b"\4", b"xxxxxxxx"),
        damaged_list(1, [64], [8], b"\5", bytes(24) + b"\xff" * 8),
        damaged_list(1, [32], [1], b"\2", b"\xff"),
        damaged_list(1, [32], [1], b"\0", b"\xff"),
    ],
)  # fmt: skip
def test_damaged_lists(payload):
    with pytest.raises(ValueDamaged):
        value.check(value.LIST, payload)
    with pytest.raises(ValueDamaged):
        value.decode(value.LIST, payload, copy=True)


def damaged_array(header=64, ndim=1, code=b"<f8", shape=(1,), body=bytes(8)):
    head = struct.pack("<II", header, ndim) + code.ljust(16, b"\0") + struct.pack(f"<{len(shape)}Q", *shape)
    return head.ljust(64, b"\0") + body


@pytest.mark.parametrize(
    "payload",
    [
        b"", bytes(63), bytes(64),
        damaged_array(header=0), damaged_array(header=1 << 31), damaged_array(header=128), damaged_array(ndim=33),
        damaged_array(ndim=(1 << 32) - 1), damaged_array(shape=(2,)), damaged_array(shape=(1 << 63,)),
        damaged_array(ndim=2, shape=(1 << 32, 1 << 32)), damaged_array(ndim=2, shape=(0, (1 << 64) - 1), body=b""),
        damaged_array(code=b"|O"), damaged_array(code=b"|O8"), damaged_array(code=b"|V8"), damaged_array(code=b"f8"),
        damaged_array(code=b"\xff\xff"), damaged_array(code=b"<f8,<f8"), damaged_array(code=b"|S0"),
        damaged_array(code=b"|S99999999999999"), damaged_array(code=b""), damaged_array(code=b"<M8[nonsense]"),
        damaged_array()[:63] + b"\1" + bytes(8), damaged_array()[:-1], damaged_array() + b"\0",
        damaged_array(code=b"<f8\0\0<f8"),
    ],
)  # fmt: skip
def test_damaged_arrays(payload):
    with pytest.raises(ValueDamaged):
        value.decode(value.ARRAY, payload)


@pytest.mark.parametrize(
    ("kind", "payload"),
    [
        (value.NONE, b"x"), (value.TEXT, b"\xc3"), (value.TEXT, b"\xed\xa0\x80"), (value.DATA, b""),
        (value.DATA, b"\xc1"),
        (value.DATA, b"\xdd\xff\xff\xff\xff"), (value.DATA, b"\x91" * 100_000 + b"\xc0"), (value.DATA, b"\xc0\xc0"),
        (value.DATA, b"\x81\x80\x01"), (value.DATA, b"\xa1\xff"), (value.ERROR, b"\x93\x01\x02\x03"),
        (value.ERROR, b"\x81\xa4type\x01"), (7, b""), (255, b"x"), (-1, b""),
    ],
)  # fmt: skip
def test_damaged_scalars(kind, payload):
    with pytest.raises(ValueDamaged):
        value.decode(kind, payload)


@settings(max_examples=400)
@given(st.integers(0, 8), st.binary(max_size=300))
def test_any_bytes_are_a_value_or_refused(kind, payload):
    for walk in (value.check, value.identify, lambda kind, payload: value.decode(kind, payload, copy=True)):
        try:
            walk(kind, payload)
        except ValueDamaged:
            pass


@settings(max_examples=400)
@given(LISTS.filter(len), st.data())
def test_a_list_with_any_byte_changed_is_a_value_or_refused(items, data):
    payload = bytearray(value.payload_of(value.encode(items)))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(payload[: data.draw(st.integers(0, len(payload)))])
    for hostile in (bytes(payload), cut):
        try:
            value.check(value.LIST, hostile)
        except ValueDamaged:
            continue
        value.decode(value.LIST, hostile, copy=True)


def test_items_outside_are_index_errors():
    payload = value.payload_of(value.encode(["a"]))
    view = value.ListView(payload)
    for number in (1, -2):
        with pytest.raises(IndexError):
            view[number]
    with pytest.raises(IndexError):
        value.item(payload, -1)


# Identity


def test_identity_of_bytes_is_plain_blake3():
    assert value.identify(value.BYTES, b"abc") == "b3:" + blake3(b"abc").hexdigest()


def test_equal_bytes_of_two_kinds_have_two_ids():
    kinds = (value.NONE, value.BYTES, value.TEXT, value.DATA, value.ARRAY, value.ERROR)
    ids = {value.identify(kind, b"") for kind in kinds}
    assert len(ids) == 6


def test_identity_of_a_list_follows_its_items():
    def identity(items):
        return value.identify(value.LIST, value.payload_of(value.encode(items)))

    assert identity(["a", "b"]) == identity(("a", "b"))
    assert len({identity(items) for items in ([], ["a"], [b"a"], ["a", ""], [["a"]], ["a", "b"], ["b", "a"])}) == 7


# Errors and weight


def test_errors_are_text_only():
    encoded = value.encode_error("KeyError", "lone \ud800", "Traceback …")
    back = value.decode(value.ERROR, value.payload_of(encoded))
    assert back == value.ErrorValue("KeyError", "lone \\ud800", "Traceback …")


def test_numpy_is_imported_only_for_arrays():
    program = (
        "import sys\n"
        "from symphony.model import value\n"
        "for obj in (b'x', 'x', None, {'a': 1}, [1], ['a', b'b'], {1: 2}):\n"
        "    encoded = value.encode(obj)\n"
        "    payload = value.payload_of(encoded)\n"
        "    value.decode(encoded.kind, payload, copy=True), value.identify(encoded.kind, payload)\n"
        "assert 'numpy' not in sys.modules and 'numba' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
