"""Handlers that fail in every way that a handler can."""

import os
import signal
import struct
import time

from symphony.extension import Extension, cancelled

app = Extension()


def first_time(marker):
    """Whether nobody was here before: the file is made by exactly one caller."""
    try:
        os.close(os.open(marker, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    return True


@app.handler("kill_once")
def kill_once(marker: str) -> str:
    with open(marker + ".log", "a") as log:
        log.write(f"{os.getpid()}\n")
    if first_time(marker):
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


@app.handler("kill_always")
def kill_always() -> str:
    os.kill(os.getpid(), signal.SIGKILL)


@app.handler("fail")
def fail(times: int, marker: str) -> str:
    with open(marker, "a") as log:
        log.write("x")
    if os.path.getsize(marker) <= times:
        raise ValueError(f"attempt {os.path.getsize(marker)} of {times}")
    return "done"


@app.handler("linger")
def linger(seconds: float, marker: str = "") -> str:
    if marker:
        first_time(marker)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if cancelled():
            return "heeded"
        os.sched_yield()
    return "lingered"


@app.handler("deaf")
def deaf(seconds: float) -> str:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        os.sched_yield()
    return "heard nothing"


@app.handler("make")
def make(size: int) -> bytes:
    return bytes(range(256)) * (size // 256) + bytes(size % 256)


@app.handler("several")
def several(count: int) -> list:
    return [f"item {number}" for number in range(count)]


@app.handler("length")
def length(values) -> dict:
    return {"length": len(values)}


@app.handler("pair")
def pair(item) -> dict:
    return {"first": str(item), "second": [b"a", b"bc"]}


def scribbling_map():
    """The `in` segment of this process, writable: what a hostile extension has anyway."""
    with open("/proc/self/maps") as file:
        lines = file.readlines()
    for line in lines:
        if "/memfd:symphony" in line and " rw-s" in line:
            begin, end = (int(word, 16) for word in line.split()[0].split("-"))
            return begin, end - begin
    raise LookupError("no writable map of the channel")


@app.handler("scribble")
def scribble(what: str, marker: str) -> str:
    if not first_time(marker):
        return "well behaved"
    import ctypes

    begin, size = scribbling_map()
    memory = (ctypes.c_uint8 * size).from_address(begin)
    head = bytes(memory[:4096])
    count = struct.unpack_from("<I", head, 52)[0]
    places = {}
    for index in range(count):
        at = 256 + 96 * index
        name = head[at : at + 32].split(b"\0")[0].decode()
        places[name] = struct.unpack_from("<Q", head, at + 64)[0]
    tail_at = places["command"]
    tail = struct.unpack_from("<Q", bytes(memory[tail_at : tail_at + 8]))[0]
    data = places["command_data"]
    if what == "tail":
        struct.pack_into("<Q", memory, tail_at, tail + (1 << 40))
    elif what == "backwards":
        struct.pack_into("<Q", memory, tail_at, max(0, tail - 64))
    elif what == "length":
        struct.pack_into("<IHH", memory, data + tail % (1 << 18), 0xFFFFFFF0, 48, 0)
        struct.pack_into("<Q", memory, tail_at, tail + 64)
    elif what == "kind":
        struct.pack_into("<IHH", memory, data + tail % (1 << 18), 56, 999, 0)
        struct.pack_into("<Q", memory, tail_at, tail + 64)
    elif what in COMPLETIONS:
        record = COMPLETIONS[what]
        struct.pack_into("<IHH", memory, data + tail % (1 << 18), len(record), 48, 0)
        memory[data + tail % (1 << 18) + 8 : data + tail % (1 << 18) + 8 + len(record)] = record
        struct.pack_into("<Q", memory, tail_at, tail + 8 + (len(record) + 7) // 8 * 8)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)


def completion(run=0, node=1, generation=1, attempt=1, outcome=1, outputs=(), count=None):
    count = len(outputs) if count is None else count
    head = struct.pack("<IIIHHIIQQ", run, node, generation, attempt, outcome, count, 0, 1, 2)
    return head + b"".join(struct.pack("<HHIQQ", *output) for output in outputs)


COMPLETIONS = {
    "run": completion(run=0x7FFFFFFF),
    "negative run": completion(run=0xFFFFFFFF),
    "node": completion(node=0xFFFFFFFF, outputs=[(1, 1, 0, 0, 0)]),
    "generation": completion(generation=0xFFFFFFFF),
    "many outputs": completion(count=0xFFFFFFFF),
    "offset": completion(outputs=[(1, 1, 0, 1 << 62, 8)]),
    "size": completion(outputs=[(1, 1, 0, 0, (1 << 63) + 5)]),
    "arena": completion(outputs=[(2, 1, 0, 1 << 40, 1 << 20)]),
    "home": completion(outputs=[(77, 1, 0, 0, 8)]),
    "list": completion(outputs=[(1, 5, 0xFFFFFFFF, 0, 0)]),
}

app.run()
