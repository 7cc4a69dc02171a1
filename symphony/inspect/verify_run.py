"""The invariants of a run's segment that its own words tell. `derived` columns only where nothing moves any more."""

from collections.abc import Iterator
from typing import Any

from symphony.inspect.decode import View

NONE = 0xFFFFFFFF
BEGUN = ("dispatched", "storing", "failed")
DONE = ("done", "cached")


class _Run:
    """Columns that the checks share, read once."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.graph: dict[str, Any] = view.row("graph", 0)
        self.vertices: int = self.graph["vertex_count"]
        self.count = view.used("nodes", self.vertices)
        self.shifts = _shifts(view.field("nodes", "word").packed)
        self.states = view.layout.names("sym_node_state")
        self.group_flag = view.layout.enums.get("sym_node_flag", {}).get("SYM_NODE_GROUP", 0)
        self.words = view.column("nodes", "word", self.count)
        self.names = [self.states.get(self.part(word, "state"), "") for word in self.words]
        self.is_group = [bool(self.part(word, "flags") & self.group_flag) for word in self.words]
        columns = [view.column("groups", name, self.graph["group_count"]) for name in _GROUP_COLUMNS]
        self.groups = [dict(zip(_GROUP_COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)]

    def part(self, word: int, name: str) -> int:
        shift, mask = self.shifts[name]
        return word >> shift & mask

    def members(self, group: dict[str, int]) -> range:
        return range(group["first"], min(group["first"] + group["count"], self.count))

    def undone(self, group: dict[str, int]) -> int:
        return sum(self.names[node] not in DONE for node in self.members(group))


_GROUP_COLUMNS = ("template", "source", "first", "count", "expanded", "remaining")


def _shifts(packed: list[tuple[str, int]]) -> dict[str, tuple[int, int]]:
    at, found = sum(bits for _, bits in packed), {}
    for name, bits in packed:
        at -= bits
        found[name] = (at, (1 << bits) - 1)
    return found


def _nodes(view: View, living: bool) -> Iterator[tuple[str, str]]:
    """Every word bears the run's generation and a known state; what was begun has an attempt; step and group exist."""
    run = _Run(view)
    generation = run.graph["run_generation"] & 0xFFFFFFFF
    steps, groups = view.column("nodes", "step", run.count), view.column("nodes", "group", run.count)
    for node, (word, name) in enumerate(zip(run.words, run.names, strict=True)):
        if run.part(word, "run_generation") != generation:
            yield f"node {node}", f"bears generation {run.part(word, 'run_generation')}, the run has {generation}"
        elif not name:
            yield f"node {node}", f"is in state {run.part(word, 'state')}, which does not exist"
        elif name in BEGUN and not run.part(word, "attempt"):
            yield f"node {node}", f"is {name} without an attempt"
        if steps[node] >= run.graph["step_count"]:
            yield f"node {node}", f"is of step {steps[node]} of {run.graph['step_count']}"
        if groups[node] != NONE and groups[node] >= run.graph["group_count"]:
            yield f"node {node}", f"is of group {groups[node]} of {run.graph['group_count']}"


def _marks(view: View, living: bool) -> Iterator[tuple[str, str]]:
    """A node is marked exactly when its word says done; a group's vertex when all its nodes are."""
    if living:
        return
    run = _Run(view)
    of_group = view.column("nodes", "group", run.count)
    for node, mark in enumerate(view.column("marks", "value", run.count)):
        done = run.names[node] in DONE
        if run.is_group[node]:
            group = run.groups[of_group[node]]
            if not group["count"]:
                continue
            done = bool(group["expanded"]) and not run.undone(group)
        if bool(mark) != done:
            yield f"node {node}", f"is {run.names[node]} and {'marked' if mark else 'not marked'}"


def _groups(view: View, living: bool) -> Iterator[tuple[str, str]]:
    """A group stands for a vertex; once expanded, its nodes lie within those in use and are its own."""
    run = _Run(view)
    of_group = view.column("nodes", "group", run.count)
    for row, group in enumerate(run.groups):
        if group["template"] >= run.vertices or group["source"] >= run.vertices:
            yield f"group {row}", f"names vertices {group['template']} and {group['source']} of {run.vertices}"
        if group["expanded"] != 1:
            continue
        if group["first"] + group["count"] > run.graph["node_capacity"]:
            yield f"group {row}", "has nodes beyond the memory of the run"
        elif any(of_group[node] != row for node in run.members(group)):
            yield f"group {row}", "has nodes that are not its own"
        elif not living and group["remaining"] != run.undone(group):
            yield f"group {row}", f"has {run.undone(group)} nodes not done, its row says {group['remaining']}"


def _graph(view: View, living: bool) -> Iterator[tuple[str, str]]:
    """Edges, steps, inputs and lanes stay within their tables."""
    graph: dict[str, Any] = view.row("graph", 0)
    vertices, edges = graph["vertex_count"], graph["edge_count"]
    first = view.column("edge_first", "value", vertices + 1)
    if first != sorted(first) or (first and (first[0] != 0 or first[-1] != edges)):
        yield "edge_first", f"does not lead from 0 to {edges}"
    for edge, target in enumerate(view.column("edges", "value", edges)):
        if target >= vertices:
            yield f"edge {edge}", f"leads to vertex {target} of {vertices}"
    begins = view.column("steps", "input_first", graph["step_count"])
    for step, (begin, count) in enumerate(
        zip(begins, view.column("steps", "input_count", graph["step_count"]), strict=True)
    ):
        if begin + count > graph["input_count"]:
            yield f"step {step}", f"has inputs up to {begin + count} of {graph['input_count']}"
    lanes = zip(view.column("lanes", "order_first"), view.column("lanes", "order_count"), strict=True)
    for lane, (begin, count) in enumerate(lanes):
        if begin % 64 or begin + count > graph["order_count"]:
            yield f"lane {lane}", f"has positions {begin} to {begin + count} of {graph['order_count']}"


def _story(view: View, living: bool) -> Iterator[tuple[str, str]]:
    """Each record stands where its number says, and none is newer than the count, but for the next one: its driver may
    have been killed before it counted it."""
    graph: dict[str, Any] = view.row("graph", 0)
    count, capacity = graph["story_count"], graph["story_capacity"]
    if capacity & (capacity - 1) or capacity > view.places["story"].count:
        yield "story_capacity", f"is {capacity} of {view.places['story'].count} records: not a power of two within them"
        return
    if living:
        return
    sequences = view.column("story", "sequence", min(count, capacity))
    for row, sequence in enumerate(sequences):
        if not 0 < sequence <= count + (row == count % capacity) or (sequence - 1) % capacity != row:
            yield f"record {row}", f"has the number {sequence}, of {count} written"


CHECKS = {"nodes": _nodes, "marks": _marks, "groups": _groups, "graph": _graph, "story": _story}
