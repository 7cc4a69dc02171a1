"""A run's graph as arrays in a segment: geometry, writing, attaching.

Written once by whoever submits the run, before the run is queued; from then on its driver's. Cost of writing
O(V + E) and one sort by rank.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from symphony.model.errors import RoomError, ScoreError
from symphony.native.atomics import load_relaxed, store_release
from symphony.native.kernels import kernel
from symphony.native.layout import constants
from symphony.pit.dag.word import DONE, FLAG_GROUP, GENERATION_MASK, PENDING
from symphony.pit.run_map import ADDRESSES, RUN_MAP
from symphony.pit.tables import COLD, GRAPH, GROUP, INPUT, LANE, NODE, NONE, REF, STEP, STORY
from symphony.shmem.segment import Region, Segment

LIMIT_NODES = constants["SYM_LIMIT_NODES"]
LIMIT_LANES = constants["SYM_LIMIT_LANES"]
LANE_VERTICES = constants["SYM_LANE_VERTICES"]
STORY_RECORDS = 65536
"""At most so many transitions are kept a run: two MiB."""
SPARE_NODES = 1024
"""Rows that a run with fan-outs begins with, beside its static ones."""

_TYPES = {
    "graph": ("sym_graph_t", GRAPH), "nodes": ("sym_node_t", NODE), "cold": ("sym_node_cold_t", COLD), "marks": ("u8", np.uint8),
    "remaining": ("u32", np.int32), "edge_first": ("u32", np.int32), "edges": ("u32", np.int32), "order": ("u32", np.int32),
    "vertex_at": ("u32", np.int32), "ranks": ("u64", np.int64), "ready": ("u64", np.int64), "summary": ("u64", np.int64),
    "lanes": ("sym_lane_t", LANE), "groups": ("sym_group_t", GROUP), "steps": ("sym_step_t", STEP),
    "inputs": ("sym_input_t", INPUT),
    "outputs": ("sym_ref_t", REF), "story": ("sym_story_t", STORY),
}  # fmt: skip


@dataclass
class Graph:
    """What a run consists of, in private arrays, before it has memory.

    `vertex_steps`: step of each vertex; `edges`: (E, 2) sources and targets; `steps`, `inputs`, `groups`: rows
    ready but for what `write` fills in. With groups the vertices stand in topological order. `done`: vertices
    that are complete from birth. `lane_models`: model of each lane.
    """

    vertex_steps: np.ndarray
    edges: np.ndarray
    steps: np.ndarray
    inputs: np.ndarray
    groups: np.ndarray
    lane_models: list[int]
    done: list[int] = field(default_factory=list)
    names: Callable[[int], str] = str


@kernel
def topological_order(edge_first, edges, degree, order):
    """Kahn's algorithm (1962). Fills `order`; returns how many vertices it reached: fewer than all means a cycle."""
    count = len(degree)
    top = 0
    for vertex in range(count):
        if degree[vertex] == 0:
            order[top] = vertex
            top += 1
    at = 0
    while at < top:
        vertex = order[at]
        at += 1
        for e in range(edge_first[vertex], edge_first[vertex + 1]):
            target = edges[e]
            degree[target] -= 1
            if degree[target] == 0:
                order[top] = target
                top += 1
    return top


@kernel
def upward_ranks(edge_first, edges, order, own, ranks):
    """Longest way from each vertex to the end, its own time included (Topcuoglu et al. 2002)."""
    for i in range(len(order) - 1, -1, -1):
        vertex = order[i]
        longest = 0
        for e in range(edge_first[vertex], edge_first[vertex + 1]):
            if ranks[edges[e]] > longest:
                longest = ranks[edges[e]]
        ranks[vertex] = own[vertex] + longest


def _compress(edges: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges as compressed rows: where each source's targets begin, and the targets."""
    first = np.zeros(count + 1, np.uint32)
    if len(edges) == 0:
        return first, np.zeros(0, np.uint32)
    by_source = np.argsort(edges[:, 0], kind="stable")
    first[1:] = np.cumsum(np.bincount(edges[:, 0], minlength=count))
    return first, edges[by_source, 1].astype(np.uint32)


def _cycle(first: np.ndarray, targets: np.ndarray, left: np.ndarray) -> list[int]:
    """A cycle among the vertices that Kahn's algorithm could not reach; each has a predecessor among them."""
    sources = np.repeat(np.arange(len(first) - 1), np.diff(first.astype(np.int64)))
    inside = np.isin(sources, left) & np.isin(targets, left)
    before = dict(zip(targets[inside].tolist(), sources[inside].tolist(), strict=True))
    path, seen = [int(left[0])], {}
    while path[-1] not in seen:
        seen[path[-1]] = len(path) - 1
        path.append(before[path[-1]])
    return path[seen[path[-1]] :][::-1]


def _refuse_bad_edges(graph: Graph) -> None:
    edges, count = graph.edges, len(graph.vertex_steps)
    if count > LIMIT_NODES:
        raise ScoreError(f"a graph of {count} nodes is over the limit of {LIMIT_NODES}")
    if len(edges) and (edges.min() < 0 or edges.max() >= count):
        bad = edges[((edges < 0) | (edges >= count)).any(axis=1)][0]
        raise ScoreError(f"edge {tuple(int(end) for end in bad)} names a node that is none of the {count}")
    if len(graph.lane_models) > LIMIT_LANES:
        raise ScoreError(
            f"the steps need {len(graph.lane_models)} kinds of player, at most {LIMIT_LANES} can be told apart"
        )


def _order(graph: Graph, first: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Upward rank of each vertex; raises ScoreError with the path of a cycle."""
    count = len(graph.vertex_steps)
    degree = np.bincount(targets, minlength=count).astype(np.int64)
    order = np.empty(count, np.int64)
    reached = topological_order(first, targets, degree, order)
    if reached < count:
        left = np.setdiff1d(np.arange(count), order[:reached])
        path = _cycle(first, targets, left)
        raise ScoreError("the steps form a cycle: " + " -> ".join(graph.names(v) for v in path))
    own = np.maximum(graph.steps["estimate_ns"][graph.vertex_steps].astype(np.int64), 1)
    ranks = np.zeros(count, np.int64)
    upward_ranks(first, targets, order, own, ranks)
    return ranks


def _lanes(graph: Graph, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Lane rows, the position of each vertex, the vertex at each position, and words of the middle level."""
    lane_of = graph.steps["lane"][graph.vertex_steps].astype(np.int64)
    by_rank = np.lexsort((np.arange(len(ranks)), -ranks, lane_of))
    rows = np.zeros(len(graph.lane_models), LANE)
    position = np.zeros(len(ranks), np.uint32)
    start, words, taken = 0, 0, 0
    for lane, model in enumerate(graph.lane_models):
        members = by_rank[taken : taken + int((lane_of == lane).sum())]
        if len(members) > LANE_VERTICES:
            raise ScoreError(f"{len(members)} nodes of one kind are over the limit of {LANE_VERTICES}; use a fan-out")
        taken += len(members)
        rows[lane]["model"], rows[lane]["order_first"], rows[lane]["order_count"] = model, start, len(members)
        rows[lane]["summary_first"] = words
        position[members] = start + np.arange(len(members), dtype=np.uint32)
        start += -(-max(len(members), 1) // 64) * 64
        words += -(-max(len(members), 1) // 4096)
    vertex_at = np.zeros(start, np.uint32)
    vertex_at[position] = np.arange(len(ranks), dtype=np.uint32)
    return rows, position, vertex_at, words


@dataclass
class Prepared:
    """A checked graph with everything computed that its segment will hold."""

    graph: Graph
    edge_first: np.ndarray
    targets: np.ndarray
    ranks: np.ndarray
    lanes: np.ndarray
    order: np.ndarray
    vertex_at: np.ndarray
    summary_count: int
    static_outputs: int

    def geometry(self) -> dict[str, tuple[int, int]]:
        """Rows of each region: (address space, rows with memory behind them)."""
        graph = self.graph
        vertices, grows = len(graph.vertex_steps), len(graph.groups) > 0
        nodes = LIMIT_NODES if grows else vertices
        outputs = 2 * LIMIT_NODES if grows else self.static_outputs
        have = vertices + (SPARE_NODES if grows else 0)
        fixed = {
            "graph": 1, "remaining": vertices, "edge_first": vertices + 1, "edges": len(self.targets), "order": vertices,
            "vertex_at": len(self.vertex_at), "ranks": vertices, "ready": len(self.vertex_at) // 64, "summary": self.summary_count,
            "lanes": len(self.lanes), "groups": len(graph.groups), "steps": len(graph.steps), "inputs": len(graph.inputs),
            "story": story_records(have),
        }  # fmt: skip
        rows = {name: (max(1, count), max(1, count)) for name, count in fixed.items()}
        rows.update({name: (nodes, have) for name in ("nodes", "cold", "marks")})
        rows["outputs"] = (max(1, outputs), max(1, self.static_outputs + (SPARE_NODES if grows else 0)))
        return rows


def story_records(nodes: int) -> int:
    """Records of a run's story: room for four transitions a node, a power of two, bounded."""
    return min(STORY_RECORDS, 1 << max(6, (4 * nodes - 1).bit_length()))


def prepare(graph: Graph) -> Prepared:
    """Check a graph and compute its order. Raises ScoreError: bad edge, cycle with its path, a limit."""
    _refuse_bad_edges(graph)
    first, targets = _compress(graph.edges, len(graph.vertex_steps))
    ranks = _order(graph, first, targets)
    lanes, order, vertex_at, words = _lanes(graph, ranks)
    single = graph.steps["group"][graph.vertex_steps] == NONE
    outputs = int(graph.steps["output_count"][graph.vertex_steps][single].sum())
    return Prepared(graph, first, targets, ranks, lanes, order, vertex_at, words, outputs)


def regions(geometry: dict[str, tuple[int, int]]) -> list[Region]:
    return [Region(name, _TYPES[name][0], space, allocated=have) for name, (space, have) in geometry.items()]


def attach_map(
    row: np.void, segment: Segment, geometry: dict[str, tuple[int, int]], run: int, row_address: int
) -> None:
    """Fill one row of a RUN_MAP: addresses and counts of the run's tables in this process."""
    row["row"] = row_address
    for name in ADDRESSES[1:]:
        row[name] = segment.address(name)
    graph = segment.table("graph")[0]
    row["node_limit"], row["output_limit"] = geometry["nodes"][0], geometry["outputs"][0]
    for name in ("vertex_count", "edge_count", "group_count", "step_count", "lane_count", "input_count", "order_count"):
        row[name] = int(graph[name])
    row["summary_count"] = geometry["summary"][0]
    row["story_mask"] = int(graph["story_capacity"]) - 1
    row["generation"] = int(graph["run_generation"]) & 0xFFFFFFFF
    row["run"] = run


def new_map(rows: int) -> np.ndarray:
    """RUN_MAP rows in private memory, zeroed."""
    return np.zeros(rows, RUN_MAP)


def write(
    prepared: Prepared, segment: Segment, geometry: dict[str, tuple[int, int]], run: int, generation: int
) -> None:
    """Write a graph into its segment (new or used before: every row that counts is written)."""
    graph = prepared.graph
    vertices = len(graph.vertex_steps)
    head = segment.table("graph")[0]
    head["run_generation"], head["run"] = generation, run
    head["vertex_count"], head["node_capacity"] = vertices, geometry["nodes"][1]
    head["group_count"], head["step_count"], head["lane_count"] = (
        len(graph.groups),
        len(graph.steps),
        len(prepared.lanes),
    )
    head["edge_count"], head["input_count"] = len(prepared.targets), len(graph.inputs)
    head["output_capacity"], head["story_capacity"] = geometry["outputs"][1], geometry["story"][0]
    head["output_count"], head["vertices_left"], head["delayed_count"] = prepared.static_outputs, vertices, 0
    head["order_count"] = len(prepared.vertex_at)
    store_release_one(segment.table("graph")["story_count"], 0)
    for name, rows in (
        ("edge_first", prepared.edge_first), ("edges", prepared.targets), ("order", prepared.order),
        ("vertex_at", prepared.vertex_at),
        ("ranks", prepared.ranks), ("lanes", prepared.lanes), ("groups", graph.groups), ("steps",
        graph.steps), ("inputs", graph.inputs),
    ):  # fmt: skip
        if len(rows):
            segment.table(name)[: len(rows)] = rows
    _write_nodes(prepared, segment, generation)


def _write_nodes(prepared: Prepared, segment: Segment, generation: int) -> None:
    graph = prepared.graph
    vertices = len(graph.vertex_steps)
    steps = graph.steps[graph.vertex_steps]
    grouped = steps["group"] != NONE
    nodes = np.zeros(vertices, NODE)
    nodes["step"], nodes["group"], nodes["seat"] = graph.vertex_steps, steps["group"], NONE
    width = np.where(grouped, 0, steps["output_count"]).astype(np.int64)
    nodes["output"] = np.concatenate(([0], np.cumsum(width)[:-1])) if vertices else 0
    flags = np.where(grouped, FLAG_GROUP, steps["flags"] & 1).astype(np.int64)
    low = np.int64(generation & GENERATION_MASK)
    states = np.full(vertices, PENDING, np.int64)
    states[graph.done] = DONE
    nodes["word"] = low | (states << constants["SYM_NODE_STATE_SHIFT"]) | (flags << constants["SYM_NODE_FLAG_SHIFT"])
    segment.table("nodes")[:vertices] = nodes
    cold = np.zeros(vertices, COLD)
    cold["next"] = NONE
    segment.table("cold")[:vertices] = cold
    segment.table("marks")[:vertices] = 0
    if prepared.static_outputs:
        segment.table("outputs")[: prepared.static_outputs] = 0


@kernel
def store_release_one(array, value):
    store_release(array, 0, value)
    return load_relaxed(array, 0)


def room_for(segment: Segment, nodes: int, outputs: int) -> None:
    """Put memory behind so many rows of a growing run (the clerk). Raises NoSpace, RoomError at the limit."""
    if nodes > LIMIT_NODES or outputs > 2 * LIMIT_NODES:
        raise RoomError(f"a run of {nodes} nodes and {outputs} outputs is over the limit of {LIMIT_NODES} nodes")
    for name in ("nodes", "cold", "marks"):
        segment.grow(name, nodes)
    segment.grow("outputs", outputs)
    head = segment.table("graph")
    store_release_one(head["node_capacity"], nodes)
    store_release_one(head["output_capacity"], outputs)
