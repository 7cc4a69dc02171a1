"""A player that writes into its own half of the channel whatever it likes, and then ends.

It finds the memfd that it was given in its own map, and the channel's geometry in the host's hello.
"""

import ctypes
import os
import random
import re
import struct
import sys
import threading
import time
from pathlib import Path

from symphony.extension import Extension, context
from symphony.extension.app import current
from symphony.native.layout import constants as c

app = Extension()
HEADER, COMPLETION, OUTPUT = struct.Struct("<IHH"), struct.Struct("<IIIHHIIQQ"), struct.Struct("<HHIQQ")
PART = struct.Struct("<IIIHHQQQQ")
JOB = struct.Struct("<IIIHHIIQ")
FINISH, PIECE, LOG, READY = (c[f"SYM_RECORD_{name}"] for name in ("COMPLETION", "PART", "LOG", "READY"))
OK, FAILED = c["SYM_OUTCOME_OK"], c["SYM_OUTCOME_FAILED"]
INLINE, ARENA, PARTS = (c[f"SYM_HOME_{name}"] for name in ("INLINE", "ARENA", "PARTS"))
BYTES, DATA, LIST, ERROR = (c[f"SYM_VALUE_{name}"] for name in ("BYTES", "DATA", "LIST", "ERROR"))
HUGE = (1 << 64) - 1

frame = sys._getframe()
while "hello" not in frame.f_locals or not isinstance(frame.f_locals["hello"], dict):
    frame = frame.f_back
geometry = frame.f_locals["hello"]["geometry"]
bell = frame.f_locals["fds"][2]


def _own():
    for line in Path("/proc/self/maps").read_text().splitlines():
        found = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw-s .*memfd:", line)
        if found and int(found[2], 16) - int(found[1], 16) >= geometry["in_size"] - 4096:
            return int(found[1], 16)
    raise RuntimeError("the channel's own half is not mapped")


class Raw:
    """The in segment, byte by byte."""

    def __init__(self):
        self.at = _own()
        self.data = self.at + geometry["command_data"]
        self.size = geometry["command_bytes"]

    def word(self, name, value=None, offset=0):
        place = ctypes.c_uint64.from_address(self.at + geometry[name] + offset)
        if value is not None:
            place.value = value & HUGE
        return place.value

    def put(self, position, blob):
        for index, byte in enumerate(blob):
            ctypes.c_uint8.from_address(self.data + (position + index) % self.size).value = byte

    def record(self, kind, payload, length=None, flags=0):
        """One record at the shared tail, and the tail after it."""
        tail = self.word("command")
        whole = (HEADER.size + len(payload) + 7) & ~7
        self.put(tail, HEADER.pack(len(payload) if length is None else length, kind, flags) + payload)
        self.word("command", tail + whole)

    def ring(self):
        try:
            os.write(bell, b"\0")
        except OSError:
            pass


def job():
    """Run, node, generation and attempt of the step that runs."""
    run, node = context.run, context.node
    text = bytes(current.job)
    for at in range(0, len(text) - 11, 4):
        a, b, generation = struct.unpack_from("<III", text, at)
        if (a, b) == (run, node):
            return run, node, generation, context.attempt
    raise RuntimeError(f"no run {run} and node {node} in {text!r}")


def completion(outputs=(), payload=b"", *, outcome=OK, count=None, **lies):
    run, node, generation, attempt = job()
    said = {"run": run, "node": node, "generation": generation, "attempt": attempt} | lies
    rows = b"".join(OUTPUT.pack(*output) for output in outputs)
    head = COMPLETION.pack(
        said["run"] & 0xFFFFFFFF,
        said["node"] & 0xFFFFFFFF,
        said["generation"] & 0xFFFFFFFF,
        said["attempt"] & 0xFFFF,
        outcome,
        len(outputs) if count is None else count,
        0,
        1,
        2,
    )
    return head + rows + payload


NONE_WRONG = [(INLINE, DATA, 0, 0, 1)], b"\x01"


def way_run(raw, rng):
    raw.record(FINISH, completion(*NONE_WRONG, run=rng.choice([77, 4095, 4096, 0xFFFFFFFF])))


def way_node(raw, rng):
    raw.record(FINISH, completion(*NONE_WRONG, node=rng.choice([0, 1 << 20, 0xFFFFFFFF, 0x7FFFFFFF])))


def way_generation(raw, rng):
    raw.record(FINISH, completion(*NONE_WRONG, generation=rng.randrange(1 << 20, 1 << 31)))


def way_attempt(raw, rng):
    raw.record(FINISH, completion(*NONE_WRONG, attempt=rng.choice([0, 9, 4095, 65535])))


def way_others_node(raw, rng):
    _, node, _, _ = job()
    for other in (node + 1, node - 1, node + 2):
        raw.record(FINISH, completion(*NONE_WRONG, node=other))


def way_outcome(raw, rng):
    raw.record(FINISH, completion(*NONE_WRONG, outcome=rng.choice([0, 4, 65535])))


def way_count(raw, rng):
    raw.record(FINISH, completion(*NONE_WRONG, count=rng.choice([0, 2, 17, 0x7FFFFFFF, 0xFFFFFFFF])))


def way_kind(raw, rng):
    raw.record(FINISH, completion([(INLINE, rng.choice([7, 255, 65535, ERROR]), 0, 0, 1)], b"x"))


def way_home(raw, rng):
    raw.record(FINISH, completion([(rng.choice([0, 4, 99, 65535]), DATA, 0, 0, 1)], b"x"))


def way_inline_size(raw, rng):
    raw.record(FINISH, completion([(INLINE, DATA, 0, 0, rng.choice([2, 5000, 1 << 40, HUGE, 1 << 63]))], b"x"))


def way_inline_offset(raw, rng):
    raw.record(FINISH, completion([(INLINE, DATA, 0, rng.choice([1, 1 << 30, HUGE, HUGE - 1, 1 << 63]), 1)], b"x"))


def way_arena_size(raw, rng):
    raw.record(
        FINISH,
        completion([(ARENA, BYTES, 0, 0, rng.choice([geometry["arena_bytes"] + 1, 1 << 40, HUGE, (1 << 63) - 1]))]),
    )


def way_arena_offset(raw, rng):
    raw.record(FINISH, completion([(ARENA, BYTES, 0, rng.choice([1 << 40, (1 << 63) - 64, HUGE - 63]), 64)]))


def way_list_count(raw, rng):
    raw.record(FINISH, completion([(INLINE, LIST, rng.choice([2, 1000, 0xFFFFFFFF]), 0, 25)], bytes(25)))


def way_text_count(raw, rng):
    raw.record(FINISH, completion([(INLINE, DATA, 5, 0, 1)], b"x"))


def way_parts_never(raw, rng):
    raw.record(FINISH, completion([(PARTS, BYTES, 0, 0, rng.choice([1, 1 << 20, 1 << 62]))]))


def way_twice(raw, rng):
    raw.record(FINISH, completion(*NONE_WRONG))
    raw.record(FINISH, completion(*NONE_WRONG))


def _part(raw, **lies):
    run, node, generation, attempt = job()
    said = {"output": 0, "total": 128, "at": 0, "offset": 0, "size": 64, "node": node} | lies
    raw.record(
        PIECE,
        PART.pack(
            run,
            said["node"],
            generation,
            attempt,
            said["output"],
            said["total"] & HUGE,
            said["at"] & HUGE,
            said["offset"] & HUGE,
            said["size"] & HUGE,
        ),
    )


def way_part_output(raw, rng):
    _part(raw, output=rng.choice([1, 16, 65535]))


def way_part_size(raw, rng):
    _part(raw, size=rng.choice([0, 1 << 40, HUGE]))


def way_part_offset(raw, rng):
    _part(raw, offset=rng.choice([1 << 40, HUGE - 63, (1 << 63) - 64]))


def way_part_at(raw, rng):
    _part(raw, at=rng.choice([100, 1 << 62, HUGE]))


def way_part_total(raw, rng):
    _part(raw, total=rng.choice([1 << 40, 1 << 62, (1 << 63) - 1]))
    raw.record(FINISH, completion([(PARTS, BYTES, 0, 0, 1 << 40)]))


def way_part_order(raw, rng):
    _part(raw)
    _part(raw, at=32)
    raw.record(FINISH, completion([(PARTS, BYTES, 0, 0, 128)]))


def way_part_node(raw, rng):
    _part(raw, node=job()[1] + 1)


def way_record_kind(raw, rng):
    raw.record(rng.choice([0, 9, 200, 65535]), b"12345678")


def way_record_short(raw, rng):
    raw.record(FINISH, b"1234")


def way_record_length(raw, rng):
    raw.record(FINISH, completion(*NONE_WRONG), length=rng.choice([0x7FFFFFFF, 0xFFFFFFFF, raw.size]))


def way_tail_far(raw, rng):
    raw.word("command", raw.word("command") + rng.choice([raw.size + 8, 1 << 40, 1 << 63]))


def way_tail_back(raw, rng):
    raw.word("command", rng.choice([0, HUGE, raw.word("command") - 8]))


def way_tail_odd(raw, rng):
    raw.word("command", raw.word("command") + rng.choice([1, 3, 12]))


def way_head_lies(raw, rng):
    raw.word("dispatch_head", rng.choice([1 << 40, HUGE, 8, 1 << 63]))


def way_ready_again(raw, rng):
    for _ in range(100):
        raw.record(READY, b"")
    raw.record(9, b"")


def way_garbage(raw, rng):
    """Random bytes over the whole ring, and a random tail."""
    ctypes.memmove(raw.data, rng.randbytes(raw.size), raw.size)
    raw.word("command", raw.word("command") + rng.randrange(8, raw.size) // 8 * 8)


def way_noise(raw, rng):
    """Well-formed records of random content."""
    for _ in range(200):
        blob = bytearray(
            completion([(rng.randrange(5), rng.randrange(9), rng.randrange(4), rng.randrange(200), rng.randrange(200))])
        )
        for _ in range(rng.randrange(4)):
            blob[rng.randrange(len(blob))] = rng.randrange(256)
        raw.record(rng.choice([FINISH, FINISH, PIECE, LOG]), bytes(blob) + rng.randbytes(rng.randrange(64)))


def way_error_in_pieces(raw, rng):
    """An error whose bytes are said to have come in pieces: nothing says where they are."""
    offset, size = rng.choice([0, 1 << 20, 1 << 40, HUGE, 1 << 62]), rng.choice([64, 1 << 20, 1 << 40, (1 << 63) - 1])
    raw.record(FINISH, completion([(PARTS, ERROR, 0, offset, size)], outcome=FAILED))


def way_error_of_any_length(raw, rng):
    raw.record(
        FINISH, completion([(ARENA, ERROR, 0, 0, rng.choice([1 << 19, geometry["arena_bytes"]]))], outcome=FAILED)
    )


def way_storm(raw, rng):
    """Everything changes all the time, under the reader's eyes."""

    def rage():
        while True:
            raw.word("command", raw.word("command") + rng.randrange(64) * 8)
            raw.put(rng.randrange(raw.size), rng.randbytes(16))
            raw.word("in_channel", rng.randrange(1 << 20))
            raw.ring()

    threading.Thread(target=rage, daemon=True).start()


WAYS = {name[4:]: value for name, value in list(globals().items()) if name.startswith("way_")}


@app.handler("attack")
def attack(way: str, seed: int = 0, always: bool = False, data=""):
    if context.attempt > 1 and not always:
        return "behaved"
    rng = random.Random(seed + context.attempt)
    raw = Raw()
    if rng.random() < 0.3:
        raw.word("in_channel", HUGE)  # "I work on nothing"
    WAYS[way](raw, rng)
    raw.ring()
    time.sleep(0.4)
    os._exit(1)


app.run()
