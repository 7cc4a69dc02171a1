"""Where a run's tables lie in this process: addresses, kept in private memory.

The kernels find everything of a run by one row of this map. It is made from the segment's directory once,
when the run is attached, and never read back from shared memory: a damaged directory cannot move a pointer
under a running kernel. A row is valid while the run's segment and the state segment stay mapped.
"""

import numpy as np
from numba import njit

from symphony.native.atomics import rows
from symphony.pit.tables import COLD, GRAPH, GROUP, INPUT, LANE, NODE, REF, RUN, STEP, STORY

ADDRESSES = (
    "row", "graph", "nodes", "cold", "marks", "remaining", "edge_first", "edges", "order", "vertex_at", "ranks",
    "ready", "summary", "lanes", "groups", "steps", "inputs", "outputs", "story",
)  # fmt: skip
COUNTS = (
    "node_limit", "output_limit", "vertex_count", "edge_count", "group_count", "step_count", "lane_count", "input_count",
    "order_count", "summary_count", "story_mask", "generation", "run",
)  # fmt: skip
LOOP = (
    "active", "priority", "lane_mask", "arena_segment", "arena", "arena_size", "arena_used", "arena_asked", "blocked",
    "serial", "tried",
)  # fmt: skip

RUN_MAP = np.dtype([(name, "<i8") for name in ADDRESSES + COUNTS + LOOP])


@njit(inline="always")
def run_row(m):
    return rows(m.row, 1, RUN)


@njit(inline="always")
def graph_of(m):
    return rows(m.graph, 1, GRAPH)


@njit(inline="always")
def nodes_of(m):
    return rows(m.nodes, m.node_limit, NODE)


@njit(inline="always")
def cold_of(m):
    return rows(m.cold, m.node_limit, COLD)


@njit(inline="always")
def marks_of(m):
    return rows(m.marks, m.node_limit, np.uint8)


@njit(inline="always")
def remaining_of(m):
    return rows(m.remaining, m.vertex_count, np.int32)


@njit(inline="always")
def edge_first_of(m):
    return rows(m.edge_first, m.vertex_count + 1, np.int32)


@njit(inline="always")
def edges_of(m):
    return rows(m.edges, m.edge_count, np.int32)


@njit(inline="always")
def order_of(m):
    return rows(m.order, m.vertex_count, np.int32)


@njit(inline="always")
def vertex_at_of(m):
    return rows(m.vertex_at, m.order_count, np.int32)


@njit(inline="always")
def ranks_of(m):
    return rows(m.ranks, m.vertex_count, np.int64)


@njit(inline="always")
def ready_of(m):
    return rows(m.ready, m.order_count >> 6, np.int64)


@njit(inline="always")
def summary_of(m):
    return rows(m.summary, m.summary_count, np.int64)


@njit(inline="always")
def lanes_of(m):
    return rows(m.lanes, m.lane_count, LANE)


@njit(inline="always")
def groups_of(m):
    return rows(m.groups, m.group_count, GROUP)


@njit(inline="always")
def steps_of(m):
    return rows(m.steps, m.step_count, STEP)


@njit(inline="always")
def inputs_of(m):
    return rows(m.inputs, m.input_count, INPUT)


@njit(inline="always")
def outputs_of(m):
    return rows(m.outputs, m.output_limit, REF)


@njit(inline="always")
def story_of(m):
    return rows(m.story, m.story_mask + 1, STORY)
