"""A slow ring in plain Python over the same bytes as csrc/sym_ring.c: what the C must do, written to be read.

It shares the memory's form with the C (shm/ring.h) and nothing of its code, so the suite can run it alone, or one side
of it against the other side in C.
"""

import struct

PAD, USER = 1, 16
HEADER = struct.Struct("<IHH")
WORD = struct.Struct("<Q")
ALL = 2**64


class Corrupt(Exception):
    """The other side's words, or a record, cannot be."""


class Memory:
    """A ring's memory: data, the tail (first word of the producer's line), the head (first of the consumer's)."""

    def __init__(self, size: int, start: int = 0):
        self.size = size
        self.data = bytearray(size)
        self.producer_words = bytearray(128)
        self.consumer_words = bytearray(128)
        self.tail = self.head = start

    @property
    def tail(self) -> int:
        return WORD.unpack_from(self.producer_words)[0]

    @tail.setter
    def tail(self, value: int) -> None:
        WORD.pack_into(self.producer_words, 0, value % ALL)

    @property
    def head(self) -> int:
        return WORD.unpack_from(self.consumer_words)[0]

    @head.setter
    def head(self, value: int) -> None:
        WORD.pack_into(self.consumer_words, 0, value % ALL)


def record_size(length: int) -> int:
    return (HEADER.size + length + 7) // 8 * 8


class Producer:
    def __init__(self, memory: Memory):
        self.memory = memory
        self.tail = self.published = memory.tail
        self.head_seen = memory.head

    def fits(self, length: int) -> bool:
        return record_size(length) <= self.memory.size // 2

    def commit(self, payload: bytes, kind: int = USER) -> bool:
        staged = self.stage(payload, kind)
        if staged:
            self.publish()
        return staged

    def stage(self, payload: bytes, kind: int = USER) -> bool:
        """Whether there was room."""
        end = self.place(payload, kind)
        if end is None:
            return False
        self.tail = end
        return True

    def abort(self, payload: bytes, kind: int = USER) -> bool:
        """Fills a claim and forgets it. Whether there was room."""
        return self.place(payload, kind) is not None

    def publish(self) -> None:
        self.memory.tail = self.published = self.tail

    def place(self, payload: bytes, kind: int) -> int | None:
        size, need = self.memory.size, record_size(len(payload))
        if kind < USER or not self.fits(len(payload)):
            return None
        at = self.tail % size
        pad = size - at if at + need > size else 0
        used = (self.tail - self.checked_head()) % ALL
        if used + pad + need > size:
            return None
        if pad:
            HEADER.pack_into(self.memory.data, at, pad - HEADER.size, PAD, 0)
            at = 0
        HEADER.pack_into(self.memory.data, at, len(payload), kind, 0)
        self.memory.data[at + HEADER.size : at + HEADER.size + len(payload)] = payload
        return (self.tail + pad + need) % ALL

    def checked_head(self) -> int:
        head = self.memory.head
        if head % 8 or (head - self.head_seen) % ALL > (self.published - self.head_seen) % ALL:
            raise Corrupt("head")
        self.head_seen = head
        return head


class Consumer:
    def __init__(self, memory: Memory):
        self.memory = memory
        self.head = self.read = self.tail_seen = memory.head

    def poll(self, n: int) -> list[tuple[bytes, int, int]]:
        """Up to n records as (payload, kind, end)."""
        found: list[tuple[bytes, int, int]] = []
        try:
            while len(found) < n and (record := self.next_record()) is not None:
                payload, kind, end = record
                self.read = end
                if kind != PAD:
                    found.append((payload, kind, end))
        except Corrupt:
            if not found:
                raise
        return found

    def next_record(self) -> tuple[bytes, int, int] | None:
        if self.read == self.tail_seen:
            self.look_at_tail()
        ahead = (self.tail_seen - self.read) % ALL
        if ahead == 0:
            return None
        at = self.read % self.memory.size
        length, kind, _ = HEADER.unpack_from(self.memory.data, at)
        need, to_wrap = record_size(length), self.memory.size - at
        pad_ends_the_ring = kind == PAD and length + HEADER.size == to_wrap
        if need > min(self.memory.size // 2, to_wrap, ahead) or not (kind >= USER or pad_ends_the_ring):
            raise Corrupt("record")
        start = at + HEADER.size
        return bytes(self.memory.data[start : start + length]), kind, (self.read + need) % ALL

    def look_at_tail(self) -> None:
        tail = self.memory.tail
        ahead = (tail - self.head) % ALL
        if tail % 8 or ahead > self.memory.size or ahead < (self.tail_seen - self.head) % ALL:
            raise Corrupt("tail")
        self.tail_seen = tail

    def release(self, end: int) -> None:
        if 0 < (end - self.head) % ALL <= (self.read - self.head) % ALL:
            self.head = self.memory.head = end

    def rewind(self) -> None:
        self.read = self.head
