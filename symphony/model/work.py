"""What a task of a recorded workflow computes when it only pretends to work: a digest that anybody can recompute."""

from collections.abc import Iterable

WORK_BYTES = 64


def work_bytes(name: str, inputs: Iterable[bytes | bytearray | memoryview], size: int = WORK_BYTES) -> bytes:
    """`size` bytes (64 unless told): BLAKE3 of the task's name in UTF-8 and its inputs' bytes, in the order given.

    The caller orders the inputs by their file names. A longer result begins with the shorter one (BLAKE3 gives output
    of any length). Cost: one pass over the inputs; the interpreter's lock is released for large ones.
    """
    from blake3 import blake3

    hasher = blake3(name.encode())
    for part in inputs:
        hasher.update(part)
    return hasher.digest(length=size)
