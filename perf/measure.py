"""What every benchmark here shares: interleaved rounds, medians with their spread, one table, one JSON document.

A figure without its ratio says little on a shared machine, so alternatives are timed in turn within one run, and
the load of the machine stands beside each table. Every series is kept as a pyperf benchmark too, for
`python -m pyperf compare_to`.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyperf

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "perf"


@dataclass
class Row:
    """One figure. `low` and `high` are the quartiles of its `count` measurements; `target` is a bound in words."""

    figure: str
    unit: str
    median: float
    low: float
    high: float
    count: int
    target: str = ""
    note: str = ""


@dataclass
class Report:
    """A benchmark's figures: printed as a table, kept as JSON."""

    name: str
    about: str
    rows: list[Row] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    series: dict[str, list[float]] = field(default_factory=dict)
    began: tuple[float, float, float] = field(default_factory=os.getloadavg)

    def add(self, figure: str, values: Sequence[float], unit: str, *, target: str = "", note: str = "") -> float:
        """One row from its measurements; returns their median."""
        low, middle, high = quartiles(values)
        self.rows.append(Row(figure, unit, middle, low, high, len(values), target, note))
        return middle

    def keep(self, name: str, seconds: Sequence[float]) -> None:
        """Keep a series in seconds (per operation) as a pyperf benchmark."""
        self.series[name] = list(seconds)

    def finish(self, given: argparse.Namespace) -> None:
        """Print the table and write both documents."""
        load = f"{self.began[0]:.2f} before, {os.getloadavg()[0]:.2f} after"
        self.facts |= {
            "load": load,
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            "system": platform.release(),
            "command": " ".join(["python", "perf/" + Path(sys.argv[0]).name, *sys.argv[1:]]),
        }
        print(f"\n{self.about}\nload average {load}; {self.facts['processors']} processors")
        for key in sorted(set(self.facts) - {"load", "processors", "python", "system", "command"}):
            print(f"{key}: {self.facts[key]}")
        widths = max(len(row.figure) for row in self.rows)
        for row in self.rows:
            spread = f"[{show(row.low)} .. {show(row.high)}] of {row.count}" if row.count > 1 else ""
            figure = f"  {row.figure:<{widths}}  {show(row.median):>9} {row.unit:<8}"
            print(f"{figure} {spread:<30} {row.target:<14} {row.note}".rstrip())
        given.json.parent.mkdir(parents=True, exist_ok=True)
        rows = [asdict(row) for row in self.rows]
        document = {"name": self.name, "about": self.about, "facts": self.facts, "rows": rows}
        given.json.write_text(json.dumps(document, indent=1) + "\n")
        if self.series:
            self._suite().dump(str(given.json.with_suffix(".pyperf.json")), replace=True)

    def _suite(self) -> pyperf.BenchmarkSuite:
        benchmarks = []
        for name, values in self.series.items():
            about = {"name": f"{self.name}.{name}", "load_avg_1min": float(self.began[0])}
            benchmarks.append(pyperf.Benchmark([pyperf.Run(values, metadata=about, collect_metadata=False)]))
        return pyperf.BenchmarkSuite(benchmarks)


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median, upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def show(value: float) -> str:
    """A number in four significant digits, grouped."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def interleaved(rounds: int, **work: Callable[[], float]) -> dict[str, list[float]]:
    """Call each in turn, `rounds` times, after one round that does not count. Each returns its own measurement."""
    series: dict[str, list[float]] = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, one in work.items():
            value = one()
            if turn:
                series[name].append(value)
    return series


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Quotients of what was measured in the same round."""
    return [a / b for a, b in zip(above, below, strict=True)]


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """Without Python's garbage collector, whose pauses are not the measured thing's."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.contextmanager
def own_runtime() -> Iterator[Path]:
    """A runtime folder of our own, so that engines of others are neither seen nor swept."""
    before = os.environ.get("SYMPHONY_RUNTIME_DIR")
    with tempfile.TemporaryDirectory(prefix="symphony-perf-") as folder:
        os.environ["SYMPHONY_RUNTIME_DIR"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("SYMPHONY_RUNTIME_DIR", None)
            if before is not None:
                os.environ["SYMPHONY_RUNTIME_DIR"] = before


def arguments(name: str, about: str, **options: dict[str, Any]) -> argparse.Namespace:
    """The options that all benchmarks have, and their own (`option={...}` as for add_argument)."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="fewer rounds: seconds instead of minutes")
    parser.add_argument("--json", type=Path, default=BUILD / f"{name}.json", help="where the figures go")
    for option, how in options.items():
        parser.add_argument("--" + option.replace("_", "-"), **how)
    return parser.parse_args()


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
