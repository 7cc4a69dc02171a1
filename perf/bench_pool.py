"""One operation of the Pit from Python, nanoseconds a call: allocate and release a seat while others hold seats.

Beside it, in the same rounds: an empty METH_FASTCALL call (a bound kernel that does nothing: what any call into C
costs), the named form with its handle, and the same kernels in a compiled loop.

    python perf/bench_pool.py [--quick]
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import repeat
from time import perf_counter_ns
from typing import Any

import numba
from measure import Report, arguments, collector_off, interleaved, own_runtime, ratios

from symphony import Engine
from symphony.native._door import bind
from symphony.native.kernels import loading

with loading():
    from symphony.pit.pool.machine import allocate, release

MODEL = "operators"
HOLDERS = 3
ROW = 5
"""Calls timed in a row: as many seats as a window of 8 leaves beside three holders."""


@numba.cfunc(numba.int64(numba.int64))
def empty(base):
    return 1


@numba.njit(nogil=True)
def pairs(models, seats, model, owner, count):
    """`count` allocations, each released at once. How many succeeded."""
    good = 0
    for _ in range(count):
        token = allocate(models, seats, model, owner)
        if token > 0 and release(models, seats, token, owner) > 0:
            good += 1
    return good


@contextmanager
def holders(pool: Any) -> Iterator[None]:
    """Three threads that hold a seat each and wait."""
    done, held = threading.Event(), threading.Barrier(HOLDERS + 1)

    def hold() -> None:
        handle = pool.allocate(MODEL)
        held.wait(10)
        done.wait()
        pool.release(handle)

    threads = [threading.Thread(target=hold) for _ in range(HOLDERS)]
    for thread in threads:
        thread.start()
    held.wait(10)
    try:
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def no_argument(call: Callable[[], Any], count: int) -> float:
    """Nanoseconds a call, the loop's own cost included."""
    start = perf_counter_ns()
    for _ in repeat(None, count):
        call()
        call()
        call()
        call()
        call()
    return (perf_counter_ns() - start) / (count * ROW)


def rows(take: Callable[[], int], give: Callable[[int], int], count: int) -> tuple[float, float]:
    """Nanoseconds of an allocation and of a release, timed apart in rows of five
    the clock's own cost taken off."""
    clock, taking, giving = perf_counter_ns, 0, 0
    for _ in repeat(None, count):
        t0 = clock()
        a = take()
        b = take()
        c = take()
        d = take()
        e = take()
        t1 = clock()
        give(a)
        give(b)
        give(c)
        give(d)
        give(e)
        t2 = clock()
        taking += t1 - t0
        giving += t2 - t1
        if e < 0:
            raise SystemExit("a seat was refused: the pool holds fewer than were counted on")
    cost = min(-clock() + clock() for _ in range(100))
    return taking / (count * ROW) - cost / ROW, giving / (count * ROW) - cost / ROW


def pair(take: Callable[[], int], give: Callable[[int], int], count: int) -> float:
    start = perf_counter_ns()
    for _ in repeat(None, count):
        give(take())
        give(take())
        give(take())
        give(take())
        give(take())
    return (perf_counter_ns() - start) / (count * ROW)


def named(pool: Any, count: int) -> float:
    start = perf_counter_ns()
    for _ in repeat(None, count):
        handle = pool.allocate(MODEL)
        pool.release(handle)
    return (perf_counter_ns() - start) / count


def measure(engine: Engine, count: int, rounds: int) -> dict[str, list[float]]:
    pool = engine.pit.pool
    tables, owner, model = pool._tables, pool._owner, pool._row(MODEL)
    models, seats = signed_tables(tables)
    take, give = pool.bind(MODEL), pool.bind_release()
    through = bind(empty.address, 0)
    apart: dict[str, float] = {}

    def taking() -> float:
        apart["take"], apart["give"] = rows(take, give, count)
        return apart["take"]

    def compiled() -> float:
        start = perf_counter_ns()
        good = pairs(models, seats, model, owner, count * 20)
        spent = perf_counter_ns() - start
        if good != count * 20:
            raise SystemExit(f"{good} of {count * 20} pairs went through")
        return spent / (count * 40)

    with holders(pool), collector_off():
        series = interleaved(
            rounds,
            floor=lambda: no_argument(through, count),
            allocate=taking,
            release=lambda: apart["give"],
            pair=lambda: pair(take, give, count),
            named=lambda: named(pool, count),
            compiled=compiled,
        )
    violations = pool.validate()
    if violations:
        raise SystemExit(f"the pool is inconsistent: {violations}")
    return series


def signed_tables(tables: Any) -> tuple[Any, Any]:
    """The pool's tables as the kernels see them: signed."""
    from symphony.pit.tables import MODEL as MODEL_ROW
    from symphony.pit.tables import SEAT as SEAT_ROW

    return tables.models.view(MODEL_ROW), tables.seats.view(SEAT_ROW)


def main() -> None:
    given = arguments("pool", __doc__.partition("\n")[0])
    count, rounds = (4_000, 9) if given.quick else (20_000, 31)
    with own_runtime(), Engine(players=1, window=8) as engine:
        engine.pit.pool.load(MODEL)
        series = measure(engine, count, rounds)
    report = Report("pool", f"Pit operations, {HOLDERS} threads holding seats beside (rounds of {count * ROW:,} calls)")
    for name, values in series.items():
        report.keep(name, [value * 1e-9 for value in values])
    floor = series["floor"]
    report.add("empty METH_FASTCALL call", floor, "ns")
    report.add("allocate, bound", series["allocate"], "ns", target="<= 100")
    report.add("  of an empty call", ratios(series["allocate"], floor), "x", target="(aim 2.5)")
    report.add("release, bound", series["release"], "ns", target="<= 100")
    report.add("  of an empty call", ratios(series["release"], floor), "x", target="(aim 2.5)")
    report.add("allocate and release, bound", series["pair"], "ns", note="one free seat found behind three held")
    report.add("allocate and release, named", series["named"], "ns", note="with a handle")
    report.add("allocate or release, compiled loop", series["compiled"], "ns", target="tens")
    report.finish(given)


if __name__ == "__main__":
    main()
