"""The tracer's C, built at first use, and what Python has of it: passes, real kills, system calls.

A child is forked from this process for each run, so it has everything ready (imports done, kernels compiled and
loaded), its private memory is a copy, and its shared memory is the same.
"""

import contextlib
import ctypes
import faulthandler
import functools
import hashlib
import os
import platform
import select
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from symphony.native.kernels import cache_base

SOURCE = Path(__file__).with_name("tracer.c")
COMPILE = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-shared", "-fPIC"]
ENDED, STRANGE, TOO_LONG, NO_MEMORY = -1000000, -1000001, -1000002, -1000003
MEANING = {
    ENDED: "it ended before it came there",
    STRANGE: "it met a fault, or stopped where no marker is",
    TOO_LONG: "it took more instructions than are allowed",
    NO_MEMORY: "no memory for what was seen",
}
LIMIT = 20_000_000
"""Instructions of one pass at most."""
DEADLINE_S = 60.0
MOST_REACHED = 256
"""A place that is passed more often than this on the way is reached by stepping."""


class Range(ctypes.Structure):
    """A piece of shared memory that is watched, in this process's mapping, and a copy of it."""

    _fields_ = [("memory", ctypes.c_void_p), ("seen", ctypes.c_void_p), ("size", ctypes.c_uint64)]


class _Trace(ctypes.Structure):
    _fields_ = [
        ("places", ctypes.c_void_p), ("place_count", ctypes.c_uint64), ("place_room", ctypes.c_uint64),
        ("changes", ctypes.c_void_p), ("change_count", ctypes.c_uint64), ("change_room", ctypes.c_uint64),
        ("result", ctypes.c_int64),
    ]  # fmt: skip


CHANGE = np.dtype([("step", "<u8"), ("range", "<u4"), ("word", "<u4"), ("value", "<u8")])
"""After instruction `step`, word `word` of a range held `value`."""


class StepperError(Exception):
    """The stepper itself could not do what it was to do: says nothing about the operation."""


@functools.cache
def library() -> ctypes.CDLL:
    """The tracer, compiled if this source was not before. Raises StepperError where there can be none."""
    if platform.machine() != "x86_64":
        raise StepperError(f"the stepper knows x86-64 only, this is {platform.machine()}")
    name = hashlib.blake2b(SOURCE.read_bytes() + " ".join(COMPILE).encode(), digest_size=8).hexdigest()
    folder = cache_base()
    path = folder / f"stepper-{name}.so"
    if not path.exists():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            fresh = Path(work) / "stepper.so"
            done = subprocess.run(["cc", *COMPILE, "-o", fresh, SOURCE], capture_output=True, text=True, check=False)
            if done.returncode:
                raise StepperError(f"the tracer cannot be compiled: {done.stderr}")
            os.replace(fresh, path)
    loaded = ctypes.CDLL(str(path))
    loaded.stepper_call.restype = ctypes.c_int64
    loaded.stepper_call.argtypes = [ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int]
    loaded.stepper_pass.restype = ctypes.c_int64
    loaded.stepper_pass.argtypes = [
        ctypes.c_int, ctypes.c_uint64, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_void_p,
    ]  # fmt: skip
    loaded.stepper_reach.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64, ctypes.c_uint64]
    loaded.stepper_walk.argtypes = [ctypes.c_int, ctypes.c_uint64, ctypes.c_uint64]
    loaded.stepper_watch.restype = ctypes.c_int64
    loaded.stepper_watch.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint64, ctypes.c_void_p]
    loaded.stepper_syscall.restype = ctypes.c_int64
    for name in ("stepper_begin", "stepper_end"):
        getattr(loaded, name).restype = None
    return loaded


@dataclass(frozen=True)
class Native:
    """A compiled function by address, with integers for arguments: what C operations and kernels come down to."""

    address: int
    arguments: tuple[int, ...]
    keep: tuple[object, ...] = ()
    """What the addresses among the arguments lie in."""

    def __call__(self) -> int:
        packed = np.array([value & (1 << 64) - 1 for value in self.arguments], np.uint64)
        return library().stepper_call(self.address, packed.ctypes.data, len(packed))


@dataclass(frozen=True)
class Scripted:
    """Python code; what lies between its call and its return is stepped."""

    function: Callable[[], object]
    address: int = 0

    def __call__(self) -> int:
        library().stepper_begin()
        self.function()
        library().stepper_end()
        return 0


Act = Native | Scripted


@dataclass
class Trace:
    """One run that was looked at. `points`: how many instructions were stepped, or writes were let through, and so how
    many points there are to kill it after; `places[i]`: of a stepped one, address of the instruction to come after i."""

    points: int
    places: np.ndarray
    changes: np.ndarray
    result: int


def fault(code: int, what: str) -> StepperError:
    return StepperError(f"{what}: {MEANING.get(code, f'code {code}')}")


@contextlib.contextmanager
def child(act: Act) -> Iterator[int]:
    """A traced child that stands at the begin marker of an act; killed at the end of the block."""
    traced = library()
    pid = os.fork()
    if pid == 0:
        _be_stepped(act)
    try:
        code = traced.stepper_await(pid)
        if code:
            raise fault(code, "the child does not come to its begin marker")
        yield pid
    finally:
        kill(pid)


def _be_stepped(act: Act) -> None:
    """The child's life: it never returns, and runs no handler of the process that it is a copy of."""
    faulthandler.disable()
    try:
        if library().stepper_trace_me() == 0:
            act()
    finally:
        os._exit(0)


def kill(pid: int) -> None:
    """SIGKILL, and the child is reaped."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            _, status = os.waitpid(pid, 0)
            if not os.WIFSTOPPED(status):
                return


def run_whole(act: Act) -> None:
    """The act in a child that is not traced, to its end. Raises StepperError when it ends otherwise or not at all."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTRAP, signal.SIG_IGN)
        _run_unstepped(act)
    descriptor = os.pidfd_open(pid)
    try:
        done = select.select([descriptor], [], [], DEADLINE_S)[0]
        if not done:
            raise StepperError(f"the operation has not ended after {DEADLINE_S:.0f} s")
        status = os.waitpid(pid, 0)[1]
        if status:
            raise StepperError(f"the operation ended with wait status {status:#x}")
    finally:
        os.close(descriptor)
        kill(pid)


def _run_unstepped(act: Act) -> None:
    code = 1
    faulthandler.disable()
    try:
        if isinstance(act, Native):
            packed = [ctypes.c_int64(_signed(value)) for value in act.arguments]
            ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(packed))(act.address)(*packed)
        else:
            act.function()
        code = 0
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        os._exit(code)


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


Watched = Sequence[tuple[int, bytearray]]
"""(address, what lies there now) of shared memory, in whole pages."""


def _ranges(watched: Watched) -> ctypes.Array:
    ranges = (Range * len(watched))()
    for row, (address, seen) in zip(ranges, watched, strict=True):
        row.memory, row.size = address, len(seen)
        row.seen = ctypes.addressof((ctypes.c_char * len(seen)).from_buffer(seen))
    return ranges


def step_through(act: Native, watched: Watched, limit: int = LIMIT) -> Trace:
    """One run of a compiled act, stepped from its first instruction to its last, then the child is killed."""
    ranges, trace = _ranges(watched), _Trace()
    with child(act) as pid:
        count = library().stepper_pass(pid, act.address, ranges, len(watched), limit, ctypes.byref(trace))
    return _told(trace, count)


def watch_writes(act: Act, watched: Watched) -> Trace:
    """One run of an act in which each instruction that writes into the watched memory is let through by itself."""
    ranges, trace = _ranges(watched), _Trace()
    with child(act) as pid:
        count = library().stepper_watch(pid, ranges, len(watched), 2**64 - 1, ctypes.byref(trace))
    return _told(trace, count)


def _told(trace: _Trace, count: int) -> Trace:
    try:
        if count < 0:
            raise fault(count, "the run that was looked at broke off")
        places = _copied(trace.places, trace.place_count, np.dtype("<u8"))
        return Trace(count, places, _copied(trace.changes, trace.change_count, CHANGE), trace.result)
    finally:
        library().stepper_forget(ctypes.byref(trace))


def _copied(address: int | None, count: int, kind: np.dtype) -> np.ndarray:
    if not address or not count:
        return np.zeros(0, kind)
    return np.frombuffer(ctypes.string_at(address, count * kind.itemsize), kind)


def kill_before_write(act: Act, watched: Watched, writes: int) -> None:
    """A real process, really killed after so many writes into the watched memory, or at the end of the act."""
    ranges, trace = _ranges(watched), _Trace()
    with child(act) as pid:
        count = library().stepper_watch(pid, ranges, len(watched), writes, ctypes.byref(trace))
    _told(trace, count)


def kill_after(act: Native, trace: Trace, steps: int) -> None:
    """A real process, really killed after so many instructions of an act that was stepped before."""
    place = int(trace.places[steps])
    before = trace.places[: steps + 1]
    times = int((before == place).sum())
    # Stepping stops at each turn of a repeated string instruction, a breakpoint only at its first.
    repeated = bool((before[1:] == before[:-1]).any())
    with child(act) as pid:
        if repeated or times > MOST_REACHED:
            code = library().stepper_walk(pid, act.address, steps)
        else:
            code = library().stepper_reach(pid, act.address, place, times)
        if code:
            raise fault(code, f"instruction {steps} of {trace.points} cannot be reached")


def count_stops(act: Act) -> int:
    """How many entries and exits of system calls an act has, in a whole run."""
    count = 0
    with child(act) as pid:
        while (number := library().stepper_syscall(pid)) >= 0:
            count += 1
    if number != -1:
        raise fault(number, "the run broke off at a system call")
    return count


def kill_at_syscall(act: Act, stop: int) -> int:
    """A real process, really killed at its stop number `stop`, from 0; odd ones are exits. The system call's number, or
    -1 if it came to the end of the act before."""
    number = -1
    with child(act) as pid:
        for _ in range(stop + 1):
            number = library().stepper_syscall(pid)
            if number < 0:
                break
    return number
