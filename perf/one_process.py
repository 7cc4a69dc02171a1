"""The melody `ask` as one plain program: the same handlers, called in turn in one process, without an engine.

It is what the engine's run is measured against: python perf/one_process.py PATH QUESTION [--top N] [--json].
The libraries have one thread here as they have in the players. The model is loaded before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy is imported
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from symphony.aide.explorer.extension import walk  # noqa: E402
from symphony.aide.instruments.extension import embed  # noqa: E402
from symphony.aide.operators.extension import chunk, index, search  # noqa: E402

BATCH = 64  # as in melodies/ask.toml


class Clock:
    """Times of the stages, in seconds, in the order in which they ran."""

    def __init__(self) -> None:
        self.stages_s: dict[str, float] = {}

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        result = work()
        self.stages_s[name] = time.perf_counter() - start
        return result


def ask(path: str, question: str, top: int = 5) -> dict:
    """Play `ask` here: {passages, searched, walked, chunks, stages_s, total_s, serial_share}.

    serial_share is the part of the time that no second player could take over: walk, query, index and search.
    """
    embed(["warm"])
    clock = Clock()
    start = time.perf_counter()
    walked = clock.stage("walk", lambda: walk(path))
    chunks = clock.stage("chunk", lambda: [chunk(file, root=path, missing="skip") for file in walked["files"]])
    texts = [text for group in chunks for text in group]
    vectors = clock.stage("embed", lambda: [embed(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)])
    query = clock.stage("query", lambda: embed(question))
    indexed = clock.stage("index", lambda: index(vectors, passages=chunks))
    found = clock.stage("search", lambda: search(indexed, chunks, query, top=top))
    total = time.perf_counter() - start
    parallel = clock.stages_s["chunk"] + clock.stages_s["embed"]
    return {
        "passages": found["passages"],
        "searched": found["summary"],
        "walked": walked["summary"],
        "chunks": len(texts),
        "stages_s": clock.stages_s,
        "total_s": total,
        "serial_share": 1 - parallel / total,
    }


def _print(result: dict) -> None:
    for passage in result["passages"]:
        place = f"{passage['file']}:{passage['first_line']}-{passage['last_line']}"
        print(f"{passage['rank']}. {place}  score {passage['score']:.3f}")
        print("\n".join("   " + line for line in passage["text"].split("\n")[:6]))
    walked = result["walked"]
    print(
        f"{walked['files']} files, {result['chunks']} passages; skipped: {walked['skipped'] or 'nothing'}",
        file=sys.stderr,
    )
    times = ", ".join(f"{name} {seconds:.3f}" for name, seconds in result["stages_s"].items())
    print(f"seconds: {times}; total {result['total_s']:.3f}, serial {result['serial_share']:.1%}", file=sys.stderr)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("path")
    parser.add_argument("question")
    parser.add_argument("--top", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    given = parser.parse_args()
    result = ask(given.path, given.question, given.top)
    if given.json:
        json.dump(result, sys.stdout)
        print()
    else:
        _print(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
