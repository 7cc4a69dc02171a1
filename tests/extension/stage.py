"""A test plays the Conductor against a real player: raw rings over a real channel, values in a granted memfd."""

import mmap
import os
import select
import socket
import struct
import subprocess
import sys
import time
from typing import NamedTuple

from msgspec import msgpack

from symphony.bus import packet
from symphony.bus.channel import Channel
from symphony.model import value
from symphony.native import check, ffi, lib
from symphony.shmem.registry import Registry

DEADLINE_S = 30.0
VALUES = 7  # id of the segment that the values lie in
SHORT = struct.Struct("<IIIHHIIQ")
REF = struct.Struct("<IHHQQII")

BASIC = """
[extension]
id = "tested"
entry = "tested.py"
"""


class Answer(NamedTuple):
    """A completion with its outputs' payloads copied out."""

    run: int
    node: int
    attempt: int
    outcome: int
    outputs: list
    homes: list
    started_ns: int
    ended_ns: int

    @property
    def value(self):
        kind, payload = self.outputs[0]
        return value.decode(kind, payload, copy=True)


class Stage:
    """One player of an extension written in a test, and the Conductor's ends of its channel."""

    def __init__(self, folder, code, manifest=BASIC, *, env=None, keeper=None, **sizes):
        self.process = self.segment = None
        self.folder = folder
        (folder / "extension.toml").write_text(manifest)
        (folder / "tested.py").write_text(code)
        self.channel = Channel.create(Registry("tested"), "tested", 1, **sizes)
        self.producer, self.consumer = ffi.new("sym_producer_t *"), ffi.new("sym_consumer_t *")
        self.views = ffi.new("sym_view_t[64]")
        self._attach()
        self.out = ffi.cast("sym_channel_out_t *", self.at["channel_out"])
        self.own = ffi.cast("sym_channel_in_t *", self.at["channel_in"])
        self.parts = {}
        self.answers = []
        self.logs = []
        self.ready = False
        self.bound = {}
        self.memory_fd = os.memfd_create("values")
        os.ftruncate(self.memory_fd, 1 << 22)
        self.memory = mmap.mmap(self.memory_fd, 1 << 22)
        self.used = 64
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        hello, fds = self.channel.hello()
        packet.send(self.control, packet.encode({**hello, "extension": "tested", "config": {"depth": 3}}), tuple(fds))
        argv = [sys.executable, "-m", "symphony.extension.host", str(folder)]
        with theirs:
            self._start(argv, theirs, env, keeper)

    def _start(self, argv, theirs, env, keeper):
        if keeper is not None:
            keeper.spawn(1, argv, env, None, None, "tested", theirs.fileno())
            return
        fd = os.dup(theirs.fileno())
        shim = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.execv(sys.argv[2], sys.argv[2:])"
        if fd == 3:
            shim = "import os, sys; os.execv(sys.argv[2], sys.argv[2:])"
        self.process = subprocess.Popen(
            [sys.executable, "-S", "-c", shim, str(fd), *argv],
            pass_fds=(fd,),
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        os.close(fd)

    def _attach(self):
        self.at = at = self.channel.addresses()

        def words(kind, name):
            return ffi.cast(f"sym_ring_{kind}_t *", at[name])

        check(
            lib.sym_ring_producer_attach_spsc(
                self.producer,
                ffi.cast("void *", at["dispatch_data"]),
                self.channel.dispatch_bytes,
                words("producer", "dispatch_producer"),
                words("consumer", "dispatch_consumer"),
            ),
            "dispatch",
        )
        check(
            lib.sym_ring_consumer_attach_spsc(
                self.consumer,
                ffi.cast("void *", at["command_data"]),
                self.channel.command_bytes,
                words("producer", "command_producer"),
                words("consumer", "command_consumer"),
            ),
            "command",
        )

    # values and refs

    def grant(self, segment=VALUES):
        packet.send(
            self.control,
            packet.encode({"op": "grant", "segment": segment, "size": len(self.memory)}),
            (self.memory_fd,),
        )

    def put(self, item, kind=None):
        """A ref to the value of a Python object: (segment, kind, offset, size)."""
        encoded = value.encode(item, kind=kind)
        return self.put_payload(encoded.kind, value.payload_of(encoded))

    def put_payload(self, kind, payload):
        at = self.used
        self.memory[at : at + len(payload)] = payload
        self.used = (at + len(payload) + 63) & ~63
        return (VALUES, kind, at, len(payload))

    def bind(self, handler, arguments, slots=(), outputs=("",), name="step"):
        blob = {"handler": handler, "arguments": arguments, "slots": list(slots), "outputs": list(outputs)}
        return self.put_payload(value.DATA, msgpack.encode({**blob, "name": name}))

    # records out

    def dispatch(
        self,
        binding,
        refs=(),
        *,
        run=1,
        node=0,
        attempt=1,
        generation=1,
        deadline_ns=0,
        kind=None,
        block=False,
        publish=True,
    ):
        """Send a dispatch; refs are (slot, (segment, kind, offset, size)[, first, count])."""
        rows = b"".join(self.row(*ref) for ref in refs)
        count = len(refs)
        if block:
            rows = self.row(0, self.put_payload(value.BYTES, rows))
        head = SHORT.pack(run, node, generation, attempt, int(block), count, 0, deadline_ns)
        self.record(kind or lib.SYM_RECORD_DISPATCH, head + self.row(0, binding) + rows, publish)

    def row(self, slot, ref, first=0, count=0):
        segment, kind, offset, size = ref
        return REF.pack(segment, kind, slot, offset, size, first, count)

    def record(self, kind, payload, publish=True):
        deadline = time.monotonic() + DEADLINE_S
        while (to := lib.sym_ring_claim_spsc(self.producer, kind, len(payload))) == ffi.NULL:
            assert time.monotonic() < deadline, "the dispatch ring stays full"
            self.flush()
            self.collect(0.1)
        ffi.memmove(to, payload, len(payload))
        lib.sym_ring_stage_spsc(self.producer)
        if publish:
            self.flush()

    def flush(self):
        lib.sym_ring_publish_spsc(self.producer)
        if lib.sym_load_seq_cst_u32(ffi.addressof(self.own, "sleeping")):
            lib.sym_bell_ring(ffi.addressof(self.out, "bell"))

    # records in

    def collect(self, timeout_s=0.0):
        """Apply what has come; parks on the bell if nothing has. How many records."""
        count = self._drain()
        if count or timeout_s <= 0:
            return count
        flag = ffi.addressof(self.out, "sleeping")
        lib.sym_exchange_u32(flag, 1)
        count = self._drain()
        if not count:
            select.select([self.channel.bell_read_fd], [], [], timeout_s)
        lib.sym_exchange_u32(flag, 0)
        lib.sym_bell_pipe_drain(self.channel.bell_read_fd)
        return count or self._drain()

    def _drain(self):
        total = 0
        while (got := check(lib.sym_ring_poll_spsc(self.consumer, self.views, 64), "commands")) > 0:
            arena_end = max(self._apply(self.views[i]) for i in range(got))
            if arena_end:
                lib.sym_exchange_u64(ffi.addressof(self.out, "arena_head"), arena_end)
            lib.sym_ring_release_spsc(self.consumer, self.views[got - 1].end)
            words = ffi.cast("sym_ring_producer_t *", self.at["command_producer"])
            if lib.sym_load_seq_cst_u32(ffi.addressof(words, "sleeping")):
                lib.sym_bell_ring(ffi.addressof(self.out, "bell"))
            total += got
        return total

    def _apply(self, view):
        payload = bytes(ffi.buffer(ffi.cast("char *", view.address), view.length))
        if view.kind == lib.SYM_RECORD_READY:
            self.ready = True
        elif view.kind == lib.SYM_RECORD_LOG:
            run, node, level, size = struct.unpack_from("<IIII", payload)
            self.logs.append((run, node, level, payload[16 : 16 + size].decode()))
        elif view.kind == lib.SYM_RECORD_PART:
            return self._part(payload)
        elif view.kind == lib.SYM_RECORD_COMPLETION:
            return self._completion(payload)
        else:
            raise AssertionError(f"record kind {view.kind}")
        return 0

    def arena(self, position, size):
        inside = position & (self.channel.arena_bytes - 1)
        assert inside + size <= self.channel.arena_bytes and position % 64 == 0
        return bytes(ffi.buffer(ffi.cast("char *", self.at["arena"] + inside), size))

    def _part(self, payload):
        run, node, _, attempt, output, total, at, position, size = struct.unpack("<IIIHHQQQQ", payload)
        held = self.parts.setdefault((run, node, attempt, output), bytearray())
        assert len(held) == at and at + size <= total and size <= self.channel.arena_bytes // 4
        held += self.arena(position, size)
        return position + size

    def _completion(self, payload):
        run, node, _, attempt, outcome, count, _, started, ended = struct.unpack_from("<IIIHHIIQQ", payload)
        rows = 40 + 24 * count
        outputs, homes, arena_end = [], [], 0
        for number in range(count):
            home, kind, _items, offset, size = struct.unpack_from("<HHIQQ", payload, 40 + 24 * number)
            homes.append(home)
            if home == lib.SYM_HOME_INLINE:
                outputs.append((kind, payload[rows + offset : rows + offset + size]))
            elif home == lib.SYM_HOME_ARENA:
                outputs.append((kind, self.arena(offset, size)))
                arena_end = max(arena_end, offset + size)
            else:
                outputs.append((kind, bytes(self.parts.pop((run, node, attempt, number)))))
                assert len(outputs[-1][1]) == size
        self.answers.append(Answer(run, node, attempt, outcome, outputs, homes, started, ended))
        return arena_end

    # waiting

    def until(self, what):
        deadline = time.monotonic() + DEADLINE_S
        while not what():
            assert time.monotonic() < deadline, f"nothing came; {self.words()}"
            if self.process is not None and self.process.poll() is not None and not self.collect():
                raise AssertionError(f"the player ended with {self.process.returncode}: {self.words()}")
            self.collect(0.5)

    def words(self):
        if self.process is None:
            return ""
        self.process.kill()
        return self.process.communicate()[0].decode()

    def await_ready(self):
        self.until(lambda: self.ready)
        return self

    def answer(self, count=1):
        self.until(lambda: len(self.answers) >= count)
        found, self.answers = self.answers[:count], self.answers[count:]
        return found[0] if count == 1 else found

    def call(self, handler, arguments, refs=(), slots=(), outputs=("",), **more):
        """Bind, dispatch, answer. Slots default to single ones."""
        numbers = {ref[0] for ref in refs}
        slots = slots or [{"many": False, "each": False}] * (max(numbers, default=-1) + 1)
        self.dispatch(self.bind(handler, arguments, slots, outputs), refs, **more)
        return self.answer()

    def stop(self):
        self.record(lib.SYM_RECORD_STOP, b"")

    def wait(self):
        code = self.process.wait(DEADLINE_S)
        return code, self.process.stdout.read().decode()

    def close(self):
        self.control.close()
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            self.process.stdout.close()
        os.close(self.memory_fd)
        self.memory.close()
        self.channel.close()
