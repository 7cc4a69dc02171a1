"""The C ring with the oracle's face, over the same kind of memory, so that one suite drives both."""

from symphony.native import ffi, lib
from tests.oracle.ring import USER, Corrupt, Memory


class Words:
    """cffi's pointers to an oracle memory's bytes."""

    def __init__(self, memory: Memory):
        self.data = ffi.from_buffer("uint8_t[]", memory.data)
        self.producer = ffi.cast("sym_ring_producer_t *", ffi.from_buffer(memory.producer_words))
        self.consumer = ffi.cast("sym_ring_consumer_t *", ffi.from_buffer(memory.consumer_words))
        self.keep = (ffi.from_buffer(memory.producer_words), ffi.from_buffer(memory.consumer_words))
        self.size = memory.size


class NativeProducer:
    def __init__(self, memory: Memory):
        self.words = Words(memory)
        self.side = ffi.new("sym_producer_t *")
        code = lib.sym_ring_producer_attach_spsc(
            self.side, self.words.data, self.words.size, self.words.producer, self.words.consumer
        )
        assert code == 0

    def fits(self, length: int) -> bool:
        return bool(lib.sym_ring_fits(self.side, length))

    def commit(self, payload: bytes, kind: int = USER) -> bool:
        if not self.claim(payload, kind):
            return False
        lib.sym_ring_commit_spsc(self.side)
        return True

    def stage(self, payload: bytes, kind: int = USER) -> bool:
        if not self.claim(payload, kind):
            return False
        lib.sym_ring_stage_spsc(self.side)
        return True

    def abort(self, payload: bytes, kind: int = USER) -> bool:
        claimed = self.claim(payload, kind)
        lib.sym_ring_abort_spsc(self.side)
        return claimed

    def publish(self) -> None:
        lib.sym_ring_publish_spsc(self.side)

    def claim(self, payload: bytes, kind: int) -> bool:
        address = lib.sym_ring_claim_spsc(self.side, kind, len(payload))
        if self.side.error:
            raise Corrupt("head")
        if address == ffi.NULL:
            return False
        ffi.memmove(address, payload, len(payload))
        return True


class NativeConsumer:
    def __init__(self, memory: Memory):
        self.words = Words(memory)
        self.side = ffi.new("sym_consumer_t *")
        code = lib.sym_ring_consumer_attach_spsc(
            self.side, self.words.data, self.words.size, self.words.producer, self.words.consumer
        )
        assert code == 0

    def poll(self, n: int) -> list[tuple[bytes, int, int]]:
        views = ffi.new("sym_view_t[]", max(n, 1))
        count = lib.sym_ring_poll_spsc(self.side, views, n)
        if count == lib.SYM_E_CORRUPT:
            raise Corrupt("poll")
        assert 0 <= count <= n
        return [(bytes(ffi.buffer(ffi.cast("char *", v.address), v.length)), v.kind, v.end) for v in views[0:count]]

    def release(self, end: int) -> None:
        lib.sym_ring_release_spsc(self.side, end)

    def rewind(self) -> None:
        lib.sym_ring_rewind_spsc(self.side)
