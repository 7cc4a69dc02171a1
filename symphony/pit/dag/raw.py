"""Raw graphs, compiled: the caller is the driver, so completing and passing on is one call.

A raw graph's nodes have no outputs and no player: `hand_out` commits dispatched, `complete_many` commits done.
"""

from symphony.native.atomics import load_acquire, prefetch
from symphony.native.kernels import kernel
from symphony.pit.dag.machine import OK, REFUSED, complete, dispatch, first_ready, head_node, move_run, take_head
from symphony.pit.dag.word import DISPATCHED, RUN_COMPLETED, state_of
from symphony.pit.run_map import edge_first_of, edges_of, graph_of, nodes_of
from symphony.pit.tables import NONE


@kernel
def hand_out(maps, r, out, now):
    """Dispatch ready nodes by rank until `out` (int64) is full or none is left. How many."""
    count = 0
    while count < len(out):
        vertex = first_ready(maps, r, 0)
        if vertex < 0:
            break
        node = head_node(maps, r, vertex)
        take_head(maps, r, vertex, node)
        if dispatch(maps, r, node, 0, 0, NONE, now) > 0:
            out[count] = node
            count += 1
    return count


@kernel
def complete_many(maps, r, nodes, now):
    """Complete nodes that were handed out, and pass each on.

    Returns OK, or -(1 + i) when nodes[i] was not handed out or was completed before: those before it are done,
    those from it on untouched.
    """
    m = maps[r]
    for i in range(len(nodes)):
        node = nodes[i]
        if node < 0 or node >= m.vertex_count:
            return -(1 + i)
        word = load_acquire(nodes_of(m)["word"], node)
        if state_of(word) != DISPATCHED or complete(maps, r, node, word, 3, now) != OK:
            return -(1 + i)
    if graph_of(m)[0].vertices_left == 0:
        move_run(maps, r, RUN_COMPLETED, 3, now)
    return OK


@kernel
def play_through(maps, r, now):
    """Drive a whole graph: every node handed out by rank, completed, passed on. How many nodes.

    States by compare-and-swap, story and priority order are all on: what the tracker's figure measures.
    """
    m = maps[r]
    count = 0
    while True:
        vertex = first_ready(maps, r, 0)
        if vertex < 0:
            break
        take_head(maps, r, vertex, vertex)
        # Its edges are walked right after the two words are committed: the line comes in meanwhile.
        prefetch(edges_of(m), edge_first_of(m)[vertex])
        if dispatch(maps, r, vertex, 0, 0, NONE, now) <= 0:
            return REFUSED
        word = load_acquire(nodes_of(m)["word"], vertex)
        if complete(maps, r, vertex, word, 3, now) != OK:
            return REFUSED
        count += 1
    if graph_of(m)[0].vertices_left == 0:
        move_run(maps, r, RUN_COMPLETED, 3, now)
    return count
