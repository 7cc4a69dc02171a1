"""One suite of atomic operations over C and over numba: same names, same results, and orders as they are spelt."""

import re
import secrets
import subprocess
import sys
import threading
from pathlib import Path

import numba
import numpy as np
import posix_ipc
import pytest
from numba.core.errors import TypingError

from symphony.native import atomics, ffi, lib
from symphony.native.layout import dtype

ROOT = Path(__file__).resolve().parents[2]
UNSIGNED = [np.uint32, np.uint64]
LOADS = ["load_relaxed", "load_acquire", "load_seq_cst"]
STORES = ["store_relaxed", "store_release"]
CHANGES = ["exchange", "fetch_add"]

STEP, RUN, NODE = dtype("sym_step_t"), dtype("sym_run_t"), dtype("sym_node_t")
table = atomics.table


def compiled(name):
    operation = getattr(atomics, name)
    if name in LOADS:
        return numba.njit(nogil=True)(lambda array, index: operation(array, index))
    if name == "compare_exchange":
        return numba.njit(nogil=True)(lambda array, index, old, new: operation(array, index, old, new))
    return numba.njit(nogil=True)(lambda array, index, value: operation(array, index, value))


COMPILED = {name: compiled(name) for name in [*LOADS, *STORES, *CHANGES, "compare_exchange"]}


class OverC:
    """The C functions with the arguments of the compiled ones."""

    def __getattr__(self, name):
        def call(array, index, *values):
            bits = array.dtype.itemsize * 8
            address = array.ctypes.data + index * array.strides[0]
            pointer = ffi.cast(f"uint{bits}_t *", address)
            result = getattr(lib, f"sym_{name}_u{bits}")(pointer, *(int(value) for value in values))
            return bool(result) if name == "compare_exchange" else result

        return call


class OverNumba:
    def __getattr__(self, name):
        return COMPILED[name]


@pytest.fixture(params=[OverC, OverNumba], ids=["c", "numba"])
def over(request):
    return request.param()


@pytest.fixture(params=["plain", "strided", "field"])
def words(request):
    """An array of words in each of the forms that a kernel meets, with what lies around them."""

    def make(kind):
        if request.param == "plain":
            return np.arange(8, dtype=kind)
        if request.param == "strided":
            return np.arange(24, dtype=kind)[::3]
        name = "word" if kind == np.uint64 else "step"
        rows = np.zeros(8, NODE)
        rows[name] = np.arange(8)
        return rows[name]

    return make


def whole(array):
    return array.base.tobytes() if array.base is not None else array.tobytes()


@pytest.mark.parametrize("kind", UNSIGNED)
@pytest.mark.parametrize("name", LOADS)
def test_a_load_gives_the_element_and_changes_nothing(over, words, kind, name):
    array = words(kind)
    array[5] = np.iinfo(kind).max - 1
    before = whole(array)
    assert getattr(over, name)(array, 5) == np.iinfo(kind).max - 1
    assert getattr(over, name)(array, 3) == array[3]
    assert whole(array) == before


@pytest.mark.parametrize("kind", UNSIGNED)
@pytest.mark.parametrize("name", STORES)
def test_a_store_changes_one_element(over, words, kind, name):
    array, same = words(kind), words(kind)
    getattr(over, name)(array, 5, 77)
    same[5] = 77
    assert whole(array) == whole(same)


@pytest.mark.parametrize("kind", UNSIGNED)
def test_exchange_gives_what_was_there(over, words, kind):
    array, same = words(kind), words(kind)
    same[2] = 99
    assert over.exchange(array, 2, 99) == words(kind)[2]
    assert whole(array) == whole(same)


@pytest.mark.parametrize("kind", UNSIGNED)
def test_fetch_add_wraps_and_gives_what_was_there(over, words, kind):
    array = words(kind)
    top = int(np.iinfo(kind).max)
    array[1] = top
    assert over.fetch_add(array, 1, 3) == top
    assert array[1] == 2
    assert array[0] == words(kind)[0], "no carry into a neighbour"
    assert array[2] == words(kind)[2], "no carry into a neighbour"


@pytest.mark.parametrize("kind", UNSIGNED)
def test_compare_exchange_changes_only_what_was_expected(over, words, kind):
    array, same = words(kind), words(kind)
    assert over.compare_exchange(array, 4, same[4] + 1, 50) is False
    assert whole(array) == whole(same)
    assert over.compare_exchange(array, 4, same[4], 50) is True
    same[4] = 50
    assert whole(array) == whole(same)
    assert over.compare_exchange(array, 4, 4, 51) is False


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_signed_elements_keep_their_sign(kind):
    array = np.array([-5, -1], kind)
    assert COMPILED["load_acquire"](array, 0) == -5
    assert COMPILED["fetch_add"](array, 0, -3) == -5
    assert COMPILED["compare_exchange"](array, 0, -8, -9)
    assert COMPILED["exchange"](array, 1, -2) == -1
    assert array.tolist() == [-9, -2]


@pytest.mark.parametrize("array", [np.zeros(4), np.zeros(4, np.uint8), np.zeros((2, 2), np.uint64)], ids=str)
def test_what_is_no_array_of_words_is_refused(array):
    with pytest.raises(TypingError, match="fetch_add needs"):
        compiled("fetch_add")(array, 0, 1)


def test_a_number_that_would_lose_bits_is_refused():
    with pytest.raises(TypingError, match="whole numbers"):
        compiled("store_release")(np.zeros(4, np.uint64), 0, 1.0)
    with pytest.raises(TypingError, match="whole numbers"):
        compiled("load_acquire")(np.zeros(4, np.uint64), 0.0)


def test_a_change_of_a_read_only_array_is_refused():
    array = np.zeros(4, np.uint64)
    array.flags.writeable = False
    assert compiled("load_acquire")(array, 0) == 0
    with pytest.raises(TypingError, match="read-only"):
        compiled("store_release")(array, 0, 1)


# -- orders, as they stand in the generated code -----------------------------------------------------------

IN_LLVM = {
    "load_relaxed": r"load atomic i64, .* monotonic, align 8",
    "load_acquire": r"load atomic i64, .* acquire, align 8",
    "load_seq_cst": r"load atomic i64, .* seq_cst, align 8",
    "store_relaxed": r"store atomic i64 .* monotonic, align 8",
    "store_release": r"store atomic i64 .* release, align 8",
    "exchange": r"atomicrmw xchg .* seq_cst",
    "fetch_add": r"atomicrmw add .* seq_cst",
    "compare_exchange": r"cmpxchg (?!weak).* acq_rel acquire",
}
IN_X86 = {"exchange": r"\bxchgq?\b", "fetch_add": r"lock\s+(xaddq?|addq?)", "compare_exchange": r"lock\s+cmpxchgq?"}
ATOMIC_IN_LLVM = re.compile(r"atomicrmw|cmpxchg|(?:load|store) atomic|\bfence\b")


def arguments(name):
    count = {"compare_exchange": 3}.get(name, 1 if name in LOADS else 2)
    return (numba.types.Array(numba.uint64, 1, "A"), *[numba.int64] * count)


@pytest.mark.parametrize("name", IN_LLVM)
def test_the_order_stands_in_the_generated_code(name):
    function = compiled(name)
    function.compile(arguments(name))
    code = function.inspect_llvm(arguments(name))
    body = code[code.index("define ") :].split("\n}\n", 1)[0]
    found = [line for line in body.splitlines() if ATOMIC_IN_LLVM.search(line)]
    assert len(found) == 1, "one atomic instruction, and no stand-alone fence"
    assert re.search(IN_LLVM[name], found[0]), found[0]


@pytest.mark.parametrize("name", IN_X86)
def test_the_processor_locks_the_line(name):
    if not re.search("x86", numba.core.registry.cpu_target.target_context.codegen().magic_tuple()[0]):
        pytest.skip("the instructions looked for are those of x86-64")
    function = compiled(name)
    function.compile(arguments(name))
    assert re.search(IN_X86[name], function.inspect_asm(arguments(name)))


# -- tables over raw addresses ------------------------------------------------------------------------------


@numba.njit
def touch_node(address, count):
    rows = table(address, count, NODE)
    rows[1].position = 7
    rows["seat"][2] = 8
    return atomics.fetch_add(rows["word"], 1, 5) + rows[1].position + rows[2]["seat"]


@numba.njit
def touch_step(address, count):
    rows = table(address, count, STEP)
    rows[1].need[2] = 9
    rows["need"][3, 4] = 10
    rows[1].binding.segment = 3
    rows["binding"]["first"][2] = 11
    atomics.store_release(rows["binding"]["count"], 2, 12)
    atomics.store_release(rows["need"][0], 1, 13)
    return rows[1].binding.segment + rows["binding"]["segment"][1] + rows[1]["need"][2] + rows["need"][3, 4]


@numba.njit
def touch_run(address, count):
    rows = table(address, count, RUN)
    rows[1].name[0] = 65
    rows["id"][1, 3] = 9
    return rows[1].name[0] + rows[1]["id"][3]


def test_tables_over_an_address_reach_nested_structs_and_arrays():
    nodes, steps, runs = np.zeros(4, NODE), np.zeros(4, STEP), np.zeros(4, RUN)
    assert touch_node(nodes.ctypes.data, 4) == 7 + 8
    assert nodes[1]["word"] == 5
    assert touch_step(steps.ctypes.data, 4) == 3 + 3 + 9 + 10
    assert (steps[2]["binding"]["first"], steps[2]["binding"]["count"], steps[0]["need"][1]) == (11, 12, 13)
    assert touch_run(runs.ctypes.data, 4) == 65 + 9
    assert (bytes(runs[1]["name"])[:2], runs[1]["id"][3]) == (b"A\0", 9)


# -- between threads and processes --------------------------------------------------------------------------


@numba.njit(nogil=True)
def add_many(array, index, times):
    for _ in range(times):
        atomics.fetch_add(array, index, 1)


@numba.njit(nogil=True)
def swap_many(array, index, times):
    for _ in range(times):
        old = atomics.load_relaxed(array, index)
        while not atomics.compare_exchange(array, index, old, old + 1):
            old = atomics.load_relaxed(array, index)


@numba.njit(nogil=True)
def store_then_look(mine, theirs, seen):
    for i in range(len(mine)):
        atomics.exchange(mine, i, 1)
        seen[i] = atomics.load_seq_cst(theirs, i)


def together(*calls):
    threads = [threading.Thread(target=function, args=arguments) for function, *arguments in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)


@pytest.mark.parametrize("change", [add_many, swap_many])
@pytest.mark.parametrize("kind", [np.int64, np.uint32])
def test_no_change_is_lost_between_threads(change, kind):
    array = np.zeros(3, kind)
    change(array, 1, 0)
    together(*[(change, array, 1, 50_000)] * 4)
    assert array.tolist() == [0, 200_000, 0]


def test_of_two_threads_that_exchange_and_then_look_one_sees_the_other():
    """What the bells stand on: without a sequentially consistent change first, both may look before either is seen."""
    count = 200_000
    first, second = np.zeros(count, np.uint64), np.zeros(count, np.uint64)
    by_first, by_second = np.full(count, 9, np.uint64), np.full(count, 9, np.uint64)
    store_then_look(first[:0], second[:0], by_first[:0])
    together((store_then_look, first, second, by_first), (store_then_look, second, first, by_second))
    assert not np.any((by_first == 0) & (by_second == 0))


ADDER = """
import mmap, sys
import numpy as np, numba
from symphony.native.atomics import fetch_add, compare_exchange, load_acquire

@numba.njit
def add(array, times):
    fetch_add(array, 1, 1)
    while load_acquire(array, 1) != 2:
        pass
    for _ in range(times):
        fetch_add(array, 0, 1)
        old = load_acquire(array, 2)
        while not compare_exchange(array, 2, old, old + 1):
            old = load_acquire(array, 2)

memory = mmap.mmap(int(sys.argv[1]), 64)
words = np.frombuffer(memory, np.uint64)
add.compile("void(uint64[::1], int64)")
add(words, 100_000)
"""


def test_no_change_is_lost_between_processes():
    name = f"/symphony-test-atomics-{secrets.token_hex(8)}"
    made = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600, size=64)
    processes = []
    try:
        command = [sys.executable, "-c", ADDER, str(made.fd)]
        processes += [subprocess.Popen(command, cwd=ROOT, pass_fds=[made.fd]) for _ in range(2)]
        assert [process.wait(100) for process in processes] == [0, 0]
        with open(f"/dev/shm{name}", "rb") as file:
            words = np.frombuffer(file.read(), np.uint64)
        assert words[:4].tolist() == [200_000, 2, 200_000, 0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
        made.close_fd()
        posix_ipc.unlink_shared_memory(name)
