"""What the SDK costs a step: 64 bytes in, 64 bytes out, a handler that gives back what it gets.

The player's channel, plan and loop run in this process over real channel memory; the Conductor's part, writing
dispatches and reading completions in C through cffi, is measured alone and subtracted by eye: both are printed.

    python perf/bench_sdk.py [pyperf options]
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import pyperf
from msgspec import msgpack

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from symphony.bus.channel import Channel
from symphony.extension.app import current
from symphony.extension.binding import bind
from symphony.model import value
from symphony.native import _door, ffi, lib
from symphony.shmem.registry import Registry

BATCH = 64
REGIONS = (
    "out_channel",
    "dispatch",
    "dispatch_data",
    "dispatch_bytes",
    "command_head",
    "in_channel",
    "command",
    "command_data",
    "command_bytes",
    "dispatch_head",
    "arena",
    "arena_bytes",
)


class Loop:
    """Both ends of one channel in one process, no thread, no waiting."""

    def __init__(self) -> None:
        import mmap

        self.channel = Channel.create(Registry("bench"), "bench", 1)
        geometry = self.channel.geometry()
        own = mmap.mmap(self.channel.in_.descriptor, geometry["in_size"])
        self.pipe = os.pipe()
        self.player = _door.PlayerChannel(
            self.channel.out.buffer,
            own,
            tuple(geometry[name] for name in REGIONS),
            self.pipe[1],
            self.bind,
            lambda segment: None,
        )
        self.values = mmap.mmap(-1, 1 << 16)
        blob = msgpack.encode(
            {
                "handler": "noop",
                "arguments": {"data": {"slot": 0}},
                "slots": [{"many": False}],
                "outputs": [""],
                "name": "noop",
            }
        )
        self.values[64 : 64 + len(blob)] = blob
        self.player.add_segment(1, self.values)
        self.binding = len(blob)
        at = self.channel.addresses()
        self.producer, self.consumer = ffi.new("sym_producer_t *"), ffi.new("sym_consumer_t *")
        self.views = ffi.new("sym_view_t[]", BATCH)
        lib.sym_ring_producer_attach_spsc(
            self.producer,
            ffi.cast("void *", at["dispatch_data"]),
            self.channel.dispatch_bytes,
            ffi.cast("sym_ring_producer_t *", at["dispatch_producer"]),
            ffi.cast("sym_ring_consumer_t *", at["dispatch_consumer"]),
        )
        lib.sym_ring_consumer_attach_spsc(
            self.consumer,
            ffi.cast("void *", at["command_data"]),
            self.channel.command_bytes,
            ffi.cast("sym_ring_producer_t *", at["command_producer"]),
            ffi.cast("sym_ring_consumer_t *", at["command_consumer"]),
        )
        dispatch = ffi.new("sym_dispatch_t *", {"run": 1, "run_generation": 1, "attempt": 1, "input_count": 1})
        dispatch.binding.segment, dispatch.binding.kind = 1, value.DATA
        dispatch.binding.offset_bytes, dispatch.binding.size_bytes = 64, self.binding
        ref = ffi.new("sym_ref_t *", {"segment": 1, "kind": value.BYTES, "offset_bytes": 4096, "size_bytes": 64})
        self.record = bytes(ffi.buffer(dispatch)) + bytes(ffi.buffer(ref))

    def bind(self, blob, step):
        return bind(msgpack.decode(blob), {"noop": lambda data: data}, self.player, {})

    def fill(self) -> None:
        for _ in range(BATCH):
            to = lib.sym_ring_claim_spsc(self.producer, lib.SYM_RECORD_DISPATCH, len(self.record))
            ffi.memmove(to, self.record, len(self.record))
            lib.sym_ring_stage_spsc(self.producer)
        lib.sym_ring_publish_spsc(self.producer)

    def drain(self) -> None:
        got = lib.sym_ring_poll_spsc(self.consumer, self.views, BATCH)
        assert got == BATCH
        lib.sym_ring_release_spsc(self.consumer, self.views[got - 1].end)

    def serve(self) -> None:
        """The host's loop over one batch."""
        step, complete, serving = self.player.next, self.player.complete, current
        for _ in range(BATCH):
            job, plan, refs = step(0)
            serving.plan, serving.job = plan, job
            try:
                result = plan.call(refs)
                quick = plan.quick
                if quick is None or not (quick is object or type(result) is quick) or not complete(job, result):
                    raise AssertionError
            except BaseException:
                raise
            serving.job = result = None


def sdk(loops: int) -> float:
    """Seconds in the player's side alone, for `loops` batches of BATCH steps."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SYMPHONY_RUNTIME_DIR"] = folder
        loop = Loop()
        spent = 0.0
        try:
            for _ in range(loops):
                loop.fill()
                start = time.perf_counter()
                loop.serve()
                spent += time.perf_counter() - start
                loop.drain()
        finally:
            loop.channel.close()
        return spent


if __name__ == "__main__":
    runner = pyperf.Runner()
    runner.metadata["description"] = "the SDK's share of a no-op step, 64 B in and out"
    runner.bench_time_func("sdk_noop_step", sdk, inner_loops=BATCH)
