"""Where a run's tables lie in this process: addresses, kept in private memory.

The kernels find everything of a run by one row of this map. It is made from the segment's directory once,
when the run is attached, and never read back from shared memory: a damaged directory cannot move a pointer
under a running kernel. A row is valid while the run's segment and the state segment stay mapped.
"""

import numpy as np
from numba import carray, njit

from symphony.native.atomics import as_pointer
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
    return carray(as_pointer(m.row), (1,), dtype=RUN)


@njit(inline="always")
def graph_of(m):
    return carray(as_pointer(m.graph), (1,), dtype=GRAPH)


@njit(inline="always")
def nodes_of(m):
    return carray(as_pointer(m.nodes), (m.node_limit,), dtype=NODE)


@njit(inline="always")
def cold_of(m):
    return carray(as_pointer(m.cold), (m.node_limit,), dtype=COLD)


@njit(inline="always")
def marks_of(m):
    return carray(as_pointer(m.marks), (m.node_limit,), dtype=np.uint8)


@njit(inline="always")
def remaining_of(m):
    return carray(as_pointer(m.remaining), (m.vertex_count,), dtype=np.int32)


@njit(inline="always")
def edge_first_of(m):
    return carray(as_pointer(m.edge_first), (m.vertex_count + 1,), dtype=np.int32)


@njit(inline="always")
def edges_of(m):
    return carray(as_pointer(m.edges), (m.edge_count,), dtype=np.int32)


@njit(inline="always")
def order_of(m):
    return carray(as_pointer(m.order), (m.vertex_count,), dtype=np.int32)


@njit(inline="always")
def vertex_at_of(m):
    return carray(as_pointer(m.vertex_at), (m.order_count,), dtype=np.int32)


@njit(inline="always")
def ranks_of(m):
    return carray(as_pointer(m.ranks), (m.vertex_count,), dtype=np.int64)


@njit(inline="always")
def ready_of(m):
    return carray(as_pointer(m.ready), (m.order_count >> 6,), dtype=np.int64)


@njit(inline="always")
def summary_of(m):
    return carray(as_pointer(m.summary), (m.summary_count,), dtype=np.int64)


@njit(inline="always")
def lanes_of(m):
    return carray(as_pointer(m.lanes), (m.lane_count,), dtype=LANE)


@njit(inline="always")
def groups_of(m):
    return carray(as_pointer(m.groups), (m.group_count,), dtype=GROUP)


@njit(inline="always")
def steps_of(m):
    return carray(as_pointer(m.steps), (m.step_count,), dtype=STEP)


@njit(inline="always")
def inputs_of(m):
    return carray(as_pointer(m.inputs), (m.input_count,), dtype=INPUT)


@njit(inline="always")
def outputs_of(m):
    return carray(as_pointer(m.outputs), (m.output_limit,), dtype=REF)


@njit(inline="always")
def story_of(m):
    return carray(as_pointer(m.story), (m.story_mask + 1,), dtype=STORY)
