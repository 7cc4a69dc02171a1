"""Why a run failed, in words: read from its tables when it has ended."""

from typing import Any

import numpy as np

from symphony.model import score as scores
from symphony.model import value
from symphony.native.layout import constants
from symphony.pit.tables import UNSET

LIST = constants["SYM_VALUE_LIST"]
GAVE_UP = ("Cancelled", "CancelledError")
"""What a handler raises that looks at its deadline; in an async one the second."""
KINDS = {
    value.NONE: "none", value.BYTES: "bytes", value.TEXT: "text", value.DATA: "data", value.ARRAY: "array",
}  # fmt: skip


def explain(conductor: Any, run: Any) -> str:
    """The first failed node's error, or why no player came."""
    node = int(conductor.tables.runs[run.row]["failed_node"])
    if node == UNSET:
        return _without_node(conductor, run)
    row = run.segment.table("nodes")[node]
    step = run.score.steps[int(row["step"]) - 1]
    ref = run.segment.table("outputs")[int(row["output"])]
    return f"step {step.name!r} failed: {_why(conductor, run, node, step, ref)}"


def _why(conductor: Any, run: Any, node: int, step: scores.Step, ref: np.void) -> str:
    deaths = int(run.segment.table("cold")[node]["deaths"]) & 0xFFFF
    late = f"; its timeout is {step.timeout_s:g} s" if step.timeout_s else ""
    if int(ref["segment"]) and int(ref["kind"]) == value.ERROR:
        error = value.decode(value.ERROR, conductor.payload_of(ref), copy=True)
        said = f"{error.type}: {error.message}".rstrip(": ")
        gave_up = error.type.rpartition(".")[2] in GAVE_UP
        return f"{said}{late if gave_up else ''}\n{error.traceback}".rstrip()
    if step.once and deaths:
        return f"outcome unknown: its player died in the middle, and it must not run twice{late}"
    if deaths > constants["SYM_LIMIT_DEATHS"]:
        hosted = conductor.hosted[step.extension]
        return f"its player died in the middle {deaths} times{late}; {step.extension}: {hosted.last_words}"
    found = _not_a_list(run, int(run.segment.table("nodes")[node]["step"]))
    if found:
        return found
    return "its attempts are used up"


def _without_node(conductor: Any, run: Any) -> str:
    found = _not_a_list(run, 0)
    if found:
        return found
    used = {step.extension for step in run.score.steps}
    words = [
        f"{h.manifest.id}: {h.given_up}" for h in conductor.hosted.values() if h.given_up and h.manifest.id in used
    ]
    return "no player could be started: " + "; ".join(words) if words else "the run failed"


def _not_a_list(run: Any, source: int) -> str | None:
    """A step fans out over an output of this vertex (0: the run's inputs) that is no list."""
    rows, outputs, groups = (run.segment.table(name) for name in ("nodes", "outputs", "groups"))
    for group in groups:
        if int(group["source"]) != source or int(group["template"]) == 0 or int(group["source_group"]) != UNSET:
            continue
        kind = int(outputs[int(rows[source]["output"]) + int(group["source_output"])]["kind"])
        if kind != LIST:
            by = run.score.steps[int(group["template"]) - 1].name
            of = run.score.input_order[int(group["source_output"])] if source == 0 else run.score.steps[source - 1].name
            given = f"input {of!r} is no list" if source == 0 else "it gave no list"
            return f"{given} but {KINDS.get(kind, 'another value')}, and {by!r} fans out over it"
    return None


__all__ = ["explain"]
