"""Steps that do nothing, through the whole engine: one player, one fan-out, 64 bytes in and out, the story on.

From the first dispatch to the last completion, as the run's row says. Engines with different windows (nodes that a
player may have at once) take turns; beside them a ProcessPoolExecutor of one process.

    python perf/bench_steps.py [--quick] [--nodes 100000]
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from measure import Report, arguments, collector_off, interleaved, own_runtime, ratios

from symphony import Engine

MELODY = """
[melody]
name = "nothing"
inputs = { items = "list" }
outputs = { back = "step" }

[steps.step]
use = "operators.noop"
each = "{items}"
with = { data = "{item}" }
"""
WINDOWS = (1, 8, 256)
MAIN = 8


def items(count: int) -> list[bytes]:
    """Different 64 bytes for each node, so that a mixed-up answer shows."""
    return [number.to_bytes(8, "little") * 8 for number in range(count)]


def play(engine: Engine, melody: Path, given: list[bytes], *, check: bool = False) -> float:
    """Seconds from the first dispatch to the last completion."""
    run = engine.play(melody, items=given)
    state = run.wait(timeout=300)
    if state["state"] != "completed" or state["done"] < len(given):
        raise SystemExit(f"the run is {state['state']}: {state['error']}")
    if check and [bytes(item) for item in run.result()["back"]] != given:
        raise SystemExit("a step gave back other bytes than it got")
    return (state["ended_ns"] - state["started_ns"]) * 1e-9


@contextlib.contextmanager
def engines(windows: tuple[int, ...]) -> Iterator[dict[int, Engine]]:
    with contextlib.ExitStack() as stack:
        yield {window: stack.enter_context(Engine(players=1, window=window)) for window in windows}


def by_executor(executor: ProcessPoolExecutor, given: list[bytes]) -> float:
    """Seconds a step, one task each as the engine does."""
    start = time.perf_counter()
    futures = [executor.submit(bytes, item) for item in given]
    for future in futures:
        future.result()
    return (time.perf_counter() - start) / len(given)


def main() -> None:
    given = arguments("steps", __doc__.partition("\n")[0], nodes={"type": int, "default": 100_000})
    rounds = 5 if given.quick else 9
    data = items(given.nodes)
    with contextlib.ExitStack() as stack:
        melody = stack.enter_context(own_runtime()) / "nothing.toml"
        melody.write_text(MELODY)
        up = stack.enter_context(engines(WINDOWS))
        executor = stack.enter_context(ProcessPoolExecutor(1, get_context("spawn")))
        executor.submit(bytes).result()
        stack.enter_context(collector_off())
        for engine in up.values():
            play(engine, melody, data, check=True)  # starts the player, touches the memory
        work = {f"window {window}": lambda e=engine: play(e, melody, data) / len(data) for window, engine in up.items()}
        series = interleaved(rounds, **work, executor=lambda: by_executor(executor, data[:2000]))
    report = Report("steps", f"{given.nodes:,} steps that do nothing, one player, 64 B in and out")
    for window in sorted(WINDOWS, key=lambda one: one != MAIN):
        values = series[f"window {window}"]
        target = ">= 100,000" if window == MAIN else ""
        report.add(f"steps a second, window {window}", [1 / s for s in values], "/s", target=target)
    report.add("ProcessPoolExecutor", [1 / s for s in series["executor"]], "/s")
    report.add("engine / executor", ratios(series["executor"], series[f"window {MAIN}"]), "x")
    for name, values in series.items():
        report.keep(name.replace(" ", "_"), values)
    report.finish(given)


if __name__ == "__main__":
    main()
