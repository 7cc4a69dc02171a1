"""Kills every operation on shared memory at every instruction, and holds what is left against before and after.

    python tools/stepper.py                      each operation from its chosen states: about a minute
    python tools/stepper.py pool loop.drain      those whose names begin so
    python tools/stepper.py --all                every state; real kills wherever the memory changed: an hour
    python tools/stepper.py --list               what there is

Prints a line an operation: from how many states it was stepped, after how many instructions (of C and compiled
kernels) or writes (of Python code on shared memory) or stops at system calls (of Python code that makes and removes)
it was looked at, how many different images of the memory that gave, how many processes were really killed, and the
verdict. Ends with 1 when anything but before or after was found. Needs x86-64, cc, and the right to trace own children.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, astuple, fields
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from symphony.shmem.registry import Registry
from tools.stepping import table
from tools.stepping.core import ALL, QUICK, Operation, Row, examine

COLUMNS = [column.name for column in fields(Row) if column.name != "wrong"]
MOST_TOLD = 20


class Home:
    """Where a run of the stepper makes its segments: a runtime folder and a registry of its own."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.name = f"stepper-{os.getpid()}"
        self.registry = Registry(self.name)


@contextmanager
def home() -> Iterator[Home]:
    """A home in a fresh folder; $SYMPHONY_RUNTIME_DIR is that folder until the end."""
    before = os.environ.get("SYMPHONY_RUNTIME_DIR")
    with tempfile.TemporaryDirectory(prefix="stepper-") as folder:
        os.environ["SYMPHONY_RUNTIME_DIR"] = folder
        try:
            yield Home(folder)
        finally:
            if before is None:
                del os.environ["SYMPHONY_RUNTIME_DIR"]
            else:
                os.environ["SYMPHONY_RUNTIME_DIR"] = before


def line(values: list[str]) -> str:
    return f"{values[0]:<30}" + "".join(f"{value:>13}" for value in values[1:-1]) + f"  {values[-1]}"


def told(row: Row) -> list[str]:
    *numbers, _ = astuple(row)
    return [str(number) for number in numbers] + [row.verdict]


def step(operations: list[Operation], effort: str, seed: int) -> Iterator[Row]:
    """Examine them one after the other."""
    with home() as place:
        for operation in operations:
            yield examine(operation, place, effort, seed)


def show(rows: Iterator[Row]) -> list[Row]:
    """A line for each as it is done, and one for all of them."""
    begun, done = time.monotonic(), []
    print(line([*COLUMNS, "verdict"]))
    for row in rows:
        done.append(row)
        print(line(told(row)), flush=True)
        for wrong in row.wrong[:MOST_TOLD]:
            print(f"    {wrong}")
    print(total(done, time.monotonic() - begun))
    return done


def total(rows: list[Row], seconds: float) -> str:
    sums = [str(sum(getattr(row, column) for row in rows)) for column in COLUMNS[1:]]
    wrong = sum(len(row.wrong) for row in rows)
    return line([f"{len(rows)} operations", *sums, f"{wrong} wrong, {seconds:.0f} s"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("operation", nargs="*", help="names, or beginnings of names")
    parser.add_argument("--all", action="store_true", help="every state, every image really killed at")
    parser.add_argument(
        "--list", action="store_true", help="what operations there are, and what of the code each steps"
    )
    parser.add_argument("--seed", type=int, default=None, help="of the sampled kills; printed")
    parser.add_argument("--json", action="store_true", help="one document at the end instead of the table")
    options = parser.parse_args()
    try:
        chosen = table.find(options.operation)
    except KeyError as error:
        parser.error(f"no operation's name begins with {error}")
    if options.list:
        for operation in chosen:
            print(f"{operation.name:<30} {', '.join(operation.covers)}")
        return 0
    seed = random.SystemRandom().randrange(1 << 32) if options.seed is None else options.seed
    rows = step(chosen, ALL if options.all else QUICK, seed)
    if options.json:
        done = list(rows)
        print(json.dumps({"seed": seed, "operations": [asdict(row) for row in done]}))
        return 1 if any(row.wrong for row in done) else 0
    print(f"seed {seed}")
    return 1 if any(row.wrong for row in show(rows)) else 0


if __name__ == "__main__":
    sys.exit(main())
