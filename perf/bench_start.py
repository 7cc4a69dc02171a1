"""Starting, and standing still: what it takes until something is ready, and what an engine costs that has nothing to do.

Kernels are cached (one start before the clock runs). Each figure stands beside a bare interpreter's start, measured in
the same rounds. `up` is the whole command, from its start to its end; `Engine()` alone is in a program that has
imported it; a player is timed from the request to its first record, with an extension that imports nothing of its own.

    python perf/bench_start.py [--quick] [--rounds 10] [--still 10]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import Report, arguments, interleaved, own_runtime, ratios, timed

from symphony import attach, connect

NAME = "start"
PYTHON = sys.executable
MANIFEST = '[extension]\nid = "idle"\nentry = "idle.py"\n\n[handlers]\nnothing = { output = "data" }\n'
EXTENSION = """from symphony.extension import Extension

app = Extension()


@app.handler("nothing")
def nothing():
    return None


app.run()
"""
EMBEDDED = """
import json, time
begun = time.perf_counter()
from symphony import Engine
import symphony.engine
imported = time.perf_counter()
with Engine(players=1) as engine:
    ready = time.perf_counter()
    engine.pit.pool.load("idle")
    row = engine._conductor.tables.players[0]
    while not int(row["ready_ns"]):
        time.sleep(0.001)
    player = (int(row["ready_ns"]) - int(row["started_ns"])) * 1e-9
    closing = time.perf_counter()
closed = time.perf_counter()
print(json.dumps({"import": imported - begun, "engine": ready - imported, "player": player, "close": closed - closing}))
"""


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        raise SystemExit(f"{command[1:]} ended with {done.returncode}: {done.stderr}")
    return done.stdout


def symphonyctl(*words: str) -> None:
    run(PYTHON, "-m", "symphony", "-n", NAME, *words)


def up() -> float:
    """Seconds of the whole `symphonyctl up`; the engine is ended again, untimed."""
    spent = timed(lambda: symphonyctl("up"))
    symphonyctl("down")
    return spent


def embedded(series: dict[str, list[float]]) -> float:
    """One program that embeds an engine: its parts into `series`, all of it returned."""
    told = json.loads(run(PYTHON, "-c", EMBEDDED))
    for name, seconds in told.items():
        series.setdefault(name, []).append(seconds)
    return told["import"] + told["engine"]


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def engine_up() -> Iterator[dict[str, int]]:
    """A running engine that has played once, so that it has a player: its processes by name."""
    symphonyctl("up")
    try:
        with connect(NAME) as client:
            client.play("count", {"path": str(Path(__file__).parent)}).result(timeout=60)
            status = client.status()
        players = {f"player {player['extension']}": player["pid"] for player in status["players"]}
        yield {"conductor": status["pid"], "keeper": status["keeper_pid"], **players}
    finally:
        symphonyctl("down")


def standing_still(seconds: float, rounds: int) -> tuple[dict[str, list[float]], list[float]]:
    """Percent of one processor that each process takes with nothing to do, and turns of the loop a second."""
    shares: dict[str, list[float]] = {}
    turns = []
    with engine_up() as processes, attach(NAME) as viewer:
        time.sleep(1.0)
        for _ in range(rounds):
            before = {name: processor_time(pid) for name, pid in processes.items()}
            loops, begun = viewer.status()["counters"]["loops"], time.perf_counter()
            time.sleep(seconds)
            spent = time.perf_counter() - begun
            turns.append((viewer.status()["counters"]["loops"] - loops) / spent)
            for name, pid in processes.items():
                shares.setdefault(name, []).append(100 * (processor_time(pid) - before[name]) / spent)
    return shares, turns


def prepare(folder: Path) -> None:
    """An extension that imports nothing of its own; and kernels that are compiled."""
    place = folder / "idle"
    place.mkdir()
    (place / "extension.toml").write_text(MANIFEST)
    (place / "idle.py").write_text(EXTENSION)
    os.environ["SYMPHONY_EXTENSION_PATH"] = str(place.parent)
    symphonyctl("warmup")


def main() -> None:
    given = arguments(
        "start", __doc__.partition("\n")[0],
        rounds={"type": int, "default": 10}, still={"type": float, "default": 10.0},
    )  # fmt: skip
    rounds = 3 if given.quick else given.rounds
    parts: dict[str, list[float]] = {}
    with own_runtime(), tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        series = interleaved(
            rounds,
            bare=lambda: timed(lambda: run(PYTHON, "-c", "pass")),
            help=lambda: timed(lambda: run(PYTHON, "-m", "symphony", "--help")),
            up=up,
            embedded=lambda: embedded(parts),
        )
        parts = {name: values[1:] for name, values in parts.items()}
        shares, turns = standing_still(2.0 if given.quick else given.still, 3)
    report = Report("start", f"starts with cached kernels, {rounds} rounds")
    report.add("python -c pass", series["bare"], "s")
    report.add("symphonyctl --help", series["help"], "s", target="<= 0.15")
    report.add("symphonyctl up, cached", series["up"], "s", target="<= 2")
    report.add("import and Engine()", series["embedded"], "s", target="<= 2")
    report.add("Engine() alone", parts["engine"], "s")
    report.add("close", parts["close"], "s")
    report.add("a player, asked to ready", parts["player"], "s", note="with the interpreter's start in it")
    beyond = [player - bare for player, bare in zip(parts["player"], series["bare"], strict=True)]
    report.add("a player beyond a bare interpreter", beyond, "s", target="tens of ms")
    report.add("--help / bare interpreter", ratios(series["help"], series["bare"]), "x")
    for name, values in shares.items():
        report.add(f"{name}, standing still", values, "%", target="< 1" if name == "conductor" else "")
    report.add("turns of the loop, standing still", turns, "/s")
    for name, values in {**series, "engine": parts["engine"], "player": parts["player"]}.items():
        report.keep(name, values)
    report.finish(given)


if __name__ == "__main__":
    main()
