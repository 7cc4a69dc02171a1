"""Two rings in private memory between the loop and the Python threads: the loop's inbox and its outbox.

The inbox has many Python senders, so a lock makes them one producer; nobody ever waits for the loop: what does
not fit stays in a backlog, bounded by what the engine has of runs and players, and the clerk sends it later.
"""

import os
import threading
from collections import deque

from symphony.conductor.state import MESSAGE_BYTES
from symphony.native import check, ffi, lib

RING_BYTES = 1 << 20
BACKLOG = 65536
_MESSAGES = 64


class PrivateRing:
    """A ring over this process's own memory, with both private structs."""

    def __init__(self, size: int = RING_BYTES) -> None:
        self.data = ffi.new("uint8_t[]", size + 128)
        base = (int(ffi.cast("intptr_t", self.data)) + 127) & ~127
        self.producer_words = ffi.new("sym_ring_producer_t *")
        self.consumer_words = ffi.new("sym_ring_consumer_t *")
        self.producer = ffi.new("sym_producer_t *")
        self.consumer = ffi.new("sym_consumer_t *")
        at = ffi.cast("uint8_t *", base)
        check(
            lib.sym_ring_producer_init_spsc(self.producer, at, size, self.producer_words, self.consumer_words), "ring"
        )
        check(
            lib.sym_ring_consumer_init_spsc(self.consumer, at, size, self.producer_words, self.consumer_words), "ring"
        )

    @staticmethod
    def address(struct) -> int:
        return int(ffi.cast("intptr_t", struct))


class Inbox:
    """What Python threads tell the loop."""

    def __init__(self) -> None:
        self.ring = PrivateRing()
        self.sleeping = ffi.new("uint32_t *")
        self.bell_out, self.bell_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._lock = threading.Lock()
        self._closed = False
        self._backlog: deque[tuple] = deque()

    def tell(self, kind: int, *words: int) -> None:
        """Send one message; safe from any thread, never blocks, keeps the order of each thread's messages."""
        with self._lock:
            if self._closed:
                return
            if self._backlog or not self._send(kind, words):
                if len(self._backlog) >= BACKLOG:
                    raise RuntimeError("the loop does not read its inbox any more")
                self._backlog.append((kind, words))

    def flush(self) -> bool:
        """Send what did not fit before. True when nothing is left."""
        with self._lock:
            while self._backlog and self._send(*self._backlog[0]):
                self._backlog.popleft()
            return not self._backlog

    def _send(self, kind: int, words: tuple) -> bool:
        to = lib.sym_ring_claim_spsc(self.ring.producer, kind, MESSAGE_BYTES)
        if to == ffi.NULL:
            return False
        at = ffi.cast("int64_t *", to)
        for index in range(8):
            at[index] = words[index] if index < len(words) else 0
        lib.sym_ring_commit_spsc(self.ring.producer)
        # SYNC bell: commit exchanged the tail before this load; the loop exchanges its flag before it looks again.
        if lib.sym_load_seq_cst_u32(self.sleeping):
            lib.sym_bell_pipe_ring(self.bell_in)
        return True

    def close(self) -> None:
        """What is told from now on goes nowhere; above all not into another file of the pipe's number."""
        with self._lock:
            os.close(self.bell_out)
            os.close(self.bell_in)
            self.bell_in = -1
            self._closed = True

    def disown(self) -> None:
        """In a forked child: as closed, whoever held the lock at the fork."""
        self._lock = threading.Lock()
        self.close()


class Outbox:
    """What the loop tells the clerk; read by the clerk alone."""

    def __init__(self) -> None:
        self.ring = PrivateRing()
        self.sleeping = ffi.new("uint32_t *")
        self.bell_out, self.bell_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._views = ffi.new("sym_view_t[]", _MESSAGES)

    def receive(self) -> list[tuple[int, tuple, bytes]]:
        """Messages that are there: (kind, eight words or fewer, the raw record)."""
        count = check(lib.sym_ring_poll_spsc(self.ring.consumer, self._views, _MESSAGES), "the loop's outbox")
        messages = []
        for index in range(count):
            view = self._views[index]
            raw = bytes(ffi.buffer(ffi.cast("char *", view.address), view.length))
            messages.append((int(view.kind), tuple(memoryview(raw).cast("q")[:8]), raw))
        if count:
            lib.sym_ring_release_spsc(self.ring.consumer, self._views[count - 1].end)
        return messages

    def about_to_sleep(self) -> bool:
        """Raise the flag, then look once more. False: there is something."""
        lib.sym_exchange_u32(self.sleeping, 1)
        count = lib.sym_ring_poll_spsc(self.ring.consumer, self._views, 1)
        lib.sym_ring_rewind_spsc(self.ring.consumer)
        if count:
            self.awake()
        return count == 0

    def awake(self) -> None:
        lib.sym_exchange_u32(self.sleeping, 0)
        lib.sym_bell_pipe_drain(self.bell_out)

    def close(self) -> None:
        os.close(self.bell_out)
        os.close(self.bell_in)

    def disown(self) -> None:
        """In a forked child: as closed."""
        self.close()
