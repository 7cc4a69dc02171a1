"""The small protocols of csrc: stamp, seqlock, bells."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from symphony.model.errors import SegmentError
from symphony.native import ffi, lib
from symphony.shmem.segment import Region, Segment
from tools.stepping.calls import c_call
from tools.stepping.core import Case, Operation

BLOCK = 64


class StampCase(Case):
    """A whole segment but for its stamp's last word, or a whole one. Truth: can it be attached, and what it holds."""

    def __init__(self, home: Any, live: bool) -> None:
        self.segment = Segment.create(home.registry, home.name, "run", [Region("data", "u8", 100)])
        self.segments = [self.segment]
        self.segment.table("data")[:] = 7
        stamp = ffi.cast("sym_stamp_t *", self.segment.address_of_stamp("magic"))
        if not live:
            stamp.magic = stamp.state = 0
        self.act = c_call("sym_stamp_clear" if live else "sym_stamp_publish", int(ffi.cast("intptr_t", stamp)))

    def attach(self) -> None:
        return None

    def judge(self, there: None) -> tuple[Any, Iterable[Any]]:
        try:
            with Segment.attach(self.segment.name, kind="run") as seen:
                return ("attached", bytes(seen.table("data"))), ()
        except SegmentError as error:
            if "is not whole yet, or is being removed" not in str(error):
                return "refused", [f"refused for another reason: {error}"]
            return ("refused", b""), ()


class SeqlockCase(Case):
    """A block that one writer changes. A reader copies it whole or is told that it cannot; the next writer goes on."""

    def __init__(self, home: Any, odd: bool) -> None:
        regions = [Region("lock", "sym_seqlock_t", 1), Region("block", "u64", BLOCK)]
        self.segment = Segment.create(home.registry, home.name, "run", regions)
        self.segments = [self.segment]
        self.source = ffi.new("uint64_t[]", [2] * BLOCK)
        self.odd = odd
        lock, block = self.segment.address("lock"), self.segment.address("block")
        first = ffi.new("uint64_t[]", [1] * BLOCK)
        lib.sym_seqlock_write(ffi.cast("sym_seqlock_t *", lock), ffi.cast("void *", block), first, BLOCK * 8)
        if odd:
            ffi.cast("sym_seqlock_t *", lock).sequence -= 1
        self.act = c_call("sym_seqlock_write", lock, block, int(ffi.cast("intptr_t", self.source)), BLOCK * 8)

    def attach(self) -> tuple[Any, Any]:
        self.there = Segment.attach(self.segment.name, writable=True)
        return ffi.cast("sym_seqlock_t *", self.there.address("lock")), ffi.cast("void *", self.there.address("block"))

    def judge(self, there: tuple[Any, Any]) -> tuple[Any, Iterable[Any]]:
        found = self._read(there)
        successor = ffi.new("uint64_t[]", [3] * BLOCK)
        lib.sym_seqlock_write(*there, successor, BLOCK * 8)
        problems = [] if self._read(there) == (3,) else ["the next writer's block is not read after it"]
        if len(found) > 1:
            problems.append(f"a reader got a mix: {found}")
        return found, problems

    @staticmethod
    def _read(there: tuple[Any, Any]) -> tuple[Any, ...]:
        copy = ffi.new("uint64_t[]", BLOCK)
        if lib.sym_seqlock_read(*there, copy, BLOCK * 8, 3) == lib.SYM_E_BUSY:
            return ("busy",)
        return tuple(sorted(set(copy)))

    def between(self, before: Any, after: Any) -> list[Any]:
        """A block that is changed in place can be had neither old nor new while its writer is in it: the reader is
        told so, at once."""
        return [before, ("busy",), after]


def writing(effort: str) -> Iterator[dict[str, bool]]:
    yield from ({"odd": odd} for odd in (False, True))


class BellCase(Case):
    """The futex bell: the count is what a sleeper compares, so it is all there is to see."""

    def __init__(self, home: Any) -> None:
        self.segment = Segment.create(home.registry, home.name, "run", [Region("bell", "u32", 32)])
        self.segments = [self.segment]
        self.act = c_call("sym_bell_ring", self.segment.address("bell"))

    def attach(self) -> Any:
        self.there = Segment.attach(self.segment.name)
        return ffi.cast("uint32_t *", self.there.address("bell"))

    def judge(self, there: Any) -> tuple[Any, Iterable[Any]]:
        rung = int(there[0])
        problems = []
        # Who saw another count before sleeping does not sleep; who saw this one wakes at his deadline.
        if lib.sym_bell_wait(there, rung ^ 1, 1_000_000_000) != 1 or lib.sym_bell_wait(there, rung, 1_000) != 0:
            problems.append("a waiter sleeps although the bell was rung, or does not wake")
        return rung, problems


class PipeCase(Case):
    """The pipe bell: what lies in the pipe outlives the ringer. A page of memory goes with it, so that there is one."""

    def __init__(self, home: Any, call: str) -> None:
        self.segment = Segment.create(home.registry, home.name, "run", [Region("data", "u8", 8)])
        self.segments = [self.segment]
        self.out, self.into = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.unseen = True
        self.act = c_call(call, self.into)

    def attach(self) -> None:
        return None

    def judge(self, there: None) -> tuple[Any, Iterable[Any]]:
        waiting = int(lib.sym_bell_pipe_drain(self.out))
        lib.sym_bell_pipe_ring(self.into)
        problems = [] if waiting in (0, 1) else [f"{waiting} bytes lie in the pipe after one ring"]
        if lib.sym_bell_pipe_drain(self.out) != 1:
            problems.append("the pipe does not carry the next ring")
        return "pipe", problems

    def close(self) -> None:
        os.close(self.out)
        os.close(self.into)
        super().close()


OPERATIONS = (
    Operation("stamp.publish", ("sym_stamp_publish",), lambda home: StampCase(home, live=False)),
    Operation("stamp.clear", ("sym_stamp_clear",), lambda home: StampCase(home, live=True)),
    Operation("seqlock.write", ("sym_seqlock_write",), SeqlockCase, writing),
    Operation("bell.ring", ("sym_bell_ring",), BellCase),
    Operation("bell.pipe", ("sym_bell_pipe_ring",), lambda home: PipeCase(home, "sym_bell_pipe_ring")),
)
