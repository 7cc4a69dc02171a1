"""Private memory of every process of an engine, as the shipped melody `ask` is played again and again.

Private bytes are Private_Clean + Private_Dirty of /proc/PID/smaps_rollup: what would come back if the process ended.
Conductor, Keeper and players are looked at after play 10 and after the last; a process that grows leaks. Beside them
the same for shared memory: bytes in segments of the engine's. Let no other engine of this installation start or end
meanwhile: pages of libraries count as private for the last process that has them.

    python perf/bench_memory.py [--quick] [--plays 50] [--folder PATH]
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from measure import ROOT, Report, arguments, own_runtime

from symphony import connect
from symphony.client import Client

QUESTION = "where is the memory order of the ring defined?"
NAME = "bench-memory"
FIRST = 10
PRIVATE = re.compile(r"^Private_(?:Clean|Dirty):\s+(\d+) kB", re.MULTILINE)
MIB = 1 << 20


def private_bytes(pid: int) -> int:
    """What this process alone has of memory."""
    return sum(int(kb) for kb in PRIVATE.findall(Path(f"/proc/{pid}/smaps_rollup").read_text())) << 10


def processes(client: Client) -> dict[str, int]:
    """Every process of the engine by name: Conductor, Keeper, each player."""
    status = client.status()
    players = {f"{player['extension']} {player['player']}": player["pid"] for player in status["players"]}
    return {"conductor": status["pid"], "keeper": status["keeper_pid"], **dict(sorted(players.items()))}


def look(client: Client) -> dict[tuple[str, int], int]:
    """(name, pid): private bytes."""
    return {(name, pid): private_bytes(pid) for name, pid in processes(client).items()}


def shared_bytes() -> int:
    """Taken of /dev/shm, which is less than the address space that segments have."""
    return sum(entry.stat().st_blocks * 512 for entry in os.scandir("/dev/shm") if f".{NAME}." in entry.name)


def symphonyctl(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "symphony", "-n", NAME, *words], check=True, stdout=subprocess.DEVNULL)


def play(client: Client, folder: Path) -> None:
    if not client.play("ask", {"path": str(folder), "question": QUESTION}).result(timeout=600)["passages"]:
        raise SystemExit("no passage was found")


def measured(plays: int, folder: Path) -> tuple[dict, dict, dict[str, list[int]], tuple[int, int]]:
    """Private bytes after play FIRST and after the last, the series of each process, shared bytes at both."""
    series: dict[str, list[int]] = {}
    first: dict = {}
    shared = [0, 0]
    with connect(NAME) as client:
        for number in range(1, plays + 1):
            play(client, folder)
            seen = look(client)
            for (name, _), size in seen.items():
                series.setdefault(name, []).append(size)
            if number == FIRST:
                first, shared[0] = seen, shared_bytes()
        shared[1] = shared_bytes()
    return first, seen, series, (shared[0], shared[1])


def main() -> None:
    given = arguments(
        "memory", __doc__.partition("\n")[0],
        plays={"type": int, "default": 50}, folder={"type": Path, "default": ROOT / "symphony"},
    )  # fmt: skip
    plays = max(FIRST + 1, 20 if given.quick else given.plays)
    with own_runtime():
        symphonyctl("up", "--players", "2")
        try:
            first, last, series, shared = measured(plays, given.folder)
        finally:
            symphonyctl("down")
    report = Report("memory", f"`ask` played {plays} times over {given.folder.name}: MiB of private memory")
    if first.keys() != last.keys():
        raise SystemExit(f"the processes are not the same: {sorted(first.keys() ^ last.keys())}")
    for name, pid in last:
        grown = (last[name, pid] - first[name, pid]) / MIB
        report.add(f"{name}, play {FIRST}", [first[name, pid] / MIB], "MiB")
        report.add(f"{name}, play {plays}", [last[name, pid] / MIB], "MiB")
        report.add(f"{name}, grown since", [grown], "MiB", target="<= 1")
        report.facts[f"series of {name}"] = [round(size / MIB, 2) for size in series[name]][:: max(1, plays // 10)]
    report.add("segments, grown since", [(shared[1] - shared[0]) / MIB], "MiB")
    report.finish(given)


if __name__ == "__main__":
    main()
