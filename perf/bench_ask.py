"""`ask` over Python's own standard library: the engine with two players beside one plain process.

Both sides call the same handlers, have their models loaded and one thread in the libraries; pairs are interleaved.
The library is copied without installed packages into a temporary folder, so that both read the same files.

    python perf/bench_ask.py [--quick]
"""

from __future__ import annotations

import shutil
import sysconfig
import tempfile
import time
from pathlib import Path

import one_process
from measure import Report, arguments, interleaved, own_runtime, ratios

from symphony import Engine

QUESTION = "how does a thread wait until a condition becomes true?"
LEFT_OUT = shutil.ignore_patterns("site-packages", "dist-packages", "__pycache__", "*.so", "*.a", "test", "tests")


def play(engine: Engine, folder: str) -> float:
    """Seconds from asking to the passages in this process."""
    begun = time.perf_counter()
    found = engine.play("ask", path=folder, question=QUESTION).result(timeout=600)["passages"]
    spent = time.perf_counter() - begun
    if not found:
        raise SystemExit("no passage was found")
    return spent


def main() -> None:
    given = arguments("ask", __doc__)
    pairs = 2 if given.quick else 5
    with tempfile.TemporaryDirectory() as temporary, own_runtime(), Engine(players=2) as engine:
        folder = str(Path(temporary) / "library")
        shutil.copytree(sysconfig.get_paths()["stdlib"], folder, ignore=LEFT_OUT)
        play(engine, folder)
        alone = one_process.ask(folder, QUESTION)
        series = interleaved(
            pairs,
            engine=lambda: play(engine, folder),
            plain=lambda: one_process.ask(folder, QUESTION)["total_s"],
        )
    report = Report("ask", f"{alone['walked']['files']} files, {alone['chunks']} passages, {pairs} pairs")
    report.add("one plain process", series["plain"], "s")
    report.add("engine, two players", series["engine"], "s")
    report.add("speed-up", ratios(series["plain"], series["engine"]), "x", target=">= 1.6")
    report.add("serial share of the plain program", [alone["serial_share"]], "")
    for name, values in series.items():
        report.keep(name, values)
    report.finish(given)


if __name__ == "__main__":
    main()
