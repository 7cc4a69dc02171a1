"""The work of a recorded workflow's task: as much computing, as many bytes, and a result that can be checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from blake3 import blake3

WORK_BYTES = 64
CHECK_BLOCKS = 50
_BLOCK = bytes(1 << 16)  # hashed in about 20 us: the clock is looked at often enough, and its cost does not show


def work(
    task: str,
    inputs: Sequence[Any] = (),
    seconds: float = 0.0,
    sizes: Sequence[int] = (WORK_BYTES,),
    check: Callable[[], None] = lambda: None,
) -> list[bytes]:
    """Compute for `seconds` of processor time, then give one bytes item for each of `sizes`.

    Each item begins with the 64 bytes of BLAKE3(task's name in UTF-8, then the inputs' bytes in the order given: the
    caller sorts them by file name) and goes on with the same hash's further output: anybody can compute it again.
    inputs: bytes-like items, or lists of them. Sizes below 64 count as 64. No seconds: no computing but that hash.
    `check` is called about every millisecond and may raise to end the work.
    Raises `ValueError` for a negative number, `TypeError` for an input that is not bytes.
    """
    if seconds < 0 or any(size < 0 for size in sizes):
        raise ValueError(f"work: seconds = {seconds} and sizes = {list(sizes)} of task {task!r}: none may be negative")
    hasher = blake3(task.encode())
    _feed(hasher, inputs, task)
    compute(seconds, check)
    longest = hasher.digest(length=max([WORK_BYTES, *sizes]))
    return [longest[: max(WORK_BYTES, size)] for size in sizes]


def _feed(hasher: Any, inputs: Sequence[Any], task: str) -> None:
    for number, part in enumerate(inputs):
        if isinstance(part, bytes | bytearray | memoryview):
            hasher.update(part)
        elif isinstance(part, Sequence) and not isinstance(part, str):
            _feed(hasher, part, task)
        else:
            raise TypeError(f"work: input {number} of task {task!r} is {type(part).__name__}, not bytes")


def compute(seconds: float, check: Callable[[], None] = lambda: None) -> int:
    """Use the processor for `seconds` of this thread's time, by hashing; returns how many blocks were hashed.

    Processor time, not the wall clock: two tasks that share a core take twice as long, as real ones would.
    """
    if seconds <= 0:
        return 0
    hasher, blocks, end = blake3(), 0, time.thread_time() + seconds
    while time.thread_time() < end:
        if not blocks % CHECK_BLOCKS:
            check()
        hasher.update(_BLOCK)
        blocks += 1
    return blocks
