"""The bare ring: messages from one process to another over shared memory, without an engine.

    with Ring.create("jobs", 1 << 20) as ring:          # in one process, which will remove it
        ring.send(b"hello")

    with Ring.attach("jobs") as ring:                   # in the other
        ring.receive(timeout=5)

A ring goes one way: whoever sends first is its sender, whoever receives first its receiver, each one at a time (a
second is refused; the place is free again when its holder closes or dies). Two ways are two rings. It is found as an
engine named `ring.NAME` is, by the same user only. Both sides are one trust domain: each may write the whole memory,
and a broken one is met with RingCorrupt, never with a fault.
"""

import fcntl
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from symphony.model.errors import NoSuchSegment, RingClosed, RingError, SegmentError, SegmentExists, UsageError
from symphony.native import ffi, lib
from symphony.native._door import Receiver, Sender
from symphony.shmem.names import check_instance_name, runtime_base
from symphony.shmem.registry import Registry
from symphony.shmem.segment import Region, Segment

SMALLEST_BYTES = 256
USER_KIND = 16
_PLACES = {"sender": 0, "receiver": 1}
"""The byte of the segment's file that each side locks."""


class Ring:
    """One ring. Made by `create` or `attach`. A context manager; `close` ends its use here.

    Safe to share between threads, but only one thread may wait on a side at a time. Not to be used by both sides of
    a fork: attach anew in the child. `send` and `receive` cost about 50 ns each for small records while neither side
    sleeps, a round trip between two processes about a microsecond; a side that sleeps takes some tens more to wake.
    """

    def __init__(self, name: str, segment: Segment, owned: bool) -> None:
        self.name = name
        self._segment: Segment | None = segment
        self._owned = owned
        self._pid = os.getpid()
        self._sides: dict[str, Any] = {}
        self._locks: list[int] = []

    # -- making ---------------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, name: str, size: int = 1 << 16) -> "Ring":
        """Makes the ring `name` with `size` bytes for records, a power of two of at least 256; a record takes its
        bytes and 8, rounded up to 8, and at most half of it. It goes when this object is closed.

        Raises SegmentExists while the maker of one of that name lives (a dead maker's is removed first), UsageError
        for the name or size, NoSpace when shared memory is full."""
        if size < SMALLEST_BYTES or size & (size - 1):
            raise UsageError(f"a ring of {size} bytes: the size is a power of two of at least {SMALLEST_BYTES}")
        instance = _instance(name)
        regions = [
            Region("producer", "sym_ring_producer_t", 1),
            Region("consumer", "sym_ring_consumer_t", 1),
            Region("bells", "sym_ring_bells_t", 1),
            Region("data", "u8", size),
        ]
        with _one_at_a_time():
            registry = Registry(instance)
            _sweep(registry, name)
            return cls(name, Segment.create(registry, instance, "ring", regions), owned=True)

    @classmethod
    def attach(cls, name: str) -> "Ring":
        """The ring that another process made. Raises NoSuchSegment, AbiMismatch (made by another build), NotAllowed."""
        with _one_at_a_time():
            for found in Registry(_instance(name)).names():
                with suppress(NoSuchSegment):
                    return cls(name, Segment.attach(found, writable=True, kind="ring"), owned=False)
            _forget_folder(_instance(name))
        raise NoSuchSegment(f"there is no ring {name!r}; Ring.create({name!r}) makes it")

    # -- using ----------------------------------------------------------------------------------------------------

    def send(self, buffer: Any, kind: int = USER_KIND, timeout: float | None = None) -> None:
        """Sends one record: any contiguous buffer, copied into the ring. `kind`, 16 to 65535, travels with it.

        Waits for room for at most `timeout` seconds (None: for ever, 0: not at all). Raises RingFull, RingClosed
        (nobody receives any more), RecordTooLong, RingCorrupt; RingError when another sender holds the ring."""
        self._side("sender").send(buffer, kind, timeout)

    def send_many(self, buffers: Iterable[Any], kind: int = USER_KIND, timeout: float | None = None) -> int:
        """Sends each buffer as a record; shown to the receiver together as far as they fit. How many: all of them.

        `timeout` is for each wait for room; RingFull.facts["sent"] says how many went before it. Raises as `send`."""
        return self._side("sender").send_many(buffers, kind, timeout)

    def receive(self, timeout: float | None = None) -> bytes:
        """The next record, a copy. Waits at most `timeout` seconds (None: for ever, 0: not at all).

        Raises WaitTimeout, RingClosed (the sender closed and everything was received), RingCorrupt; RingError when
        another receiver holds the ring."""
        return self._side("receiver").receive(timeout)

    def receive_many(self, n: int, timeout: float | None = None) -> list[bytes]:
        """Up to `n` records, copies; waits for the first only. Empty when none came in time. Raises as `receive`."""
        return self._side("receiver").receive_many(n, timeout)

    def receive_view(self, timeout: float | None = None) -> memoryview:
        """The next record without a copy: read-only, over the ring's memory, until `release`. Raises as `receive`."""
        return self._side("receiver").receive_view(timeout)

    def release(self) -> None:
        """Gives the room of every record got by `receive_view` back; BufferError while one of the views is open."""
        self._side("receiver").release()

    @property
    def kind(self) -> int:
        """Kind of the record received last."""
        return self._side("receiver").kind

    @property
    def size(self) -> int:
        """Bytes for records."""
        return self._open().regions["data"].count

    # -- ending ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends its use here and tells the other side, which still receives what was sent. Its maker removes the ring:
        nobody can attach any more, while those attached go on. Repeatable; BufferError while a view is open."""
        for which in ("receiver", "sender"):  # the receiver may refuse, and then nothing has happened
            if which in self._sides:
                self._sides[which].close()
        if self._segment is None:
            return
        segment, self._segment = self._segment, None
        self._sides.clear()
        for name in ("send", "receive"):
            self.__dict__.pop(name, None)
        for descriptor in self._locks:
            os.close(descriptor)
        if self._owned and self._pid == os.getpid():
            with _one_at_a_time():
                segment.unlink()
                _forget_folder(_instance(self.name))
        segment.close()

    def __enter__(self) -> "Ring":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._segment is None else ", ".join(self._sides) or "unused"
        return f"<Ring {self.name!r}: {state}>"

    # -- within ---------------------------------------------------------------------------------------------------

    def _open(self) -> Segment:
        if self._segment is None:
            raise RingClosed(f"ring {self.name!r} was closed here")
        return self._segment

    def _side(self, which: str) -> Any:
        found = self._sides.get(which)
        if found is None:
            found = self._sides[which] = self._take(which)
            # From now on a call goes straight to C.
            if which == "sender":
                self.send = found.send  # type: ignore[method-assign]
            else:
                self.receive = found.receive  # type: ignore[method-assign]
        return found

    def _take(self, which: str) -> Any:
        segment = self._open()
        self._lock(segment.name, which)
        data, producer, consumer, bells = (
            self._part(segment, name) for name in ("data", "producer", "consumer", "bells")
        )
        at_producer = ffi.offsetof("sym_ring_bells_t", "producer_bell")
        consumer_bell, producer_bell = bells[0:4], bells[at_producer : at_producer + 4]
        if which == "sender":
            return Sender(data, producer, consumer, consumer_bell, producer_bell)
        return Receiver(data, producer, consumer, producer_bell, consumer_bell)

    def _part(self, segment: Segment, region: str) -> memoryview:
        place = segment.regions[region]
        return memoryview(segment.buffer)[place.offset : place.offset + place.count * place.stride]

    def _lock(self, segment_name: str, which: str) -> None:
        """Takes the side's place. The kernel frees it when this process ends, however it ends."""
        try:
            descriptor = os.open(f"/dev/shm{segment_name}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            raise RingClosed(f"ring {self.name!r} was removed by its maker") from None
        request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, _PLACES[which], 1, 0)
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
        except OSError:
            os.close(descriptor)
            raise RingError(f"ring {self.name!r} has a {which} already; a ring takes one at a time") from None
        self._locks.append(descriptor)


def _instance(name: str) -> str:
    return check_instance_name(f"ring.{check_instance_name(name)}")


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Makers and removers of rings go one after the other. Held for a few system calls; the kernel takes it back from
    a process that dies in between."""
    descriptor = os.open(runtime_base(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _sweep(registry: Registry, name: str) -> None:
    """Removes what a dead maker left under this name; SegmentExists if the maker lives."""
    for found in registry.names():
        try:
            with Segment.attach(found, writable=True, registry=registry) as segment:
                stamp = ffi.cast("sym_stamp_t *", segment.address_of_stamp("magic"))
                if stamp.pid_namespace not in (0, os.stat("/proc/self/ns/pid").st_ino):
                    raise SegmentExists(
                        f"ring {name!r} exists; its maker is of another pid namespace, such as another container: "
                        f"whether it lives cannot be told from here. If it does not, remove /dev/shm{found}"
                    )
                if lib.sym_process_start(stamp.owner_pid) == stamp.owner_start:
                    raise SegmentExists(
                        f"ring {name!r} exists; process {stamp.owner_pid} made it. Ring.attach takes part in it"
                    )
                segment.unlink()
        except (NoSuchSegment, SegmentExists) as error:
            if isinstance(error, SegmentExists):
                raise
            registry.leave(found)
        except SegmentError:
            # Not whole: its maker died while making it, since makers go one at a time. Or of another build, and then
            # still in nobody's way: segments of one ring have different names.
            with suppress(FileNotFoundError):
                os.unlink(f"/dev/shm{found}")
            registry.leave(found)


def _forget_folder(instance: str) -> None:
    """Removes the runtime folder of a ring that is gone; another user's or one in use stays."""
    folder = runtime_base() / instance
    for path in (folder / "segments", folder):
        with suppress(OSError):
            path.rmdir()
