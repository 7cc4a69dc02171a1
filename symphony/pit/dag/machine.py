"""The node's and the run's machine, compiled.

Only the driver of a run calls what writes derived state (ready sets, counts, marks, groups, story);
`complete_direct` alone may be called by others. Every edge is taken by `pit.commit.take`; what is derived
follows it and can be made again from the words by `rebuild`.

The ready set of a lane is a bitmap over its vertices in order of rank with two summary levels: adding and
taking the highest are a handful of instructions at any size (a van Emde Boas layout of fixed depth, after
Dietz and Willard's use of word-sized nodes).
"""

from symphony.native.atomics import load_acquire, prefetch, store_release
from symphony.native.kernels import inlined, kernel
from symphony.native.layout import constants
from symphony.pit.bits import trailing_zeros
from symphony.pit.commit import COMMITTED, take
from symphony.pit.dag.word import (
    CACHED,
    CANCELLED,
    DISPATCHED,
    DONE,
    FAILED,
    FLAG_GROUP,
    GENERATION_MASK,
    LAST_ATTEMPT,
    NODE_EDGES,
    PENDING,
    RUN_EDGES,
    RUN_FAILING,
    RUN_RUNNING,
    RUN_STATE_SHIFT,
    SKIPPED,
    STATE_SHIFT,
    STORING,
    attempt_of,
    flags_of,
    generation_of,
    over,
    pack,
    player_of,
    run_word,
    state_of,
)
from symphony.pit.run_map import (
    cold_of,
    edge_first_of,
    edges_of,
    graph_of,
    groups_of,
    lanes_of,
    marks_of,
    nodes_of,
    order_of,
    outputs_of,
    ready_of,
    remaining_of,
    run_row,
    steps_of,
    story_of,
    summary_of,
    vertex_at_of,
)
from symphony.pit.tables import NONE

LIST = constants["SYM_VALUE_LIST"]
SUBMITTED = constants["SYM_REASON_SUBMITTED"]
CHOSEN = constants["SYM_REASON_CHOSEN"]
RECOVERED = constants["SYM_REASON_RECOVERED"]
DEPENDENCY_FAILED = constants["SYM_REASON_DEPENDENCY_FAILED"]
REASON_CANCELLED = constants["SYM_REASON_CANCELLED"]

OK = 1
REFUSED = -3
"""The node is not in a state, or not of the attempt, that the operation needs."""
NO_ROOM = -4
"""The run's tables have no memory for a fan-out: grow them, then do it again."""
NOT_A_LIST = -5
"""A step fans out over an output that is no list."""


@inlined
def tell(maps, r, node, before, after, reason, player, attempt, now):
    """Append one transition to the run's story (driver only)."""
    m = maps[r]
    graph = graph_of(m)
    count = graph[0].story_count
    record = story_of(m)[count & m.story_mask]
    record.time_ns = now
    record.node = node
    record.before = before
    record.after = after
    record.reason = reason
    record.player = player
    record.attempt = attempt
    # SYNC story: a reader that finds this number finds the record whole, and checks it again afterwards.
    store_release(story_of(m)["sequence"], count & m.story_mask, count + 1)
    store_release(graph["story_count"], 0, count + 1)
    prefetch(story_of(m), (count + 16) & m.story_mask)


@kernel
def move_node(maps, r, node, before, state, attempt, player, reason, now):
    """Take the edge of a node from the word `before`. Returns COMMITTED, LOST or ILLEGAL."""
    m = maps[r]
    after = pack(state, flags_of(before), attempt, player, generation_of(before))
    verdict = take(nodes_of(m)["word"], node, before, after, STATE_SHIFT, NODE_EDGES)
    if verdict == COMMITTED:
        tell(maps, r, node, state_of(before), state, reason, player, attempt, now)
    return verdict


@kernel
def move_run(maps, r, state, reason, now):
    """Take the edge of the run itself (driver only). Returns COMMITTED, LOST or ILLEGAL."""
    m = maps[r]
    words = run_row(m)["word"]
    before = load_acquire(words, 0)
    after = run_word(state, before)
    verdict = take(words, 0, before, after, RUN_STATE_SHIFT, RUN_EDGES)
    if verdict == COMMITTED:
        tell(maps, r, NONE, (before >> RUN_STATE_SHIFT) & 15, state, reason, 0, 0, now)
    return verdict


@kernel
def run_state(maps, r):
    return (load_acquire(run_row(maps[r])["word"], 0) >> RUN_STATE_SHIFT) & 15


@inlined
def lane_of(m, vertex):
    """The lane of a vertex. Where there is but one, the two rows that would say so are not looked at."""
    if m.lane_count == 1:
        return 0
    return steps_of(m)[nodes_of(m)[vertex].step].lane


@inlined
def push_ready(maps, r, vertex):
    """Put a vertex into its lane's ready set. Again is harmless."""
    m = maps[r]
    lane_index = lane_of(m, vertex)
    lane = lanes_of(m)[lane_index]
    position = order_of(m)[vertex]
    inside = position - lane.order_first
    ready_of(m)[position >> 6] |= 1 << (position & 63)
    summary_of(m)[lane.summary_first + (inside >> 12)] |= 1 << ((inside >> 6) & 63)
    lane.top |= 1 << (inside >> 12)
    m.lane_mask |= 1 << lane_index


@inlined
def first_ready(maps, r, lane_index):
    """The vertex of highest rank in a lane's ready set, or -1. Leaves it there."""
    m = maps[r]
    lane = lanes_of(m)[lane_index]
    if lane.top == 0:
        return -1
    high = trailing_zeros(lane.top)
    middle = trailing_zeros(summary_of(m)[lane.summary_first + high])
    word = (lane.order_first >> 6) + (high << 6) + middle
    return vertex_at_of(m)[(word << 6) + trailing_zeros(ready_of(m)[word])]


@inlined
def drop_ready(maps, r, vertex):
    """Take a vertex out of its lane's ready set. Again is harmless."""
    m = maps[r]
    lane_index = lane_of(m, vertex)
    lane = lanes_of(m)[lane_index]
    position = order_of(m)[vertex]
    inside = position - lane.order_first
    ready = ready_of(m)
    ready[position >> 6] &= ~(1 << (position & 63))
    if ready[position >> 6] != 0:
        return
    summary = summary_of(m)
    at = lane.summary_first + (inside >> 12)
    summary[at] &= ~(1 << ((inside >> 6) & 63))
    if summary[at] != 0:
        return
    lane.top &= ~(1 << (inside >> 12))
    if lane.top == 0:
        m.lane_mask &= ~(1 << lane_index)


@kernel
def head_node(maps, r, vertex):
    """The next node to dispatch of a ready vertex: itself, or a member of its group. -1: none is left."""
    m = maps[r]
    node = nodes_of(m)[vertex]
    if flags_of(node.word) & FLAG_GROUP == 0:
        return vertex
    group = groups_of(m)[node.group]
    if group.again != NONE:
        return group.again
    if group.cursor < group.count:
        return group.first + group.cursor
    return -1


@inlined
def take_head(maps, r, vertex, node):
    """The head node of a vertex was dispatched: the ready set forgets it, and the vertex once it is drained."""
    m = maps[r]
    if node == vertex:
        drop_ready(maps, r, vertex)
        return
    group = groups_of(m)[nodes_of(m)[vertex].group]
    if group.again == node:
        group.again = cold_of(m)[node].next
    else:
        group.cursor += 1
    if group.again == NONE and group.cursor >= group.count:
        drop_ready(maps, r, vertex)


@kernel
def put_back(maps, r, node):
    """A pending node is ready (again): a retry, or one that a dead player never saw."""
    m = maps[r]
    group_index = nodes_of(m)[node].group
    if group_index == NONE:
        push_ready(maps, r, node)
        return
    group = groups_of(m)[group_index]
    cold_of(m)[node].next = group.again
    group.again = node
    push_ready(maps, r, group.template)


@kernel
def items_of_source(maps, r, group_index):
    """How many items a fan-out's source yields. -1: its one output is no list."""
    m = maps[r]
    group = groups_of(m)[group_index]
    outputs = outputs_of(m)
    if group.source_group == NONE:
        at = nodes_of(m)[group.source].output + group.source_output
        return outputs[at].count if outputs[at].kind == LIST else -1
    source = groups_of(m)[group.source_group]
    stride = steps_of(m)[nodes_of(m)[group.source].step].output_count
    total = 0
    if source.count == 0:
        return 0
    base = nodes_of(m)[source.first].output + group.source_output
    for i in range(source.count):
        at = base + i * stride
        total += outputs[at].count if outputs[at].kind == LIST else 1
    return total


@kernel
def expand(maps, r, group_index):
    """Write a fan-out's nodes and its row, before the last word of its source (protocols: node, 3).

    Returns OK, NO_ROOM or NOT_A_LIST. May be done again as long as the source is not done.
    """
    m = maps[r]
    graph = graph_of(m)
    groups = groups_of(m)
    group = groups[group_index]
    total = items_of_source(maps, r, group_index)
    if total < 0:
        return NOT_A_LIST
    nodes = nodes_of(m)
    template = nodes[group.template]
    step = steps_of(m)[template.step]
    count = (total + group.batch - 1) // group.batch
    first = run_row(m)[0].node_count
    output = graph[0].output_count
    if first + count > graph[0].node_capacity or output + count * step.output_count > graph[0].output_capacity:
        return NO_ROOM
    cold = cold_of(m)
    marks = marks_of(m)
    outputs = outputs_of(m)
    word = pack(PENDING, step.flags & 1, 0, 0, m.generation)
    if group.source_group == NONE:
        list_at = nodes[group.source].output + group.source_output
        stride = 1
        lists_left = 1
    else:
        source = groups[group.source_group]
        stride = steps_of(m)[nodes[group.source].step].output_count
        list_at = nodes[source.first].output + group.source_output if source.count > 0 else 0
        lists_left = source.count
    inside = 0
    left = total
    for i in range(count):
        here = first + i
        item = cold[here]
        # Lists that are empty or used up are stepped over, so that item_node holds the first item itself.
        while lists_left > 1:
            length = outputs[list_at].count if outputs[list_at].kind == LIST else 1
            if inside < length:
                break
            inside -= length
            list_at += stride
            lists_left -= 1
        amount = group.batch if left > group.batch else left
        item.item_node = list_at
        item.item_first = inside
        item.item_count = amount
        item.not_before_ns = 0
        item.started_ns = 0
        item.ended_ns = 0
        item.next = NONE
        item.failures = 0
        item.deaths = 0
        item.pid = 0
        inside += amount
        left -= amount
        nodes[here].position = 0
        nodes[here].step = template.step
        nodes[here].group = group_index
        nodes[here].output = output + i * step.output_count
        nodes[here].seat = NONE
        nodes[here].word = word
        marks[here] = 0
        for k in range(step.output_count):
            outputs[output + i * step.output_count + k].segment = 0
    group.first = first
    group.count = count
    group.remaining = count
    group.cursor = 0
    group.again = NONE
    graph[0].output_count = output + count * step.output_count
    row = run_row(m)
    # SYNC run-nodes: a reader that finds the count finds the rows.
    store_release(row["node_count"], 0, first + count)
    store_release(groups["expanded"], group_index, 1)
    row[0].total_count += count - 1
    return OK


@kernel
def room_for_all(maps, r, vertex):
    """Whether every fan-out over this vertex can be written: all of them or none, since the outputs that they go by
    may be read anew before the rest is tried again."""
    m = maps[r]
    groups = groups_of(m)
    graph = graph_of(m)
    nodes = run_row(m)[0].node_count
    outputs = graph[0].output_count
    for g in range(m.group_count):
        if groups[g].source != vertex or groups[g].expanded != 0:
            continue
        total = items_of_source(maps, r, g)
        if total < 0:
            return NOT_A_LIST
        count = (total + groups[g].batch - 1) // groups[g].batch
        nodes += count
        outputs += count * steps_of(m)[nodes_of(m)[groups[g].template].step].output_count
    if nodes > graph[0].node_capacity or outputs > graph[0].output_capacity:
        return NO_ROOM
    return OK


@inlined
def expand_before(maps, r, node):
    """Before the word of `node` says done: write the fan-outs that this completes the source of.

    Returns OK, NO_ROOM or NOT_A_LIST.
    """
    m = maps[r]
    if m.group_count == 0:
        return OK
    own = nodes_of(m)[node].group
    groups = groups_of(m)
    vertex = node
    if own != NONE:
        if groups[own].remaining > 1:
            return OK
        vertex = groups[own].template
    verdict = room_for_all(maps, r, vertex)
    if verdict != OK:
        return verdict
    for g in range(m.group_count):
        if groups[g].source == vertex and groups[g].expanded == 0:
            verdict = expand(maps, r, g)
            if verdict != OK:
                return verdict
    return OK


@inlined
def vertex_ready(maps, r, vertex):
    """A vertex has no dependency left. Returns 1 if it is passed at once: a fan-out of nothing."""
    m = maps[r]
    node = nodes_of(m)[vertex]
    if flags_of(node.word) & FLAG_GROUP != 0:
        if groups_of(m)[node.group].count == 0:
            return 1
    prefetch(edge_first_of(m), vertex)
    prefetch(marks_of(m), vertex)
    push_ready(maps, r, vertex)
    return 0


@inlined
def pass_on(maps, r, start):
    """A vertex is complete: count it off at its successors, and make ready those with nothing left.

    A fan-out of nothing completes as soon as it is ready; such vertices are chained through their cold row,
    so that no stack is needed. A fan-out whose source yields nothing more is expanded here if it was not.
    Returns OK, NO_ROOM or NOT_A_LIST (then the caller fails the run).
    """
    m = maps[r]
    remaining = remaining_of(m)
    edge_first = edge_first_of(m)
    edges = edges_of(m)
    graph = graph_of(m)
    marks = marks_of(m)
    vertex = start
    waiting = NONE
    verdict = OK
    while True:
        marks[vertex] = 1
        graph[0].vertices_left -= 1
        for e in range(edge_first[vertex], edge_first[vertex + 1]):
            target = edges[e]
            left = remaining[target] - 1
            remaining[target] = left
            if left == 0 and vertex_ready(maps, r, target) == 1:
                done = expand_empty(maps, r, target)
                if done != OK:
                    verdict = done
                    continue
                cold_of(m)[target].next = waiting
                waiting = target
        if waiting == NONE:
            return verdict
        vertex = waiting
        waiting = cold_of(m)[vertex].next


@kernel
def expand_empty(maps, r, vertex):
    """A fan-out of nothing is complete: fan-outs over it come to nothing too."""
    m = maps[r]
    groups = groups_of(m)
    for g in range(m.group_count):
        if groups[g].source == vertex and groups[g].expanded == 0:
            verdict = expand(maps, r, g)
            if verdict != OK:
                return verdict
    return OK


@inlined
def finish(maps, r, node):
    """The word of `node` says done: mark it, count it, pass it on. Once: again is harmless (driver only)."""
    m = maps[r]
    if marks_of(m)[node] != 0:
        return OK
    run_row(m)[0].done_count += 1
    vertex = mark(maps, r, node)
    if vertex < 0:
        return OK
    return pass_on(maps, r, vertex)


@inlined
def dispatch(maps, r, node, player, position, seat, now):
    """Commit a dispatch: position and seat beside, then word -> dispatched(attempt + 1).

    The record must have been written, unpublished, before; its tail is published after. Returns the attempt
    (1 or more), LOST, ILLEGAL, or REFUSED when the node is not pending or its attempts are used up.
    """
    m = maps[r]
    nodes = nodes_of(m)
    before = load_acquire(nodes["word"], node)
    if state_of(before) != PENDING or attempt_of(before) >= LAST_ATTEMPT:
        return REFUSED
    attempt = attempt_of(before) + 1
    nodes[node].position = position
    nodes[node].seat = seat
    verdict = move_node(maps, r, node, before, DISPATCHED, attempt, player, CHOSEN, now)
    if verdict != COMMITTED:
        return verdict
    run_row(m)[0].flight_count += 1
    return attempt


@kernel
def check(maps, r, node, generation, attempt, player):
    """Is this the node, attempt and player that a completion speaks of? Its word, or REFUSED."""
    m = maps[r]
    if node < 0 or node >= run_row(m)[0].node_count or generation & GENERATION_MASK != m.generation:
        return REFUSED
    word = load_acquire(nodes_of(m)["word"], node)
    if state_of(word) != DISPATCHED or attempt_of(word) != attempt or player_of(word) != player:
        return REFUSED
    return word


@inlined
def complete(maps, r, node, word, reason, now):
    """Commit a completion whose outputs stand beside the word, and pass it on (driver only).

    `word` is what `check` returned (or a word in storing). Returns OK, LOST, ILLEGAL, NO_ROOM (nothing
    changed: grow, then again) or NOT_A_LIST (nothing changed: fail the node).
    """
    running = run_state(maps, r) == RUN_RUNNING
    if running:
        verdict = expand_before(maps, r, node)
        if verdict != OK:
            return verdict
    verdict = move_node(maps, r, node, word, DONE, attempt_of(word), player_of(word), reason, now)
    if verdict != COMMITTED:
        return verdict
    row = run_row(maps[r])[0]
    row.flight_count -= 1
    if running:
        return finish(maps, r, node)
    # A run that fails or is cancelled goes no further: the result is kept, nothing is made ready by it.
    row.done_count += 1
    mark(maps, r, node)
    return OK


@inlined
def mark(maps, r, node):
    """Mark a done node; the last one of a fan-out marks its vertex, which is returned. A node alone is its vertex. -1:
    the vertex is not complete yet."""
    m = maps[r]
    marks = marks_of(m)
    marks[node] = 1
    group_index = nodes_of(m)[node].group
    if group_index == NONE:
        return node
    group = groups_of(m)[group_index]
    group.remaining -= 1
    if group.remaining != 0:
        return -1
    marks[group.template] = 1
    return group.template


@kernel
def store(maps, r, node, word, reason, now):
    """The outputs still have to be copied: word -> storing. The node stays in flight."""
    return move_node(maps, r, node, word, STORING, attempt_of(word), player_of(word), reason, now)


@kernel
def fail(maps, r, node, word, reason, now):
    """The node failed for good."""
    verdict = move_node(maps, r, node, word, FAILED, attempt_of(word), player_of(word), reason, now)
    if verdict == COMMITTED:
        row = run_row(maps[r])[0]
        row.flight_count -= 1
        row.failed_count += 1
        if row.failed_node == NONE:
            row.failed_node = node
    return verdict


@kernel
def cancel_node(maps, r, node, word, now):
    """A dispatched node heeded the cancellation of its run."""
    verdict = move_node(maps, r, node, word, CANCELLED, attempt_of(word), player_of(word), REASON_CANCELLED, now)
    if verdict == COMMITTED:
        run_row(maps[r])[0].flight_count -= 1
    return verdict


@kernel
def release(maps, r, node, word, reason, now):
    """A dispatched node goes back to pending; the attempt stays counted. Ready again by put_back."""
    verdict = move_node(maps, r, node, word, PENDING, attempt_of(word), 0, reason, now)
    if verdict == COMMITTED:
        run_row(maps[r])[0].flight_count -= 1
    return verdict


@kernel
def abandon(maps, r, state, reason, now):
    """The run is over early and nothing is in flight: every pending node becomes `state` (skipped, cancelled)."""
    m = maps[r]
    nodes = nodes_of(m)
    for node in range(run_row(m)[0].node_count):
        word = load_acquire(nodes["word"], node)
        if state_of(word) != PENDING or flags_of(word) & FLAG_GROUP != 0:
            continue
        move_node(maps, r, node, word, state, attempt_of(word), player_of(word), reason, now)
    clear_ready(maps, r)


@kernel
def clear_ready(maps, r):
    m = maps[r]
    ready = ready_of(m)
    for i in range(m.order_count >> 6):
        ready[i] = 0
    summary = summary_of(m)
    for i in range(m.summary_count):
        summary[i] = 0
    lanes = lanes_of(m)
    for i in range(m.lane_count):
        lanes[i].top = 0
    m.lane_mask = 0


@kernel
def vertex_complete(maps, r, vertex):
    """From the words alone: is this vertex complete? (A group: expanded, and all its nodes done.)"""
    m = maps[r]
    nodes = nodes_of(m)
    word = load_acquire(nodes["word"], vertex)
    if flags_of(word) & FLAG_GROUP == 0:
        state = state_of(word)
        return state == DONE or state == CACHED
    group = groups_of(m)[nodes[vertex].group]
    if group.expanded == 0:
        return False
    for i in range(group.count):
        state = state_of(load_acquire(nodes["word"], group.first + i))
        if state != DONE and state != CACHED:
            return False
    return True


@kernel
def rebuild(maps, r, now):
    """Make everything derived of a run again from its words: marks, counts, groups, ready sets (driver only).

    Each word is read once; mark and count come from that one reading. Fan-outs whose source is not complete
    are dropped; those whose source is complete hold (their rows were written before its last word), or, if the
    source was complete from birth, are written now. In a run that goes no further, a source may have come to its end
    without its fan-out: then nothing is written, since the rows behind the vertices may be those of another fan-out
    that is only met later. Returns OK, NO_ROOM or NOT_A_LIST. Cost O(V + E).
    """
    m = maps[r]
    graph = graph_of(m)[0]
    row = run_row(m)[0]
    nodes = nodes_of(m)
    marks = marks_of(m)
    clear_ready(maps, r)
    row.done_count = 0
    row.failed_count = 0
    row.flight_count = 0
    row.failed_node = NONE
    row.total_count = m.vertex_count
    graph.vertices_left = m.vertex_count
    graph.delayed_count = 0
    graph.output_count = first_outputs(maps, r)
    row.node_count = m.vertex_count
    remaining = remaining_of(m)
    edge_first = edge_first_of(m)
    edges = edges_of(m)
    for vertex in range(m.vertex_count):
        remaining[vertex] = 0
    for e in range(m.edge_count):
        remaining[edges[e]] += 1
    # A run with fan-outs numbers its vertices in topological order, so that one pass settles each group after
    # its source; a run without (a raw graph) may number them as it likes.
    verdict = OK
    for vertex in range(m.vertex_count):
        marks[vertex] = 0
        if flags_of(nodes[vertex].word) & FLAG_GROUP == 0:
            count_word(maps, r, vertex)
        else:
            # What cannot be written now stays unwritten; the counts are whole all the same.
            found = rebuild_group(maps, r, vertex)
            if found != OK:
                verdict = found
        if marks[vertex] == 0:
            continue
        graph.vertices_left -= 1
        for e in range(edge_first[vertex], edge_first[vertex + 1]):
            remaining[edges[e]] -= 1
    for vertex in range(m.vertex_count):
        if marks[vertex] == 0 and remaining[vertex] == 0:
            rebuild_ready(maps, r, vertex, now)
    if row.failed_count != 0 and run_state(maps, r) == RUN_RUNNING:
        # Its driver died between the node's word and the run's: without this the run would wait for ever for what
        # depends on the node.
        move_run(maps, r, RUN_FAILING, RECOVERED, now)
    return verdict


@kernel
def first_outputs(maps, r):
    """Rows of outputs that the static vertices take: those of groups' members follow."""
    m = maps[r]
    nodes = nodes_of(m)
    steps = steps_of(m)
    top = 0
    for vertex in range(m.vertex_count):
        if flags_of(nodes[vertex].word) & FLAG_GROUP != 0:
            continue
        end = nodes[vertex].output + steps[nodes[vertex].step].output_count
        if end > top:
            top = end
    return top


@kernel
def count_word(maps, r, node):
    """Count one node by one reading of its word; mark it if it is done."""
    m = maps[r]
    row = run_row(m)[0]
    state = state_of(load_acquire(nodes_of(m)["word"], node))
    done = state == DONE or state == CACHED
    marks_of(m)[node] = 1 if done else 0
    if done:
        row.done_count += 1
    elif state == DISPATCHED or state == STORING:
        row.flight_count += 1
    elif state == FAILED:
        row.failed_count += 1
        if row.failed_node == NONE:
            row.failed_node = node
    return done


@kernel
def rebuild_group(maps, r, template):
    """Settle a group after its source: drop it, hold it, or (source complete from birth, run going on) write it."""
    m = maps[r]
    g = nodes_of(m)[template].group
    group = groups_of(m)[g]
    marks = marks_of(m)
    row = run_row(m)[0]
    graph = graph_of(m)[0]
    group.cursor = 0
    group.again = NONE
    if marks[group.source] == 0 or (group.expanded == 0 and run_state(maps, r) != RUN_RUNNING):
        group.expanded = 0
        group.first = 0
        group.count = 0
        group.remaining = 0
        return OK
    if group.expanded == 0:
        verdict = expand(maps, r, g)
        if verdict != OK:
            return verdict
    else:
        row.total_count += group.count - 1
        if group.first + group.count > row.node_count:
            row.node_count = group.first + group.count
        if group.count > 0:
            step = steps_of(m)[nodes_of(m)[template].step]
            end = nodes_of(m)[group.first].output + group.count * step.output_count
            if end > graph.output_count:
                graph.output_count = end
    group.remaining = 0
    for i in range(group.count):
        if not count_word(maps, r, group.first + i):
            group.remaining += 1
    # A fan-out of nothing is complete once its own dependencies are; any other once its nodes are.
    if group.remaining == 0 and (group.count > 0 or remaining_of(m)[template] == 0):
        marks[template] = 1
    return OK


@kernel
def backs_off(maps, r, node, now):
    """Whether a pending node waits for its back-off still: counted as delayed then, and not ready."""
    m = maps[r]
    cold = cold_of(m)
    if cold[node].not_before_ns <= now:
        cold[node].not_before_ns = 0
        return False
    graph_of(m)[0].delayed_count += 1
    return True


@kernel
def rebuild_ready(maps, r, vertex, now):
    """A vertex without dependencies left, not complete: put what is pending of it into the ready set."""
    m = maps[r]
    nodes = nodes_of(m)
    cold = cold_of(m)
    word = load_acquire(nodes["word"], vertex)
    if flags_of(word) & FLAG_GROUP == 0:
        if state_of(word) == PENDING and not backs_off(maps, r, vertex, now):
            push_ready(maps, r, vertex)
        return
    group = groups_of(m)[nodes[vertex].group]
    # Members never chosen form the tail of the group: the cursor goes there. Pending ones before it are
    # chained, the first at the head.
    tail = group.count
    while tail > 0:
        below = load_acquire(nodes["word"], group.first + tail - 1)
        if state_of(below) != PENDING or attempt_of(below) != 0:
            break
        tail -= 1
    group.cursor = tail
    group.again = NONE
    for i in range(tail - 1, -1, -1):
        node = group.first + i
        if state_of(load_acquire(nodes["word"], node)) == PENDING and not backs_off(maps, r, node, now):
            cold[node].next = group.again
            group.again = node
    if group.again != NONE or group.cursor < group.count:
        push_ready(maps, r, vertex)


__all__ = [
    "CANCELLED",
    "NOT_A_LIST",
    "NO_ROOM",
    "OK",
    "REFUSED",
    "SKIPPED",
    "abandon",
    "cancel_node",
    "check",
    "complete",
    "dispatch",
    "expand",
    "fail",
    "finish",
    "first_ready",
    "head_node",
    "move_node",
    "move_run",
    "over",
    "put_back",
    "rebuild",
    "release",
    "run_state",
    "store",
    "take_head",
    "tell",
]
