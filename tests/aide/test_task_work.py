"""A task's bytes can be computed again by anybody, and its computing takes the processor time asked for."""

from __future__ import annotations

import time

import pytest
from blake3 import blake3

from symphony.aide.operators.working import compute, work
from symphony.model.work import work_bytes


def again(name: str, *inputs: bytes) -> bytes:
    return blake3(name.encode() + b"".join(inputs)).digest(length=64)


def test_bytes_are_the_hash_of_name_and_inputs():
    first = work("größe_1")
    assert first == [again("größe_1")] and len(first[0]) == 64
    second = work("b", [first[0], memoryview(b"xyz"), bytearray(b"")])
    assert second == [again("b", first[0], b"xyz")] == [work_bytes("b", [first[0], b"xyz"])]
    assert work("b", [b"xyz", first[0]]) != second
    assert work("b", [[first[0]], (b"xyz",)]) == second


def test_sizes_extend_the_same_output():
    small, large, zero = work("a", [b"in"], sizes=[64, 100_000, 0])
    assert small == zero == again("a", b"in")
    assert large == blake3(b"ain").digest(length=100_000) and large[:64] == small
    assert work("a", sizes=[]) == []


@pytest.mark.parametrize("seconds", [0.02, 0.05])
def test_computes_for_the_processor_time_asked_for(seconds):
    start = time.thread_time()
    assert compute(seconds) > 0
    assert time.thread_time() - start >= seconds
    assert compute(0) == 0
    assert work("a", seconds=0.001) == work("a")


def test_long_work_can_be_ended():
    class Ended(Exception):
        pass

    left = iter(range(3))

    def check() -> None:
        if next(left, None) is None:
            raise Ended

    with pytest.raises(Ended):
        work("a", seconds=3600, check=check)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="of task 'a': none may be negative"):
        work("a", seconds=-1)
    with pytest.raises(ValueError, match="none may be negative"):
        work("a", sizes=[64, -1])
    with pytest.raises(TypeError, match="input 1 of task 'a' is str, not bytes"):
        work("a", [b"", "text"])
