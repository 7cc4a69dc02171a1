"""Is a run's segment consistent? One check an invariant (numbers as in this folder's README.md).

Reads tables only, so it works on a live run whose driver stands still, on a dead engine, and on a read-only map.
Cost O(V + E), vectorised.
"""

from typing import Any, NamedTuple

import numpy as np

from symphony.native.layout import constants, names

PENDING, DISPATCHED, STORING, DONE, FAILED, CACHED = (
    constants[f"SYM_NODE_{name}"] for name in ("PENDING", "DISPATCHED", "STORING", "DONE", "FAILED", "CACHED")
)
RUNNING = constants["SYM_RUN_RUNNING"]
GROUP = constants["SYM_NODE_GROUP"]
STATES = names("sym_node_state")


class Violation(NamedTuple):
    """An invariant that does not hold, where, and what is wrong."""

    invariant: str
    where: str
    text: str


class _Run:
    """Typed copies of what the checks look at, read once."""

    def __init__(self, segment: Any, row: np.void) -> None:
        self.row, self.graph = row, segment.table("graph")[0]
        self.count = int(row["node_count"])
        self.vertices = int(self.graph["vertex_count"])
        self.nodes = segment.table("nodes")[: self.count].copy()
        self.words = self.nodes["word"]
        self.states = (self.words >> constants["SYM_NODE_STATE_SHIFT"]).astype(np.int64)
        self.attempts = (self.words >> constants["SYM_NODE_ATTEMPT_SHIFT"] & constants["SYM_NODE_ATTEMPT_MASK"]).astype(
            np.int64
        )
        self.is_group = (self.words >> constants["SYM_NODE_FLAG_SHIFT"] & GROUP) != 0
        self.marks = segment.table("marks")[: self.count].copy()
        self.remaining = segment.table("remaining")[: self.vertices].astype(np.int64)
        self.first = segment.table("edge_first")[: self.vertices + 1].astype(np.int64)
        self.edges = segment.table("edges")[: int(self.graph["edge_count"])].astype(np.int64)
        self.groups = segment.table("groups")[: int(self.graph["group_count"])].copy()
        self.lanes = segment.table("lanes")[: int(self.graph["lane_count"])].copy()
        self.steps = segment.table("steps")[: int(self.graph["step_count"])].copy()
        self.order = segment.table("order")[: self.vertices].astype(np.int64)
        self.ready = segment.table("ready").copy()
        self.summary = segment.table("summary").copy()
        self.not_before = segment.table("cold")["not_before_ns"][: self.count].copy()
        self.done = (self.states == DONE) | (self.states == CACHED)
        self.complete = self.vertices_complete()

    def vertices_complete(self) -> np.ndarray:
        """Which vertices are complete, from the words alone; vertices stand in topological order where groups are."""
        complete = self.done[: self.vertices].copy()
        for vertex in np.flatnonzero(self.is_group[: self.vertices]):
            group = self.groups[int(self.nodes[vertex]["group"])]
            members = slice(int(group["first"]), int(group["first"]) + int(group["count"]))
            whole = bool(group["expanded"]) and bool(self.done[members].all())
            if whole and int(group["count"]) == 0:
                sources = np.searchsorted(self.first, np.flatnonzero(self.edges == vertex), side="right") - 1
                whole = bool(complete[sources].all())
            complete[vertex] = whole
        return complete


def validate(segment: Any, row: np.void) -> list[Violation]:
    """Every violation found in a run: its segment and its row of the table of runs. Empty: consistent."""
    run = _Run(segment, row)
    checks = (_words, _marks, _remaining, _counts, _groups, _ready, _summary)
    return [violation for check in checks for violation in check(run)]


def _at(nodes: np.ndarray) -> str:
    return "node " + ", ".join(str(node) for node in nodes[:4]) + (" …" if len(nodes) > 4 else "")


def _words(run: _Run) -> list[Violation]:
    """I1: every word bears the run's generation and a known state; an attempt stands where work was begun."""
    found = []
    wrong = np.flatnonzero((run.words & 0xFFFFFFFF) != (int(run.graph["run_generation"]) & 0xFFFFFFFF))
    if len(wrong):
        found.append(Violation("I1", _at(wrong), "bears another run's generation"))
    unknown = np.flatnonzero(~np.isin(run.states, list(STATES)))
    if len(unknown):
        found.append(Violation("I1", _at(unknown), "is in a state that does not exist"))
    idle = np.flatnonzero(np.isin(run.states, (DISPATCHED, STORING, FAILED)) & (run.attempts == 0))
    if len(idle):
        found.append(Violation("I1", _at(idle), "was begun without an attempt"))
    return found


def _marks(run: _Run) -> list[Violation]:
    """I2: a node is marked exactly when its word says done; a group's vertex when it is complete."""
    should = run.done.copy()
    should[: run.vertices] = run.complete
    wrong = np.flatnonzero((run.marks != 0) != should)
    return [Violation("I2", _at(wrong), "mark and word differ")] if len(wrong) else []


def _remaining(run: _Run) -> list[Violation]:
    """I3: `remaining` counts the incoming edges whose source is not complete (while the run goes on)."""
    if _state(run) != RUNNING:
        return []
    sources = np.repeat(np.arange(run.vertices), np.diff(run.first))
    expected = np.bincount(run.edges[~run.complete[sources]], minlength=run.vertices)
    wrong = np.flatnonzero(expected != run.remaining)
    return (
        [Violation("I3", _at(wrong), f"remaining is {run.remaining[wrong[0]]}, not {expected[wrong[0]]}")]
        if len(wrong)
        else []
    )


def _state(run: _Run) -> int:
    return int(run.row["word"]) >> constants["SYM_RUN_STATE_SHIFT"]


def _counts(run: _Run) -> list[Violation]:
    """I4: the run's counts equal those of its words."""
    real = ~run.is_group
    expected = {
        "done_count": int((run.done & real).sum()),
        "failed_count": int((run.states == FAILED).sum()),
        "flight_count": int(np.isin(run.states, (DISPATCHED, STORING)).sum()),
    }
    found = [
        Violation("I4", name, f"is {int(run.row[name])}, the words say {number}")
        for name, number in expected.items()
        if int(run.row[name]) != number
    ]
    left = int((~run.complete).sum())
    if _state(run) == RUNNING and int(run.graph["vertices_left"]) != left:
        found.append(Violation("I4", "vertices_left", f"is {int(run.graph['vertices_left'])}, the words say {left}"))
    return found


def _groups(run: _Run) -> list[Violation]:
    """I5: a group is expanded only when its source is complete; its nodes are its own; `remaining` counts the undone."""
    found = []
    for index, group in enumerate(run.groups):
        if not group["expanded"]:
            continue
        where = f"group {index}"
        if not run.complete[int(group["source"])]:
            found.append(Violation("I5", where, "is expanded before its source is complete"))
        members = slice(int(group["first"]), int(group["first"]) + int(group["count"]))
        if members.stop > run.count or (run.nodes["group"][members] != index).any():
            found.append(Violation("I5", where, "has nodes that are not its own"))
        elif int((~run.done[members]).sum()) != int(group["remaining"]):
            found.append(Violation("I5", where, f"remaining is {int(group['remaining'])}"))
    return found


def _ready(run: _Run) -> list[Violation]:
    """I6: a vertex is in its ready set exactly when nothing is left before it and something of it is to be dispatched."""
    if _state(run) != RUNNING:
        return []
    inside = (run.ready[run.order >> 6] >> (run.order & 63).astype(np.uint64) & 1) != 0
    pending = (run.states == PENDING) & (run.not_before == 0)
    waits = pending[: run.vertices] & ~run.is_group[: run.vertices]
    for vertex in np.flatnonzero(run.is_group[: run.vertices]):
        group = run.groups[int(run.nodes[vertex]["group"])]
        members = slice(int(group["first"]), int(group["first"]) + int(group["count"]))
        waits[vertex] = bool(group["expanded"]) and bool(pending[members].any())
    expected = waits & (run.remaining == 0) & ~run.complete
    wrong = np.flatnonzero(inside != expected)
    return [Violation("I6", _at(wrong), "ready set and words differ")] if len(wrong) else []


def _summary(run: _Run) -> list[Violation]:
    """I7: a bit of a summary level is set exactly when the word below it is not zero."""
    found = []
    for index, lane in enumerate(run.lanes):
        words = -(-max(1, int(lane["order_count"])) // 64)
        low = run.ready[int(lane["order_first"]) // 64 :][:words] != 0
        middle = np.zeros(-(-words // 64) * 64, bool)
        middle[:words] = low
        expected = np.packbits(middle, bitorder="little").view(np.uint64)
        actual = run.summary[int(lane["summary_first"]) :][: len(expected)]
        top = int(
            np.packbits(np.resize(expected != 0, 64) & (np.arange(64) < len(expected)), bitorder="little").view(
                np.uint64
            )[0]
        )
        if (actual != expected).any() or int(lane["top"]) != top:
            found.append(Violation("I7", f"lane {index}", "a summary level does not match the level below"))
    return found


__all__ = ["Violation", "validate"]
