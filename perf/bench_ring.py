"""64 bytes from one Python process to another and back over two bare rings, beside multiprocessing.Pipe.

Each trip is timed by itself, so that the tail is seen. One way: how many messages a second go through, sent one at a
time, and in batches of 64. Rings and pipe take turns within one run, against the same other process.

    python perf/bench_ring.py [--quick] [--pin]

On a machine that others use, both sides may come to lie on one processor: then each waits for the other's 20 us of
spinning to end. `--pin` gives each a processor of its own; `best round` is the nearest to a quiet machine.
"""

from __future__ import annotations

import multiprocessing
import os
import secrets
from multiprocessing.connection import Connection
from time import perf_counter, perf_counter_ns

from measure import Report, arguments, collector_off, own_runtime, ratios

from symphony.ring import Ring

MESSAGE = bytes(range(64))
BATCH = 64
RING_BYTES = 1 << 16
PATIENCE_S = 60.0


def other_process(there: str, back: str, pipe: Connection, pinned: set[int]) -> None:
    """Answers as it is told over the pipe: (what, how often)."""
    os.sched_setaffinity(0, pinned)
    with Ring.attach(there) as incoming, Ring.attach(back) as outgoing:
        receive, send = incoming.receive, outgoing.send
        while (order := pipe.recv()) is not None:
            what, count = order
            if what == "ring":
                receive, send = incoming.receive, outgoing.send  # bound to C at their first use
                for _ in range(count):
                    send(receive(PATIENCE_S))
            elif what == "pipe":
                for _ in range(count):
                    pipe.send_bytes(pipe.recv_bytes())
            elif what == "take":
                for _ in range(count):
                    receive(PATIENCE_S)
                send(b"done")
            elif what == "take many":
                left = count
                while left:
                    left -= len(incoming.receive_many(min(left, 4 * BATCH), PATIENCE_S))
                send(b"done")


class Bench:
    """This side of the two rings and the pipe."""

    def __init__(self, out: Ring, back: Ring, pipe: Connection) -> None:
        self.out, self.back, self.pipe = out, back, pipe

    def ring_trips(self, count: int) -> list[int]:
        """Nanoseconds of each of `count` round trips."""
        self.pipe.send(("ring", count))
        send, receive, clock = self.out.send, self.back.receive, perf_counter_ns
        times = [0] * count
        for i in range(count):
            start = clock()
            send(MESSAGE)
            receive(PATIENCE_S)
            times[i] = clock() - start
        return times

    def pipe_trips(self, count: int) -> list[int]:
        self.pipe.send(("pipe", count))
        pipe, clock = self.pipe, perf_counter_ns
        times = [0] * count
        for i in range(count):
            start = clock()
            pipe.send_bytes(MESSAGE)
            pipe.recv_bytes()
            times[i] = clock() - start
        return times

    def one_way(self, count: int) -> float:
        """Seconds a message, sent and received one at a time, until the last has come out."""
        self.pipe.send(("take", count))
        send = self.out.send
        start = perf_counter()
        for _ in range(count):
            send(MESSAGE)
        self.back.receive(PATIENCE_S)
        return (perf_counter() - start) / count

    def one_way_batches(self, count: int) -> float:
        """The same in batches on both sides."""
        self.pipe.send(("take many", count))
        batch, send_many = [MESSAGE] * BATCH, self.out.send_many
        start = perf_counter()
        for _ in range(count // BATCH):
            send_many(batch)
        self.back.receive(PATIENCE_S)
        return (perf_counter() - start) / count


def measure(bench: Bench, rounds: int, trips: int, messages: int) -> dict[str, list[float]]:
    """Per round: p50 and p99 of both ways round in ns, and one way in seconds a message."""
    series: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        series.setdefault(name, []).append(value)

    bench.ring_trips(trips), bench.pipe_trips(100)
    for _ in range(rounds):
        for name, times in (("ring", bench.ring_trips(trips)), ("pipe", bench.pipe_trips(max(200, trips // 20)))):
            times.sort()
            note(f"{name} p50", times[len(times) // 2])
            note(f"{name} p99", times[len(times) * 99 // 100])
        note("one way", bench.one_way(messages))
        note("one way batches", bench.one_way_batches(messages * 4 // BATCH * BATCH))
    return series


def main() -> None:
    given = arguments("ring", __doc__.partition("\n")[0], pin={"action": "store_true", "help": "a processor a side"})
    own = sorted(os.sched_getaffinity(0))
    sides = ({own[0]}, {own[-1]}) if given.pin else (set(own), set(own))
    rounds, trips, messages = (7, 5_000, 50_000) if given.quick else (21, 20_000, 200_000)
    mark = secrets.token_hex(3)
    names = f"there-{mark}", f"back-{mark}"
    spawn = multiprocessing.get_context("spawn")
    with own_runtime(), Ring.create(names[0], RING_BYTES) as out, Ring.create(names[1], RING_BYTES) as back:
        here, there = spawn.Pipe()
        process = spawn.Process(target=other_process, args=(*names, there, sides[1]), daemon=True)
        process.start()
        there.close()
        os.sched_setaffinity(0, sides[0])
        with collector_off():
            series = measure(Bench(out, back, here), rounds, trips, messages)
        here.send(None)
        process.join(10)
    report = Report("ring", f"64 bytes between two Python processes, {rounds} rounds of {trips:,} trips")
    report.facts["processors of each side"] = " and ".join(",".join(map(str, sorted(side))) for side in sides)
    report.add("round trip, p50", [ns / 1e3 for ns in series["ring p50"]], "us", target="<= 2 quiet")
    report.add("round trip, p50, best round", [min(series["ring p50"]) / 1e3], "us")
    report.add("round trip, p99", [ns / 1e3 for ns in series["ring p99"]], "us")
    report.add("multiprocessing.Pipe, p50", [ns / 1e3 for ns in series["pipe p50"]], "us")
    report.add("multiprocessing.Pipe, p99", [ns / 1e3 for ns in series["pipe p99"]], "us")
    report.add("Pipe / ring, p50", ratios(series["pipe p50"], series["ring p50"]), "x")
    report.add("one way, one at a time", [1 / s / 1e6 for s in series["one way"]], "M/s")
    report.add("one way, batches of 64", [1 / s / 1e6 for s in series["one way batches"]], "M/s")
    for name, values in series.items():
        report.keep(name.replace(" ", "_"), values if name.startswith("one") else [ns * 1e-9 for ns in values])
    report.finish(given)


if __name__ == "__main__":
    main()
