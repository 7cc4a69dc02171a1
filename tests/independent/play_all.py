"""Plays every recorded workflow on one engine and has each record checked by the checker that shares nothing with it.

    python tests/independent/play_all.py [FOLDER | INSTANCE.json]… [--size-scale X] [--records FOLDER]

The engine is used as anybody would: `symphonyctl up`, `play --time-scale 0 --record`, `down`, each a process of its
own. Prints a line an instance and a total. Exit code 0: every record is right; 1: one is not, or did not play;
2: there is nothing to play.
"""

import argparse
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import recorded

CHECKER = Path(__file__).with_name("check_record.py")
START_S, PLAY_S = 600, 300
COUNTED = re.compile(r"(\d+) tasks, (\d+) dependencies, (\d+) files: all right")


def symphonyctl(*words: object, timeout: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "symphony", *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, check=False, cwd=recorded.REPOSITORY
    )


def check(instance: Path, record: Path, size_scale: float) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(CHECKER), str(instance), str(record), "--size-scale", str(size_scale)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PLAY_S, check=False)


def play(engine: str, instance: Path, record: Path, size_scale: float) -> tuple[tuple[int, ...], str]:
    """Play one and check it: (tasks, dependencies, files), and what was wrong; empty when all is right."""
    words = ["play", "-q", instance, "--time-scale", 0, "--size-scale", size_scale, "--record", record]
    played = symphonyctl("-n", engine, "-o", "json", *words, timeout=PLAY_S)
    if played.returncode:
        return (), f"play ended with {played.returncode}: {played.stderr.strip()}"
    checked = check(instance, record, size_scale)
    found = COUNTED.search(checked.stdout)
    if checked.returncode or found is None:
        return (), checked.stderr.strip() or checked.stdout.strip()
    return tuple(map(int, found.groups())), ""


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("places", nargs="*", type=Path, help="folders or instances [default: the recorded workflows]")
    parser.add_argument("--size-scale", type=float, default=0.0, help="of the files' sizes; 0: 64 bytes each")
    parser.add_argument("--records", type=Path, help="keep the records in this folder")
    return parser.parse_args()


def chosen(places: list[Path]) -> list[Path]:
    found = []
    for place in places or [recorded.folder()]:
        found += recorded.instances(place) if place.is_dir() else [place] if place.exists() else []
    return [path.resolve() for path in found]


def play_each(engine: str, instances: list[Path], records: Path, size_scale: float) -> int:
    """Play and check them in turn; how many were wrong."""
    wrong, totals, begun = 0, [0, 0, 0], time.monotonic()
    for number, instance in enumerate(instances):
        started = time.monotonic()
        counts, fault = play(engine, instance, records / f"{number:02d}-{instance.stem}.jsonl", size_scale)
        spent = time.monotonic() - started
        wrong += bool(fault)
        totals = [a + b for a, b in zip(totals, counts or (0, 0, 0), strict=True)]
        told = fault or "{} tasks, {} dependencies, {} files".format(*counts)
        print(f"{'wrong' if fault else 'right'}  {spent:6.2f} s  {instance.name}: {told}", flush=True)
    tasks, dependencies, files = totals
    print(
        f"{len(instances)} instances, {wrong} wrong; {tasks} tasks, {dependencies} dependencies, {files} files right; "
        f"{time.monotonic() - begun:.1f} s"
    )
    return wrong


def main() -> int:
    given = arguments()
    instances = chosen(given.places)
    if not instances:
        print(recorded.ABSENT if not given.places else "nothing to play there", file=sys.stderr)
        return 2
    engine = f"recorded-{os.getpid()}-{secrets.token_hex(2)}"
    up = symphonyctl("-n", engine, "up", "--timeout", START_S, timeout=2 * START_S)
    if up.returncode:
        print(up.stderr, file=sys.stderr)
        return 1
    try:
        with tempfile.TemporaryDirectory() as temporary:
            records = given.records or Path(temporary)
            records.mkdir(parents=True, exist_ok=True)
            return 1 if play_each(engine, instances, records, given.size_scale) else 0
    finally:
        symphonyctl("-n", engine, "down", "--force", timeout=START_S)


if __name__ == "__main__":
    sys.exit(main())
