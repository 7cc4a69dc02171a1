"""A segment or a dump as read-only memory that costs its owner nothing.

A read fault on a hole of shared memory would give it a page, so holes are asked for (SEEK_DATA) and never touched:
they read as zeros.
"""

import contextlib
import errno
import mmap
import os
import stat
import struct
from bisect import bisect_right
from typing import Any

from symphony.model.errors import NoSuchSegment, NotAllowed, SegmentError

SHM = "/dev/shm"
MAX_EXTENTS = 65536
"""More pieces of data than this and the rest of the file counts as one."""


class Memory:
    """A file mapped read-only. `name` is a segment's POSIX name, or the path. Owns the mapping and keeps no descriptor.

    The map of holes is taken when it is opened: rows written into former holes later read as zeros; open it again.
    """

    def __init__(self, name: str, path: str) -> None:
        self.name, self.path = name, path
        descriptor = _open(name, path)
        try:
            found = os.fstat(descriptor)
            self.size = found.st_size
            self.allocated_bytes = found.st_blocks * 512
            self.changed_s = found.st_mtime
            self.extents = _extents(descriptor, self.size)
            self._map = mmap.mmap(descriptor, self.size, mmap.MAP_SHARED, mmap.PROT_READ) if self.size else None
        finally:
            os.close(descriptor)
        self._starts = [begin for begin, _ in self.extents]

    def close(self) -> None:
        """End the mapping. Idempotent."""
        if self._map is not None:
            self._map.close()
            self._map = None

    def __enter__(self) -> "Memory":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def touched(self, offset: int, size: int) -> bool:
        """Whether all these bytes lie in memory that has been written: they can be read without taking a page."""
        at = bisect_right(self._starts, offset) - 1
        return at >= 0 and offset + size <= self.extents[at][1]

    def unpack(self, form: struct.Struct, offset: int) -> tuple[Any, ...]:
        """Fields at an offset; each integer is one load, so that a word that is being changed is read whole."""
        if self._map is not None and self.touched(offset, form.size):
            return form.unpack_from(self._map, offset)
        return form.unpack(self.read(offset, form.size))

    def read(self, offset: int, size: int) -> bytes:
        """A copy of bytes; zeros where there is a hole and beyond the end."""
        if self._map is None or self.touched(offset, size):
            return b"" if self._map is None else self._map[offset : offset + size].ljust(size, b"\0")
        found = bytearray(size)
        for begin, end in self.pieces(offset, offset + size):
            found[begin - offset : end - offset] = self._map[begin:end]
        return bytes(found)

    def pieces(self, begin: int, end: int) -> list[tuple[int, int]]:
        """The parts of a range that have been written, in order."""
        at = max(0, bisect_right(self._starts, begin) - 1)
        found = []
        while at < len(self.extents) and self.extents[at][0] < end:
            low, high = max(begin, self.extents[at][0]), min(end, self.extents[at][1])
            if low < high:
                found.append((low, high))
            at += 1
        return found


def open_segment(name: str) -> Memory:
    """A segment by its POSIX name. Raises NoSuchSegment, NotAllowed, SegmentError."""
    bare = name.lstrip("/")
    return Memory("/" + bare, f"{SHM}/{bare}")


def open_file(path: str | os.PathLike[str]) -> Memory:
    """A dump, or a memfd by its place under /proc. Raises as `open_segment`."""
    return Memory(os.fspath(path), os.fspath(path))


def _open(name: str, path: str) -> int:
    # A memfd is reached by a link of /proc; anything else that is a link may lead out of shared memory.
    follow = 0 if path.startswith("/proc/") or not path.startswith(SHM) else os.O_NOFOLLOW
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | follow)
    except FileNotFoundError:
        raise NoSuchSegment(f"there is no {name}") from None
    except OSError as error:
        raise NotAllowed(f"{name} cannot be opened: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SegmentError(f"{name} is no segment and no dump: not a regular file")
    return descriptor


def _extents(descriptor: int, size: int) -> list[tuple[int, int]]:
    """The pieces of a file that hold data. A file system that cannot tell says: all of it."""
    found: list[tuple[int, int]] = []
    at = 0
    with contextlib.suppress(OSError):
        while at < size and len(found) < MAX_EXTENTS:
            try:
                begin = os.lseek(descriptor, at, os.SEEK_DATA)
                end = os.lseek(descriptor, begin, os.SEEK_HOLE)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return found
                raise
            found.append((begin, min(end, size)))
            at = end
        if at >= size:
            return found
    return [*found, (at, size)]
