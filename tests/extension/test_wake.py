"""A dispatch wakes the player that waits for one, whatever its other threads do meanwhile."""

import os
import struct
import sys
import threading
import time

import pytest

from symphony.extension.memory import map_channel
from symphony.native import ffi, lib
from symphony.native._door import PlayerChannel
from symphony.shmem.registry import Registry
from tests.extension.stage import SHORT, Stage

ROUNDS = 4000
SLEEP_S = 3.0
DEADLINE_S = 120.0
JOB = struct.Struct("<IIIHHQQQII")
REGIONS = (
    "out_channel", "dispatch", "dispatch_data", "dispatch_bytes", "command_head", "in_channel", "command", "command_data",
    "command_bytes", "dispatch_head", "arena", "arena_bytes",
)  # fmt: skip


class Both(Stage):
    """Both ends of a channel in this process: the Conductor's are the stage's, `player` is the other."""

    def __init__(self):
        from symphony.bus.channel import Channel

        self.channel = Channel.create(Registry("tested"), "tested", 1)
        self.producer, self.consumer = ffi.new("sym_producer_t *"), ffi.new("sym_consumer_t *")
        self._attach()
        self.out = ffi.cast("sym_channel_out_t *", self.at["channel_out"])
        self.own = ffi.cast("sym_channel_in_t *", self.at["channel_in"])
        hello, descriptors = self.channel.hello()
        geometry = hello["geometry"]
        maps = map_channel([os.dup(descriptor) for descriptor in descriptors[:2]], geometry)
        offsets = tuple(geometry[name] for name in REGIONS)
        self.player = PlayerChannel(*maps, offsets, descriptors[2], lambda blob, step: "plan", lambda segment: None)

    def close(self):
        del self.player
        self.channel.close()


@pytest.fixture
def both(tmp_path, monkeypatch):
    monkeypatch.setenv("SYMPHONY_RUNTIME_DIR", str(tmp_path / "run"))
    made = Both()
    yield made
    made.close()


@pytest.fixture
def one_processor():
    """Threads of this test share a processor: whoever is woken runs, and the other stands still."""
    before, interval = os.sched_getaffinity(0), sys.getswitchinterval()
    os.sched_setaffinity(0, {min(before)})
    sys.setswitchinterval(1e-5)
    yield
    os.sched_setaffinity(0, before)
    sys.setswitchinterval(interval)


class Waiter:
    """A thread that takes dispatches, and yields the processor to any other that can run."""

    def __init__(self, player):
        self.player, self.about, self.slept, self.taken = player, 0, 0, 0
        self.thread = threading.Thread(target=self.take, daemon=True)
        self.thread.start()

    def take(self):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while self.taken < ROUNDS and not self.slept:
            begun = time.monotonic()
            self.about += 1
            got = self.player.next(int(SLEEP_S * 1e9))
            self.slept += time.monotonic() - begun >= SLEEP_S
            self.taken += got is not None


def test_a_record_that_another_thread_saw_first_is_not_slept_on(both, one_processor):
    """The waiter has given up the interpreter's lock and looks for records; a record comes, for which no bell is due,
    and before it looks again another thread's cancelled() has polled it."""
    job = JOB.pack(1, 0, 1, 1, 0, 0, 0, 0, 0, 0)
    head = SHORT.pack(1, 0, 1, 1, 0, 0, 0, 0) + bytes(32)
    waiter = Waiter(both.player)
    deadline = time.monotonic() + DEADLINE_S
    for number in range(1, ROUNDS + 1):
        while waiter.about < number and not waiter.slept:
            assert time.monotonic() < deadline
        if waiter.slept:
            break
        both.record(lib.SYM_RECORD_DISPATCH, head)
        assert not both.player.cancelled(job)
        while waiter.taken < number:
            assert time.monotonic() < deadline
            os.sched_yield()
    waiter.thread.join(DEADLINE_S)
    assert not waiter.slept, f"dispatch {waiter.taken} was there for {SLEEP_S} s, and nobody took it"
    assert waiter.taken == ROUNDS
