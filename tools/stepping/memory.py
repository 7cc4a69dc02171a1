"""The shared memory of a case: which of it is watched, its images, and how an image is put back.

Only pages that have memory behind them are looked at: a region may be sparse, and reading the rest of it would take
memory that nobody gave.
"""

import ctypes
from collections.abc import Iterator
from hashlib import blake2b

import numpy as np

from symphony.shmem.segment import Segment
from symphony.shmem.space import PAGE, up
from tools.stepping.tracer import Trace

Image = list[bytes]
"""What each watched range holds."""


def ranges_of(segment: Segment, allocated: dict[str, int]) -> list[tuple[int, int]]:
    """(address in this process, bytes) of the pages of a segment that have memory behind them: all of it, but of a
    sparse region (`allocated`: its rows) only so much."""
    base = segment.address_of_stamp("magic")
    holes = []
    for name, rows in allocated.items():
        place = segment.regions[name]
        begin = up(place.offset + rows * place.stride, PAGE)
        end = (place.offset + place.count * place.stride) // PAGE * PAGE
        if begin < end:
            holes.append((begin, end))
    found, at = [], 0
    for begin, end in [*sorted(holes), (segment.size, segment.size)]:
        if at < begin:
            found.append((base + at, begin - at))
        at = end
    assert all(size % PAGE == 0 for _, size in found)
    return found


class Watched:
    """The ranges of one case, with the image that it begins with."""

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self.ranges = ranges
        self.before = self.take()

    def take(self) -> Image:
        return [ctypes.string_at(address, size) for address, size in self.ranges]

    def put(self, image: Image) -> None:
        for (address, _), data in zip(self.ranges, image, strict=True):
            ctypes.memmove(address, data, len(data))

    def restore(self) -> None:
        self.put(self.before)

    def copies(self) -> list[tuple[int, bytearray]]:
        """What `tracer.step_through` wants to know of them."""
        return [(address, bytearray(data)) for (address, _), data in zip(self.ranges, self.before, strict=True)]

    def images(self, trace: Trace) -> Iterator[tuple[int, Image]]:
        """Every image of a stepped run after the first, with the number of instructions after which it was there."""
        words = [np.frombuffer(bytearray(data), np.uint64) for data in self.before]
        changes = trace.changes
        at = 0
        while at < len(changes):
            step = changes["step"][at]
            end = int(np.searchsorted(changes["step"], step, "right"))
            for change in changes[at:end]:
                words[int(change["range"])][int(change["word"])] = change["value"]
            yield int(step), [array.tobytes() for array in words]
            at = end


def digest(image: Image) -> bytes:
    found = blake2b(digest_size=16)
    for data in image:
        found.update(data)
    return found.digest()
