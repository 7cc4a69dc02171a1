"""A segment: POSIX shared memory (or a sealed memfd) with a stamp, a directory of regions, and its own layout's text.

    0        256          …              128-aligned regions
    stamp  | directory  | region | region | … | layout (text)

Made exclusively, mode 0600; space is taken before it is used, so that a full /dev/shm is NoSpace here and never a
SIGBUS later; the stamp is stored last. Removed the other way round: stamp cleared, unlinked, struck out of the
registry. A kill in between leaves a segment that nobody can attach, or a name that the registry lists, or nothing.

A region may be sparse: more address space than memory behind it (`allocated` rows); `grow` takes more. Rows beyond
are not to be touched: even reading one makes the kernel find a page for it, and ends in SIGBUS when there is none.
"""

import fcntl
import mmap
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from symphony.model.errors import AbiMismatch, NoSpace, SegmentError, UsageError
from symphony.native import ffi, lib
from symphony.native.layout import FINGERPRINT, constants, dtype, names, size_of
from symphony.shmem import space
from symphony.shmem.describe import first_difference, layout_of
from symphony.shmem.names import segment_name
from symphony.shmem.registry import Registry
from symphony.shmem.space import PAGE, up

STAMP_BYTES = constants["SYM_STAMP_BYTES"]
REGION_BYTES = size_of("sym_region_t")
NAME_BYTES = constants["SYM_NAME_BYTES"]
ALIGN = constants["SYM_LINE_BYTES"]
KINDS = {name: number for number, name in names("sym_segment_kind").items()}
PLAIN = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "text": 1}
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


@dataclass(frozen=True)
class Region:
    """Rows of one type: a struct of the ABI, or u8, u16, u32, u64, text. `allocated`: rows that have memory from the
    start; None for all."""

    name: str
    type: str
    count: int
    allocated: int | None = None

    @property
    def stride(self) -> int:
        return stride_of(self.type)


@dataclass(frozen=True)
class Place:
    """Where a region lies in its segment: bytes from the start, rows, bytes a row, type."""

    offset: int
    count: int
    stride: int
    type: str


def stride_of(kind: str) -> int:
    """Bytes of a row of that type. Raises UsageError for a type that is not of the ABI."""
    if kind in PLAIN:
        return PLAIN[kind]
    try:
        return size_of(kind)
    except ffi.error:
        raise UsageError(
            f"no type {kind!r} in the memory ABI: a struct of shm/, or one of {', '.join(PLAIN)}"
        ) from None


class Segment:
    """A mapped segment. Owns the mapping, and the descriptor of a memfd; tables and buffers are views into it.

    `close` unmaps as soon as no view is left: a table, memoryview or buffer that outlives it keeps the memory mapped
    and stays whole, never dangling. An address from `address` keeps nothing: it ends with `close`. Methods are safe
    from any thread, but `close` must not race them. After a fork the child has the same memory, and what it does to
    the segment, `unlink` included, it does for both.
    """

    def __init__(
        self,
        name: str,
        memory: mmap.mmap,
        descriptor: int,
        registry: Registry | None,
        writable: bool,
        places: "dict[str, Place] | None" = None,
    ) -> None:
        self.name, self.size, self.writable = name, len(memory), writable
        self.descriptor = descriptor
        self._memory: mmap.mmap | None = memory
        self._registry = registry
        self._view = ffi.from_buffer("uint8_t[]", memory, require_writable=writable)
        self._base = int(ffi.cast("intptr_t", self._view))
        try:
            self._places = (
                places if places is not None else _read_directory(self._base, self.size, name or "the segment")
            )
        except BaseException:
            ffi.release(self._view)
            raise

    # -- making -------------------------------------------------------------------------------------------

    @classmethod
    def create(
        cls, registry: Registry, instance: str, kind: str, regions: Iterable[Region], *, generation: int = 1
    ) -> "Segment":
        """Make a named segment, stamped and ready; its memory is zero. Raises NoSpace, SegmentExists, NotAllowed,
        UsageError; then nothing is left. Costs some tens of microseconds and the pages that it takes."""
        planned, size, text = _plan(list(regions), kind)
        name = segment_name(instance, kind)
        registry.enter(name)
        try:
            descriptor = space.make(name)
        except BaseException:
            registry.leave(name)
            raise
        try:
            memory = _take_space(descriptor, planned, size, name)
            _write_head(memory, planned, size, text, kind, instance, generation)
            segment = cls(name, memory, -1, registry, True)
        except BaseException:
            space.unlink(name)
            registry.leave(name)
            raise
        finally:
            os.close(descriptor)
        lib.sym_stamp_publish(segment._stamp())
        return segment

    @classmethod
    def create_memfd(cls, instance: str, kind: str, regions: Iterable[Region], *, generation: int = 1) -> "Segment":
        """Make a memfd sealed against shrink and grow, which has no name; mapped read-only here. `descriptor` is for
        the one who writes, and is closed by `close`. Raises NoSpace, UsageError."""
        planned, size, text = _plan(list(regions), kind)
        descriptor = os.memfd_create(f"symphony.{instance}.{kind}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            writing = _take_space(descriptor, planned, size, kind)
            fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)
            _write_head(writing, planned, size, text, kind, instance, generation)
            pointer = ffi.from_buffer("uint8_t[]", writing)
            lib.sym_stamp_publish(ffi.cast("sym_stamp_t *", pointer))
            ffi.release(pointer)
            writing.close()
            memory = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)
            return cls("", memory, descriptor, None, False)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def reattach_memfd(cls, descriptor: int, kind: str, regions: Iterable[Region]) -> "Segment":
        """Map a memfd of `create_memfd` again, read-only, by the same regions: not a word of it is believed, since
        another may have written all of it. The descriptor becomes the segment's. Raises SegmentError for another size."""
        planned, size, _ = _plan(list(regions), kind)
        have = os.fstat(descriptor).st_size
        if have != size:
            raise SegmentError(f"the memory of a segment of kind {kind} has {have} bytes, not {size}: it is another's")
        places = {region.name: Place(at, region.count, region.stride, region.type) for region, at in planned}
        memory = mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ)
        return cls("", memory, descriptor, None, False, places)

    # -- attaching ----------------------------------------------------------------------------------------

    @classmethod
    def attach(
        cls, name: str, *, writable: bool = False, kind: str | None = None, registry: Registry | None = None
    ) -> "Segment":
        """Map an existing segment, of any kind or of `kind`. With `registry`, `unlink` strikes it out there.

        Raises NoSuchSegment, NotAllowed, AbiMismatch (naming the first field that differs), SegmentError for what is
        half made, damaged or of another kind. NumPy is not imported.
        """
        descriptor = space.open_(name, writable=writable)
        try:
            return cls.attach_fd(descriptor, writable=writable, kind=kind, name=name, registry=registry)
        finally:
            os.close(descriptor)

    @classmethod
    def attach_fd(
        cls,
        descriptor: int,
        *,
        writable: bool = False,
        kind: str | None = None,
        name: str = "",
        registry: Registry | None = None,
    ) -> "Segment":
        """The same by a descriptor, which stays the caller's."""
        what = name or "the segment"
        size = os.fstat(descriptor).st_size
        # Read before it is mapped: a page without memory, of a segment that is just being made, cannot fault here.
        if size < STAMP_BYTES or not any(os.pread(descriptor, 8, 0)):
            raise SegmentError(f"{what} carries no stamp: it is not whole yet, or is being removed")
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        memory = mmap.mmap(descriptor, size, mmap.MAP_SHARED, protection)
        try:
            _check_stamp(memory, size, kind, what)
            return cls(name, memory, -1, registry, writable)
        except BaseException:
            _close_quietly(memory)
            raise

    # -- using --------------------------------------------------------------------------------------------

    @property
    def regions(self) -> dict[str, Place]:
        return dict(self._places)

    @property
    def generation(self) -> int:
        return int(self._stamp().generation)

    @property
    def buffer(self) -> mmap.mmap:
        """The whole mapping, as an object that gives memoryviews."""
        if self._memory is None:
            raise SegmentError(f"segment {self.name} is closed")
        return self._memory

    def offset(self, region: str) -> int:
        """Bytes from the segment's start to a region's first row. KeyError for a region that it does not have."""
        return self._places[region].offset

    def address(self, region: str) -> int:
        """Address of a region's first byte in this process; valid until `close`."""
        return self._mapped() + self._places[region].offset

    def address_of_stamp(self, field: str) -> int:
        """Address of a field of the stamp in this process; valid until `close`."""
        return self._mapped() + ffi.offsetof("sym_stamp_t", field)

    def table(self, region: str) -> Any:
        """A region as a NumPy array of its struct's dtype, shape (count,), over the segment's memory; read-only if it
        is mapped so. Of a sparse region only the allocated rows may be touched."""
        import numpy as np

        place = self._places[region]
        plain = {"u8": "<u1", "text": "<u1", "u16": "<u2", "u32": "<u4", "u64": "<u8"}
        kind = np.dtype(plain[place.type]) if place.type in plain else dtype(place.type)
        return np.ndarray((place.count,), kind, self.buffer, place.offset)

    def grow(self, region: str, rows: int) -> None:
        """Take memory for so many rows of a region in all (again is harmless). Raises NoSpace; what was there stays.
        For a named segment whose name is still there."""
        place = self._places[region]
        if rows > place.count:
            raise NoSpace(f"region {region} of {self.name} ends at {place.count} rows, {rows} were asked for")
        descriptor = space.open_(self.name, writable=True)
        try:
            space.take(descriptor, place.offset, place.offset + rows * place.stride, self.name)
        finally:
            os.close(descriptor)

    def _mapped(self) -> int:
        if self._memory is None:
            raise SegmentError(f"segment {self.name} is closed")
        return self._base

    def _stamp(self) -> Any:
        return ffi.cast("sym_stamp_t *", self._mapped())

    # -- ending -------------------------------------------------------------------------------------------

    def unlink(self) -> None:
        """Take the name away; those who have it mapped keep it. Idempotent; only for who may write it."""
        if not self.name:
            return
        if self.writable and self._memory is not None:
            lib.sym_stamp_clear(self._stamp())
        space.unlink(self.name)
        if self._registry is not None:
            self._registry.leave(self.name)

    def tell_owners(self, keeper_pid: int, stays: bool) -> None:
        """Name this process as the owner, and the engine's Keeper beside it, for whoever sweeps (only for who may write
        it). A Conductor that took the segment over is its owner from here on."""
        stamp = self._stamp()
        stamp.keeper_start, stamp.keeper_pid = lib.sym_process_start(keeper_pid), keeper_pid
        stamp.stays = int(stays)
        stamp.owner_start, stamp.owner_pid = lib.sym_process_start(os.getpid()), os.getpid()
        stamp.pid_namespace = _pid_namespace()

    @staticmethod
    def discard(name: str, registry: Registry) -> None:
        """Take away a segment that nobody has, half made as it may be, and strike it out."""
        space.unlink(name)
        registry.leave(name)

    def close(self) -> None:
        """Unmap, and close a memfd. Idempotent. Views that are still held keep the memory until they are gone."""
        if self._memory is None:
            return
        memory, self._memory = self._memory, None
        ffi.release(self._view)
        _close_quietly(memory)
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __enter__(self) -> "Segment":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _text(column: Any) -> str:
    return ffi.string(ffi.cast("char *", column), len(column)).decode(errors="replace")


def _close_quietly(memory: mmap.mmap) -> None:
    """A view that is still held keeps the mapping: it goes with the last of them."""
    try:
        memory.close()
    except BufferError:
        pass


@cache
def _boot_id() -> bytes:
    """The kernel's, so that a segment of an earlier boot is not believed; zeros where it cannot be read."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return bytes.fromhex(file.read().strip().replace("-", ""))
    except OSError:
        return bytes(16)


def _pid_namespace() -> int:
    """In which the owner's pid means it: /dev/shm may be shared with other containers. Not remembered, since a fork
    after unshare is in another one; 0 where it cannot be read."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


def _plan(regions: list[Region], kind: str) -> tuple[list[tuple[Region, int]], int, bytes]:
    """Where each region goes, the segment's size, and its layout's text."""
    if kind not in KINDS:
        raise UsageError(f"no kind of segment {kind!r}: one of {', '.join(KINDS)}")
    text = layout_of(tuple(region.type for region in regions))
    regions = [*regions, Region("layout", "text", len(text))]
    if len({region.name for region in regions}) < len(regions):
        raise UsageError(f"two regions of one name: {', '.join(region.name for region in regions)}")
    at = up(STAMP_BYTES + len(regions) * REGION_BYTES, ALIGN)
    planned = []
    for region in regions:
        if not 0 < len(region.name.encode()) < NAME_BYTES or region.count < 0:
            raise UsageError(
                f"region {region.name!r} of {region.count} rows: a name of 1 to 31 bytes, rows of 0 or more"
            )
        sparse = region.allocated is not None and region.allocated < region.count
        at = up(at, PAGE if sparse else ALIGN)
        planned.append((region, at))
        at += region.count * region.stride
        if sparse:
            at = up(at, PAGE)
    return planned, up(at, PAGE), text


def _take_space(descriptor: int, planned: list[tuple[Region, int]], size: int, name: str) -> mmap.mmap:
    if all(region.allocated is None for region, _ in planned):
        space.take(descriptor, 0, size, name)
    else:
        os.ftruncate(descriptor, size)
        space.take(descriptor, 0, planned[0][1], name)
        for region, at in planned:
            rows = region.count if region.allocated is None else min(region.allocated, region.count)
            space.take(descriptor, at, at + rows * region.stride, name)
    return mmap.mmap(descriptor, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)


def _write_head(
    memory: mmap.mmap,
    planned: list[tuple[Region, int]],
    size: int,
    text: bytes,
    kind: str,
    instance: str,
    generation: int,
) -> None:
    """Stamp (all but its magic), directory and layout."""
    head = ffi.new("sym_stamp_t *")
    head.abi, head.kind, head.fingerprint = constants["SYM_ABI_VERSION"], KINDS[kind], FINGERPRINT
    head.size_bytes, head.generation, head.region_count = size, generation, len(planned)
    head.owner_pid, head.owner_start = os.getpid(), lib.sym_process_start(os.getpid())
    head.pid_namespace = _pid_namespace()
    ffi.memmove(head.boot_id, _boot_id(), 16)
    ffi.memmove(head.instance, instance.encode()[:31], len(instance.encode()[:31]))
    memory[:STAMP_BYTES] = bytes(ffi.buffer(head))
    rows = ffi.new("sym_region_t[]", len(planned))
    for row, (region, at) in zip(rows, planned, strict=True):
        ffi.memmove(row.name, region.name.encode(), len(region.name.encode()))
        ffi.memmove(row.type, region.type.encode(), len(region.type))
        row.offset_bytes, row.count, row.stride_bytes = at, region.count, region.stride
    memory[STAMP_BYTES : STAMP_BYTES + ffi.sizeof(rows)] = bytes(ffi.buffer(rows))
    at = planned[-1][1]
    memory[at : at + len(text)] = text


def _read_directory(base: int, size: int, what: str) -> dict[str, Place]:
    """The regions by name, each bounded by the segment and of its type's size: the directory is as little trusted as
    any word that another process can write."""
    count = int(ffi.cast("sym_stamp_t *", base).region_count)
    if STAMP_BYTES + count * REGION_BYTES > size:
        raise SegmentError(f"{what} is damaged: its directory of {count} regions does not fit it")
    rows = ffi.cast("sym_region_t *", base + STAMP_BYTES)
    places = {}
    for row in (rows[i] for i in range(count)):
        name, place = (
            _text(row.name),
            Place(int(row.offset_bytes), int(row.count), int(row.stride_bytes), _text(row.type)),
        )
        if place.offset % ALIGN or place.offset + place.count * place.stride > size:
            raise SegmentError(f"{what} is damaged: region {name!r} lies outside it or out of line")
        if place.stride != stride_of(place.type):
            raise SegmentError(
                f"{what} is damaged: region {name!r} has rows of {place.stride} bytes, not {place.type}'s"
            )
        places[name] = place
    return places


def _check_stamp(memory: mmap.mmap, size: int, kind: str | None, what: str) -> None:
    pointer = ffi.from_buffer("uint8_t[]", memory)
    try:
        stamp = ffi.cast("sym_stamp_t *", pointer)
        code = lib.sym_stamp_check(stamp, KINDS[kind] if kind else 0, FINGERPRINT, size)
        if code:
            raise _refusal(code, stamp, memory, kind, what)
        made = bytes(stamp.boot_id)
        if made != _boot_id() and any(made) and any(_boot_id()):
            raise SegmentError(f"{what} was made before this machine's last start: its owner is gone, remove it")
    finally:
        ffi.release(pointer)


def _refusal(code: int, stamp: Any, memory: mmap.mmap, kind: str | None, what: str) -> SegmentError:
    mine = constants["SYM_ABI_VERSION"]
    if code == lib.SYM_E_ABI:
        difference = first_difference(_own_layout(memory, stamp))
        return AbiMismatch(
            f"{what} has ABI version {stamp.abi}, this Symphony has {mine}; the first difference: {difference}; "
            "use the Symphony that made it"
        )
    if code == lib.SYM_E_LAYOUT:
        difference = first_difference(_own_layout(memory, stamp))
        return AbiMismatch(
            f"{what} was made by another build of Symphony; the first difference: {difference}; "
            "use the build that made it"
        )
    if code == lib.SYM_E_SIZE:
        return SegmentError(
            f"{what} has {len(memory)} bytes, its stamp says {stamp.size_bytes}: it was cut or replaced"
        )
    if code == lib.SYM_E_KIND:
        theirs = names("sym_segment_kind").get(stamp.kind, str(stamp.kind))
        return SegmentError(f"{what} is a segment of kind {theirs}, not {kind}")
    if code == lib.SYM_E_FRESH:
        return SegmentError(f"{what} carries no stamp: it is not whole yet, or is being removed")
    return SegmentError(f"{what} is not a segment of Symphony")


def _own_layout(memory: mmap.mmap, stamp: Any) -> str:
    """The text by which a segment describes itself, read by the directory's form; empty if there is none."""
    for index in range(min(int(stamp.region_count), 64)):
        at = STAMP_BYTES + index * REGION_BYTES
        if at + REGION_BYTES > len(memory):
            break
        row = ffi.from_buffer("sym_region_t *", memory[at : at + REGION_BYTES])
        if _text(row.name) == "layout":
            return bytes(memory[row.offset_bytes : row.offset_bytes + row.count]).decode(errors="replace")
    return ""
