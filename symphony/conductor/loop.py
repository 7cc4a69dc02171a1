"""The Conductor's loop, compiled, without the GIL, in a thread of its own.

A turn: read the inbox; drain every command ring (bounded, in turn); dispatch what is ready; park when there
was nothing. It decides everything that has one writer, and hands what is rare to the clerk over a ring.
Orders are those of the protocols: a completion's record is released last, a dispatch's tail published last.
"""

import numpy as np
from numba import njit, types

from symphony.conductor.policy import depth, prefer
from symphony.conductor.state import (
    ARENA,
    BAD_RECORD,
    GROW,
    GROWN,
    LOOP_ENDED,
    MESSAGE_BYTES,
    MODEL_FAILED,
    NEED_ARENA,
    PART,
    PING,
    PLAYER_ADD,
    PLAYER_DEAD,
    PLAYER_DYING,
    PLAYER_GONE,
    PLAYER_NONE,
    PLAYER_READY,
    PLAYER_STARTING,
    PLAYER_UP,
    PONG,
    RUN_CANCEL,
    RUN_ENDED,
    RUN_START,
    RUN_STARTED,
    STOP,
    STORE,
    STORED,
    VIEWS,
    WANT_PLAYER,
)
from symphony.native.atomics import exchange, load_acquire, load_seq_cst, store_relaxed, store_release, table
from symphony.native.kernels import external, kernel
from symphony.native.layout import constants, dtype
from symphony.pit.arbiter.machine import give_vector, short_of, take_vector
from symphony.pit.bits import trailing_zeros
from symphony.pit.dag.machine import (
    NO_ROOM,
    NOT_A_LIST,
    OK,
    abandon,
    cancel_node,
    check,
    complete,
    dispatch,
    fail,
    first_ready,
    head_node,
    move_run,
    put_back,
    rebuild,
    release,
    run_state,
    store,
    take_head,
)
from symphony.pit.dag.word import (
    CANCELLED,
    DISPATCHED,
    DONE,
    FLAG_ONCE,
    LAST_ATTEMPT,
    PENDING,
    RUN_CANCELLED,
    RUN_CANCELLING,
    RUN_COMPLETED,
    RUN_FAILED,
    RUN_FAILING,
    RUN_QUEUED,
    RUN_RUNNING,
    SKIPPED,
    STORING,
    attempt_of,
    flags_of,
    player_of,
    state_of,
)
from symphony.pit.pool.machine import allocate_on, close_seats, open_seats, release_seat
from symphony.pit.run_map import (
    cold_of,
    graph_of,
    groups_of,
    inputs_of,
    lanes_of,
    nodes_of,
    outputs_of,
    ranks_of,
    ready_of,
    run_row,
    steps_of,
    summary_of,
)
from symphony.pit.tables import (
    CHANNEL_IN,
    CHANNEL_OUT,
    COMPLETION,
    COUNTER,
    DISPATCH,
    ENGINE,
    INSTANCE,
    MODEL,
    NONE,
    OUTPUT,
    PLAYER,
    PRODUCER,
    REF,
    RESOURCE,
    SEAT,
    signed,
)
from symphony.pit.tables import (
    PART as PART_RECORD,
)

VIEW = signed(dtype("sym_view_t"))
VIEW_BYTES = VIEW.itemsize

claim_record = external("sym_ring_claim_spsc", types.int64, types.int64, types.uint32, types.uint32)
claim_position = external("sym_ring_position_spsc", types.int64, types.int64)
stage_record = external("sym_ring_stage_spsc", types.void, types.int64)
publish_records = external("sym_ring_publish_spsc", types.void, types.int64)
producer_error = external("sym_ring_producer_error_spsc", types.int32, types.int64)
abort_record = external("sym_ring_abort_spsc", types.void, types.int64)
poll_records = external("sym_ring_poll_spsc", types.int32, types.int64, types.int64, types.int32)
release_records = external("sym_ring_release_spsc", types.void, types.int64, types.int64)
rewind_records = external("sym_ring_rewind_spsc", types.void, types.int64)
ring_bell = external("sym_bell_ring", types.void, types.int64)
ring_pipe = external("sym_bell_pipe_ring", types.int32, types.int32)
park = external("sym_park", types.int32, types.int32, types.int64)
now_ns = external("sym_now_ns", types.int64)
pause = external("sym_pause", types.void)
copy = external("sym_copy", types.void, types.int64, types.int64, types.uint64)

RECORD_COMPLETION = constants["SYM_RECORD_COMPLETION"]
RECORD_PART = constants["SYM_RECORD_PART"]
RECORD_READY = constants["SYM_RECORD_READY"]
RECORD_LOG = constants["SYM_RECORD_LOG"]
RECORD_DISPATCH = constants["SYM_RECORD_DISPATCH"]
RECORD_CANCEL = constants["SYM_RECORD_CANCEL"]
RECORD_STOP = constants["SYM_RECORD_STOP"]
OUTCOME_OK = constants["SYM_OUTCOME_OK"]
OUTCOME_FAILED = constants["SYM_OUTCOME_FAILED"]
OUTCOME_CANCELLED = constants["SYM_OUTCOME_CANCELLED"]
HOME_INLINE = constants["SYM_HOME_INLINE"]
HOME_ARENA = constants["SYM_HOME_ARENA"]
HOME_PARTS = constants["SYM_HOME_PARTS"]
VALUE_NONE = constants["SYM_VALUE_NONE"]
VALUE_LIST = constants["SYM_VALUE_LIST"]
VALUE_ERROR = constants["SYM_VALUE_ERROR"]
INPUT_VALUE = constants["SYM_INPUT_VALUE"]
INPUT_ITEM = constants["SYM_INPUT_ITEM"]
LIMIT_OUTPUTS = constants["SYM_LIMIT_OUTPUTS"]
LOOP_COPY_BYTES = constants["SYM_LIMIT_LOOP_COPY_BYTES"]
LIMIT_DEATHS = constants["SYM_LIMIT_DEATHS"]
REASON_COMPLETED = constants["SYM_REASON_COMPLETED"]
REASON_STORED = constants["SYM_REASON_STORED"]
REASON_HANDLER_FAILED = constants["SYM_REASON_HANDLER_FAILED"]
REASON_RETRY = constants["SYM_REASON_RETRY"]
REASON_PLAYER_DIED = constants["SYM_REASON_PLAYER_DIED"]
REASON_UNKNOWN = constants["SYM_REASON_OUTCOME_UNKNOWN"]
REASON_DEPENDENCY = constants["SYM_REASON_DEPENDENCY_FAILED"]
REASON_CANCELLED = constants["SYM_REASON_CANCELLED"]
REASON_NO_MEMORY = constants["SYM_REASON_NO_MEMORY"]
REASON_SUBMITTED = constants["SYM_REASON_SUBMITTED"]
PLAYER_STATE_READY = constants["SYM_PLAYER_READY"]
PLAYER_STATE_DEAD = constants["SYM_PLAYER_DEAD"]
MODEL_READY = constants["SYM_MODEL_READY"]
MODEL_FAILED_STATE = constants["SYM_MODEL_FAILED"]
COUNTER_LOOPS = constants["SYM_COUNTER_LOOPS"]
COUNTER_PARKS = constants["SYM_COUNTER_PARKS"]
COUNTER_COMPLETIONS = constants["SYM_COUNTER_COMPLETIONS"]
COUNTER_DISPATCHES = constants["SYM_COUNTER_DISPATCHES"]
COUNTER_REFUSED = constants["SYM_COUNTER_REFUSED"]
COUNTER_RETRIES = constants["SYM_COUNTER_RETRIES"]
COUNTER_DEATHS = constants["SYM_COUNTER_PLAYER_DEATHS"]
COUNTER_BELLS = constants["SYM_COUNTER_BELLS"]
COUNTER_STORED = constants["SYM_COUNTER_STORED_BYTES"]

COMPLETION_BYTES = COMPLETION.itemsize
OUTPUT_BYTES = OUTPUT.itemsize
DISPATCH_BYTES = DISPATCH.itemsize
REF_BYTES = REF.itemsize
PART_BYTES = PART_RECORD.itemsize
REFS_IN_RECORD = 512
"""More refs than this lie in the run's arena, at the one ref that follows the binding."""
REFS_IN_MEMORY = 1
"""Flag of sym_dispatch_t."""
BURST = 8
"""Nodes sent from one lane before the ready sets of all are looked at again."""
TURN_DISPATCHES = 256
BACKOFF_CAP_NS = 60_000_000_000
PARK_NS = 1_000_000_000
PARK_DELAYED_NS = 2_000_000
IDLE = -1
"""channel_in.working of a player that works on nothing (all bits set)."""
ARENA_LOW = 4
"""An arena with less than a quarter left is replaced before it is needed."""

HELD_BACK, HANDLED, BAD = 0, 1, 2
SENT, PLAYER_TRIED, RUN_TRIED, GONE = 1, 2, 3, 4
COUNT_MASK = 0xFFFF
IN_ARENA, GATHERING, GATHERED = 1, 2, 3
"""Slot of an output's row before its node is done: its bytes lie in the player's arena still; its pieces are being
gathered (`segment` and `first` say where, in units of 64 bytes, `size_bytes` how much is there); they are whole."""
NO_PART, PART_GIVEN, PART_TAKEN = 0, 1, 2
"""The piece at a command ring's front: not looked at; the clerk copies it; copied, its record can be released."""


@njit(inline="always")
def players_of(control):
    return table(control[0].players, control[0].players_used, PLAYER)


@njit(inline="always")
def models_of(control):
    return table(control[0].models, 1024, MODEL)


@njit(inline="always")
def instances_of(control):
    return table(control[0].instances, 1024, INSTANCE)


@njit(inline="always")
def seats_of(control):
    return table(control[0].seats, 16384, SEAT)


@njit(inline="always")
def resources_of(control):
    return table(control[0].resources, 8, RESOURCE)


@njit(inline="always")
def words_at(address, count):
    return table(address, count, np.int64)


@kernel
def count(control, which, amount):
    values = table(control[0].counters, 256, COUNTER)["value"]
    store_relaxed(values, which, values[which] + amount)


@kernel
def say(control, kind, a, b, c, d, e):
    """Tell the clerk. The caller has seen, by `outbox_has_room`, that it fits."""
    c0 = control[0]
    address = claim_record(c0.outbox, kind, MESSAGE_BYTES)
    if address == 0:
        return False
    words = words_at(address, 8)
    words[0] = a
    words[1] = b
    words[2] = c
    words[3] = d
    words[4] = e
    words[5] = 0
    words[6] = 0
    words[7] = 0
    stage_record(c0.outbox)
    publish_records(c0.outbox)
    sleeping = table(c0.outbox_sleeping, 1, np.uint32)
    # SYNC bell: publish is a sequentially consistent exchange of the tail, this load comes after it; the clerk
    # exchanges its flag before it loads the tail. One of the two sees the other, or a wake-up is lost.
    if load_seq_cst(sleeping, 0) != 0:
        ring_pipe(np.int32(c0.outbox_pipe))
    return True


@kernel
def outbox_has_room(control, messages):
    address = claim_record(control[0].outbox, STORE, messages * (MESSAGE_BYTES + 8))
    if address == 0:
        return False
    abort_record(control[0].outbox)
    return True


@kernel
def end_run_if_over(control, maps, active, r):
    """The run's last state, when nothing of it is left to do or in flight."""
    m = maps[r]
    row = run_row(m)[0]
    state = run_state(maps, r)
    now = control[0].now
    if state == RUN_RUNNING:
        if graph_of(m)[0].vertices_left != 0:
            return
        state = RUN_COMPLETED
    elif row.flight_count != 0:
        return
    elif state == RUN_FAILING:
        abandon(maps, r, SKIPPED, REASON_DEPENDENCY, now)
        state = RUN_FAILED
    elif state == RUN_CANCELLING:
        abandon(maps, r, CANCELLED, REASON_CANCELLED, now)
        state = RUN_CANCELLED
    else:
        return
    row.ended_ns = now
    move_run(maps, r, state, REASON_COMPLETED, now)
    for i in range(control[0].active_count):
        if active[i] == r:
            control[0].active_count -= 1
            active[i] = active[control[0].active_count]
            break
    m.active = 0
    say(control, RUN_ENDED, r, m.serial, state, 0, 0)


@kernel
def give_seat(control, maps, pmaps, p, r, node):
    """What a dispatched node held comes back: its seat, its capacity, its place in the player's window."""
    m = maps[r]
    n = nodes_of(m)[node]
    release_seat(seats_of(control), n.seat, control[0].owner)
    pmaps[p].held -= 1
    give_vector(resources_of(control), control[0].resources_used, steps_of(m)[n.step].need)


@kernel
def take_arena(maps, r, size):
    """Room for `size` bytes in the run's arena, 64-aligned: its offset, or -1."""
    m = maps[r]
    at = m.arena_used
    end = at + ((size + 63) & ~63)
    if m.arena == 0 or end > m.arena_size:
        return -1
    m.arena_used = end
    return at


@kernel
def ask_arena(control, maps, r, size):
    m = maps[r]
    if m.arena_asked == 0:
        m.arena_asked = 1
        say(control, NEED_ARENA, r, m.serial, size, 0, 0)


@njit(inline="always")
def counted(tally, attempt):
    """A tally {last attempt counted 16 | count 16} with this attempt in it. One word, so that a completion which is
    applied again after a crash is not counted again."""
    if tally >> 16 == attempt:
        return tally
    return attempt << 16 | ((tally & COUNT_MASK) + 1)


@kernel
def retry_or_fail(control, maps, r, node, word, reason):
    """A reported failure: again after its back-off while retries are left, else failed for good."""
    m = maps[r]
    step = steps_of(m)[nodes_of(m)[node].step]
    item = cold_of(m)[node]
    now = control[0].now
    if reason == REASON_HANDLER_FAILED:
        item.failures = counted(item.failures, attempt_of(word))
    failures = item.failures & COUNT_MASK
    more = failures <= step.retries and attempt_of(word) < LAST_ATTEMPT
    if reason == REASON_HANDLER_FAILED and more and run_state(maps, r) == RUN_RUNNING:
        wait = step.backoff_ns
        for _ in range(failures - 1):
            wait = wait * 2 if wait * 2 < BACKOFF_CAP_NS else BACKOFF_CAP_NS
        drop_outputs(maps, r, node)
        item.not_before_ns = now + wait if wait > 0 else 0
        release(maps, r, node, word, REASON_RETRY, now)
        count(control, COUNTER_RETRIES, 1)
        if wait == 0:
            put_back(maps, r, node)
        else:
            graph_of(m)[0].delayed_count += 1
        return
    fail(maps, r, node, word, reason, now)
    if run_state(maps, r) == RUN_RUNNING:
        move_run(maps, r, RUN_FAILING, reason, now)


@kernel
def wake_delayed(control, maps, active):
    """Nodes whose back-off is over are ready again."""
    now = control[0].now
    for i in range(control[0].active_count):
        r = active[i]
        m = maps[r]
        graph = graph_of(m)[0]
        if graph.delayed_count == 0:
            continue
        cold = cold_of(m)
        nodes = nodes_of(m)
        for node in range(run_row(m)[0].node_count):
            until = cold[node].not_before_ns
            if until == 0 or until > now or state_of(nodes[node].word) != PENDING:
                continue
            cold[node].not_before_ns = 0
            graph.delayed_count -= 1
            put_back(maps, r, node)


@kernel
def drop_outputs(maps, r, node):
    """The node's outputs are nothing: its run goes no further and has no memory left to keep them in."""
    m = maps[r]
    rows = outputs_of(m)
    base = nodes_of(m)[node].output
    for k in range(steps_of(m)[nodes_of(m)[node].step].output_count):
        rows[base + k].kind = VALUE_NONE
        rows[base + k].slot = 0
        rows[base + k].size_bytes = 0
        rows[base + k].count = 0
        rows[base + k].segment = 0
        rows[base + k].offset_bytes = 0


@kernel
def copy_outputs(control, maps, pmaps, p, r, node, head, outputs, payload, payload_bytes):
    """Outputs into the run's arena, their places beside the node.

    Returns OK, or NO_ROOM when the arena has to be replaced first (nothing is changed then). A run that goes no
    further does not wait for memory: what finds no room is dropped.
    """
    m = maps[r]
    need = 0
    for k in range(head.output_count):
        need += (outputs[k].size_bytes + 63) & ~63
    if need > 0 and (m.arena == 0 or m.arena_used + need > m.arena_size):
        if run_state(maps, r) != RUN_RUNNING:
            drop_outputs(maps, r, node)
            return OK
        ask_arena(control, maps, r, need)
        return NO_ROOM
    rows = outputs_of(m)
    base = nodes_of(m)[node].output
    player = pmaps[p]
    for k in range(head.output_count):
        o = outputs[k]
        row = rows[base + k]
        row.kind = o.kind
        row.slot = 0
        row.size_bytes = o.size_bytes
        row.first = 0
        row.count = o.count
        row.segment = 0
        row.offset_bytes = 0
        if o.size_bytes == 0:
            continue
        at = take_arena(maps, r, o.size_bytes)
        source = payload + o.offset_bytes
        if o.home == HOME_ARENA:
            source = player.arena + (o.offset_bytes & (player.arena_size - 1))
        copy(m.arena + at, source, np.uint64(o.size_bytes))
        row.segment = m.arena_segment
        row.offset_bytes = at
    if m.arena_size - m.arena_used < m.arena_size // ARENA_LOW and run_state(maps, r) == RUN_RUNNING:
        ask_arena(control, maps, r, need)
    count(control, COUNTER_STORED, need)
    return OK


@kernel
def note_arena(pmaps, p, end):
    """What lies before `end` is needed no more once nothing reads there: said before the record is released, so that
    a Conductor that comes back knows what it may give back."""
    if end > pmaps[p].arena_end:
        pmaps[p].arena_end = end
        ends = table(pmaps[p].channel_out, 1, CHANNEL_OUT)["arena_end"]
        store_relaxed(ends, 0, end)


@kernel
def wake_producer(pmaps, p):
    """Space came free, in the command ring or the arena: ring if the player sleeps for it."""
    flags = table(pmaps[p].command_producer, 1, PRODUCER)["sleeping"]
    # SYNC bell: the head was exchanged before this load.
    if load_seq_cst(flags, 0) != 0:
        ring_bell(pmaps[p].channel_out)


@kernel
def give_arena(pmaps, p):
    """Everything copied so far is the extension's again, once no job of the clerk reads there."""
    player = pmaps[p]
    if player.arena_outstanding == 0:
        heads = table(player.channel_out, 1, CHANNEL_OUT)["arena_head"]
        if heads[0] != player.arena_end:
            # SYNC arena-head: the copies come before this exchange; the extension loads it with acquire before it
            # writes there again. Without the order a copy could pick up the next output's bytes.
            exchange(heads, 0, player.arena_end)
            wake_producer(pmaps, p)


@kernel
def outputs_fit(pmaps, p, head, outputs, payload_bytes, step_outputs):
    """Whether what an extension says of its outputs can be true. Every number is a private copy by now."""
    if head.outcome == OUTCOME_OK:
        if head.output_count != step_outputs:
            return False
        for k in range(head.output_count):
            if outputs[k].kind == VALUE_ERROR:
                return False
    elif (head.outcome != OUTCOME_FAILED and head.outcome != OUTCOME_CANCELLED) or (
        head.output_count != 1 or outputs[0].kind != VALUE_ERROR
    ):
        return False
    elif outputs[0].home == HOME_PARTS or outputs[0].size_bytes > LOOP_COPY_BYTES:
        # An error is copied by the loop itself: it does not come in pieces, and is not longer than the loop may copy.
        return False
    player = pmaps[p]
    heads = table(player.channel_out, 1, CHANNEL_OUT)["arena_head"]
    for k in range(head.output_count):
        o = outputs[k]
        if o.kind < 0 or o.kind > VALUE_ERROR or o.size_bytes < 0 or o.offset_bytes < 0 or o.count < 0:
            return False
        if o.kind == VALUE_LIST and (o.size_bytes < 8 or o.count > (o.size_bytes - 8) // 17):
            return False
        if (o.kind != VALUE_LIST and o.count != 0) or (o.kind == VALUE_NONE and o.size_bytes != 0):
            return False
        if o.home == HOME_INLINE:
            if o.size_bytes > payload_bytes or o.offset_bytes > payload_bytes - o.size_bytes:
                return False
        elif o.home == HOME_ARENA:
            inside = o.offset_bytes & (player.arena_size - 1)
            if o.size_bytes > player.arena_size - inside:
                return False
            # By differences: a sum of what an extension says could overflow.
            if o.offset_bytes < heads[0] or o.offset_bytes - heads[0] > player.arena_size - o.size_bytes:
                return False
        elif o.home != HOME_PARTS:
            return False
    return True


@kernel
def applied_before(pmaps, p, head, outputs):
    """The first record after the Conductor came back may have been applied already and only not released: HANDLED
    then. Any other that speaks of nothing in flight is BAD."""
    if pmaps[p].first_again == 0:
        return BAD
    end = 0
    for k in range(head.output_count):
        o = outputs[k]
        if o.home == HOME_ARENA and o.size_bytes >= 0 and o.size_bytes <= pmaps[p].arena_size:
            if o.offset_bytes >= 0 and o.offset_bytes <= pmaps[p].arena_end + pmaps[p].arena_size:
                end = max(end, o.offset_bytes + o.size_bytes)
    note_arena(pmaps, p, end)
    return HANDLED


@kernel
def on_completion(control, maps, active, pmaps, p, address, length):
    """Apply one completion. HANDLED, HELD_BACK (memory has to come first; nothing changed), or BAD."""
    scratch = control[0].scratch
    if length < COMPLETION_BYTES or length > control[0].scratch_bytes:
        return BAD
    # Memory that the extension can write is read once, into private memory; everything below uses that copy.
    copy(scratch, address, np.uint64(length))
    head = table(scratch, 1, COMPLETION)[0]
    if head.output_count < 0 or head.output_count > LIMIT_OUTPUTS or head.run < 0 or head.run >= len(maps):
        return BAD
    offset = COMPLETION_BYTES + head.output_count * OUTPUT_BYTES
    if offset > length:
        return BAD
    r = head.run
    m = maps[r]
    outputs = table(scratch + COMPLETION_BYTES, LIMIT_OUTPUTS, OUTPUT)
    if m.active == 0:
        return applied_before(pmaps, p, head, outputs)
    node = head.node
    word = check(maps, r, node, head.run_generation, head.attempt, p)
    if word < 0:
        # A player answers each dispatch once, and its dispatches are taken back only after its death: what speaks
        # of another node, of an earlier attempt, or again of this one was not sent in good faith.
        return applied_before(pmaps, p, head, outputs)
    if m.blocked != 0:
        return HELD_BACK
    step = steps_of(m)[nodes_of(m)[node].step]
    if not outputs_fit(pmaps, p, head, outputs, length - offset, step.output_count):
        return BAD
    item = cold_of(m)[node]
    item.started_ns = head.started_ns
    item.ended_ns = head.ended_ns
    item.pid = pmaps[p].pid
    verdict = settle(control, maps, pmaps, p, r, node, word, head, outputs, scratch + offset, length - offset)
    if verdict == HANDLED:
        spent = head.ended_ns - head.started_ns
        if spent < 0:
            spent = 0
        mean = pmaps[p].mean_ns
        pmaps[p].mean_ns = spent + 1 if mean == 0 else mean + (spent - mean) // 8 + 1
        give_seat(control, maps, pmaps, p, r, node)
        count(control, COUNTER_COMPLETIONS, 1)
        players = players_of(control)
        store_relaxed(players["completed"], p, players[p].completed + 1)
        end_run_if_over(control, maps, active, r)
    return verdict


@kernel
def settle(control, maps, pmaps, p, r, node, word, head, outputs, payload, payload_bytes):
    """Outputs and word of one checked completion. HANDLED or HELD_BACK."""
    m = maps[r]
    now = control[0].now
    total = 0
    parts = False
    arena_end = 0
    for k in range(head.output_count):
        if outputs[k].home == HOME_PARTS:
            parts = True
        else:
            total += outputs[k].size_bytes
        if outputs[k].home == HOME_ARENA and outputs[k].offset_bytes + outputs[k].size_bytes > arena_end:
            arena_end = outputs[k].offset_bytes + outputs[k].size_bytes
    if (parts or total > LOOP_COPY_BYTES) and head.outcome == OUTCOME_OK:
        return hand_to_clerk(control, maps, pmaps, p, r, node, word, head, outputs, payload, arena_end)
    if copy_outputs(control, maps, pmaps, p, r, node, head, outputs, payload, payload_bytes) != OK:
        return HELD_BACK
    # The arena's end is noted after the word, here and below: what it covers may be given back, and a record that is
    # read again, by this Conductor or the next, must find its bytes where they were.
    if head.outcome == OUTCOME_CANCELLED and run_state(maps, r) == RUN_CANCELLING:
        cancel_node(maps, r, node, word, now)
        note_arena(pmaps, p, arena_end)
        return HANDLED
    if head.outcome != OUTCOME_OK:
        retry_or_fail(control, maps, r, node, word, REASON_HANDLER_FAILED)
        note_arena(pmaps, p, arena_end)
        return HANDLED
    verdict = complete(maps, r, node, word, REASON_COMPLETED, now)
    if verdict == NO_ROOM:
        m.blocked = 1
        say(control, GROW, r, m.serial, NONE, 0, 0)
        return HELD_BACK
    note_arena(pmaps, p, arena_end)
    if verdict == NOT_A_LIST:
        fail(maps, r, node, word, REASON_HANDLER_FAILED, now)
        if run_state(maps, r) == RUN_RUNNING:
            move_run(maps, r, RUN_FAILING, REASON_HANDLER_FAILED, now)
    return HANDLED


@kernel
def take_gathered(rows, at, size):
    """An output that came in pieces: its place is where they were gathered. Again, after a crash, is harmless: the
    slot says how far it was. One whose pieces do not make it whole keeps its slot, and the clerk refuses it."""
    row = rows[at]
    whole = row.segment != 0 and row.size_bytes == size
    if row.slot == GATHERING and whole:
        row.offset_bytes = row.first << 6
        row.slot = GATHERED
    if row.slot == GATHERED and whole:
        row.first = 0
        return
    row.segment = 0
    row.slot = GATHERING


@kernel
def hand_to_clerk(control, maps, pmaps, p, r, node, word, head, outputs, payload, arena_end):
    """Large outputs: their places in the extension's arena beside the node, word -> storing, then the clerk copies.

    Small ones among them ride in the record and are copied here, since the record is released now.
    """
    m = maps[r]
    need = 0
    for k in range(head.output_count):
        if outputs[k].home == HOME_INLINE:
            need += (outputs[k].size_bytes + 63) & ~63
    if need > 0 and (m.arena == 0 or m.arena_used + need > m.arena_size):
        if run_state(maps, r) == RUN_RUNNING:
            ask_arena(control, maps, r, need)
            return HELD_BACK
        drop_outputs(maps, r, node)
        complete(maps, r, node, word, REASON_COMPLETED, control[0].now)
        note_arena(pmaps, p, arena_end)
        return HANDLED
    rows = outputs_of(m)
    base = nodes_of(m)[node].output
    for k in range(head.output_count):
        o = outputs[k]
        row = rows[base + k]
        row.kind = o.kind
        if o.home == HOME_PARTS:
            take_gathered(rows, base + k, o.size_bytes)
            row.count = o.count
            continue
        row.count = o.count
        row.first = 0
        row.size_bytes = o.size_bytes
        row.segment = 0
        row.slot = IN_ARENA
        row.offset_bytes = o.offset_bytes
        if o.home == HOME_INLINE:
            row.slot = 0
            row.offset_bytes = 0
            if o.size_bytes > 0:
                at = take_arena(maps, r, o.size_bytes)
                copy(m.arena + at, payload + o.offset_bytes, np.uint64(o.size_bytes))
                row.segment = m.arena_segment
                row.offset_bytes = at
    store(maps, r, node, word, REASON_COMPLETED, control[0].now)
    note_arena(pmaps, p, arena_end)
    pmaps[p].arena_outstanding += 1
    say(control, STORE, r, m.serial, node, attempt_of(word), p)
    return HANDLED


@kernel
def on_part(control, maps, pmaps, p, address, length):
    """A piece of a large output: checked, then the clerk's. Its record is released once the clerk has copied it, so
    that nothing of it is lost with this process."""
    if pmaps[p].part == PART_GIVEN:
        return HELD_BACK
    if length != PART_BYTES:
        return BAD
    scratch = control[0].scratch
    copy(scratch, address, np.uint64(length))
    part = table(scratch, 1, PART_RECORD)[0]
    if part.run < 0 or part.run >= len(maps) or part.output < 0:
        return BAD
    player = pmaps[p]
    inside = part.offset_bytes & (player.arena_size - 1)
    heads = table(player.channel_out, 1, CHANNEL_OUT)["arena_head"]
    if part.size_bytes <= 0 or part.size_bytes > player.arena_size - inside or part.offset_bytes < heads[0]:
        return BAD
    if part.offset_bytes - heads[0] > player.arena_size - part.size_bytes:
        return BAD
    if part.at_bytes < 0 or part.total_bytes < part.size_bytes or part.at_bytes > part.total_bytes - part.size_bytes:
        return BAD
    m = maps[part.run]
    if pmaps[p].part == PART_TAKEN:
        pmaps[p].part = NO_PART
        note_arena(pmaps, p, part.offset_bytes + part.size_bytes)
        return HANDLED
    if m.active == 0:
        return BAD
    word = check(maps, part.run, part.node, part.run_generation, part.attempt, p)
    if word < 0:
        return BAD
    if part.output >= steps_of(m)[nodes_of(m)[part.node].step].output_count:
        return BAD
    c0 = control[0]
    to = claim_record(c0.outbox, PART, length + 16)
    words = words_at(to, 2)
    words[0] = p
    words[1] = m.serial
    copy(to + 16, scratch, np.uint64(length))
    stage_record(c0.outbox)
    publish_records(c0.outbox)
    sleeping = table(c0.outbox_sleeping, 1, np.uint32)
    if load_seq_cst(sleeping, 0) != 0:
        ring_pipe(np.int32(c0.outbox_pipe))
    pmaps[p].arena_outstanding += 1
    pmaps[p].part = PART_GIVEN
    return HELD_BACK


@kernel
def on_ready(control, pmaps, mmaps, p):
    player = pmaps[p]
    if player.state != PLAYER_STARTING:
        return
    player.state = PLAYER_READY
    player.was_ready = 1
    mmaps[player.model].starting -= 1
    models = models_of(control)
    instances = instances_of(control)
    open_seats(seats_of(control), player.seat_first, player.window, player.model, player.instance)
    instances[player.instance].since_ns = control[0].now
    store_release(instances["state"], player.instance, MODEL_READY)
    store_release(models["state"], player.model, np.uint32(MODEL_READY))
    players = players_of(control)
    store_release(players["state"], p, PLAYER_STATE_READY)
    say(control, PLAYER_UP, p, 0, 0, 0, 0)


@kernel
def drain(control, maps, active, pmaps, mmaps, p):
    """Take up to VIEWS records of one player. Returns how many were applied."""
    player = pmaps[p]
    got = poll_records(player.consumer, control[0].views, VIEWS)
    if got <= 0:
        player.hold = 0
        return 0 if got == 0 else bad_player(control, pmaps, p)
    views = table(control[0].views, VIEWS, VIEW)
    applied = 0
    for i in range(got):
        verdict = HELD_BACK
        # Each record makes three messages at most.
        if outbox_has_room(control, 4):
            kind = views[i].kind
            if kind == RECORD_COMPLETION:
                verdict = on_completion(control, maps, active, pmaps, p, views[i].address, views[i].length)
            elif kind == RECORD_PART:
                verdict = on_part(control, maps, pmaps, p, views[i].address, views[i].length)
            elif kind == RECORD_READY:
                on_ready(control, pmaps, mmaps, p)
                verdict = HANDLED
            elif kind == RECORD_LOG:
                verdict = HANDLED
            else:
                verdict = BAD
        if verdict == HELD_BACK:
            player.hold = 1
            break
        if verdict == BAD:
            bad_player(control, pmaps, p)
        release_records(player.consumer, views[i].end)
        player.hold = 0
        player.first_again = 0
        applied += 1
    rewind_records(player.consumer)
    if applied > 0:
        wake_producer(pmaps, p)
    give_arena(pmaps, p)
    return applied


@kernel
def bad_player(control, pmaps, p):
    """It wrote what no honest extension writes: counted, and the clerk ends it."""
    players = players_of(control)
    store_relaxed(players["refused"], p, players[p].refused + 1)
    count(control, COUNTER_REFUSED, 1)
    if players[p].refused == 1:
        say(control, BAD_RECORD, p, 0, 0, 0, 0)
    return 0


@kernel
def best_player(control, pmaps, mmaps, model, alone):
    """The ready player of a model with the fewest nodes, among those whose window has room and that took what they
    were given this turn. -1: none.

    `alone`: only one that has nothing to do, since the node's time counts from its dispatch.
    """
    best = -1
    turn = control[0].turn
    p = mmaps[model].first_player
    while p >= 0:
        player = pmaps[p]
        most = 1 if alone else depth(player.window, player.mean_ns)
        if player.state == PLAYER_READY and player.held < most and player.tried != turn:
            if best < 0 or player.held < pmaps[best].held:
                best = p
        p = player.next_in_model
    return best


@kernel
def backlog(maps, r, lane_index):
    """How much is ready in a lane, roughly: 1, 2 (more than one vertex), or what a fan-out still has to give."""
    m = maps[r]
    vertex = first_ready(maps, r, lane_index)
    group_index = nodes_of(m)[vertex].group
    if group_index != NONE:
        group = groups_of(m)[group_index]
        return group.count - group.cursor + (0 if group.again == NONE else 1)
    lane = lanes_of(m)[lane_index]
    above = lane.summary_first + trailing_zeros(lane.top)
    word = (lane.order_first >> 6) + (trailing_zeros(lane.top) << 6) + trailing_zeros(summary_of(m)[above])
    one_each = single(lane.top) and single(summary_of(m)[above]) and single(ready_of(m)[word])
    return 1 if one_each else 2


@njit(inline="always")
def single(word):
    return word & (word - 1) == 0


@kernel
def want_player(control, maps, mmaps, r, lane_index, model):
    """Ask for one more player if more is ready than players are starting for it."""
    m = mmaps[model]
    if m.wanted == 0 and m.players < m.players_max and m.failed == 0 and m.starting < backlog(maps, r, lane_index):
        m.wanted = 1 if say(control, WANT_PLAYER, model, m.players, 0, 0, 0) else 0


@kernel
def count_inputs(maps, r, node):
    """How many refs the node's input vector has."""
    m = maps[r]
    step = steps_of(m)[nodes_of(m)[node].step]
    inputs = inputs_of(m)
    total = 0
    for i in range(step.input_first, step.input_first + step.input_count):
        row = inputs[i]
        if row.kind == INPUT_VALUE:
            total += 1
        elif row.kind == INPUT_ITEM:
            total += item_refs(maps, r, node, 0, 0)
        else:
            group = nodes_of(m)[row.vertex].group
            total += 1 if group == NONE else groups_of(m)[group].count
    return total


@kernel
def item_refs(maps, r, node, slot, to):
    """The refs of a member's own items, written at address `to` unless it is 0. How many."""
    m = maps[r]
    item = cold_of(m)[node]
    outputs = outputs_of(m)
    source = groups_of(m)[nodes_of(m)[node].group].source
    stride = steps_of(m)[nodes_of(m)[source].step].output_count
    at = item.item_node
    inside = item.item_first
    left = item.item_count
    refs = table(to, 1 << 20, REF)
    n = 0
    while left > 0:
        o = outputs[at]
        is_list = o.kind == VALUE_LIST
        length = o.count if is_list else 1
        if inside >= length:
            inside -= length
            at += stride
            continue
        amount = length - inside if length - inside < left else left
        if to != 0:
            copy_ref(refs, n, outputs, at, slot)
            if is_list:
                refs[n].first = inside
                refs[n].count = amount
            else:
                refs[n].first = 0
                refs[n].count = 0
        n += 1
        left -= amount
        inside = 0
        at += stride
    return n


@njit(inline="always")
def copy_ref(refs, n, outputs, at, slot):
    refs[n].segment = outputs[at].segment
    refs[n].kind = outputs[at].kind
    refs[n].slot = slot
    refs[n].offset_bytes = outputs[at].offset_bytes
    refs[n].size_bytes = outputs[at].size_bytes


@kernel
def write_inputs(maps, r, node, to):
    """The node's input vector, at address `to`: sym_ref_t each."""
    m = maps[r]
    nodes = nodes_of(m)
    step = steps_of(m)[nodes[node].step]
    inputs = inputs_of(m)
    outputs = outputs_of(m)
    refs = table(to, 1 << 20, REF)
    n = 0
    for i in range(step.input_first, step.input_first + step.input_count):
        row = inputs[i]
        if row.kind == INPUT_VALUE:
            refs[n] = row.ref
            refs[n].slot = row.slot
            n += 1
        elif row.kind == INPUT_ITEM:
            n += item_refs(maps, r, node, row.slot, to + n * REF_BYTES)
        else:
            group_index = nodes[row.vertex].group
            if group_index == NONE:
                copy_ref(refs, n, outputs, nodes[row.vertex].output + row.output, row.slot)
                refs[n].first = row.first
                refs[n].count = row.count
                n += 1
            else:
                group = groups_of(m)[group_index]
                for k in range(group.count):
                    copy_ref(refs, n, outputs, nodes[group.first + k].output + row.output, row.slot)
                    refs[n].first = 0
                    refs[n].count = 0
                    n += 1


@kernel
def send(control, maps, pmaps, p, r, node):
    """Dispatch one node to one player with room.

    SENT; PLAYER_TRIED: this player cannot take it now (its ring is full or its seats are held by others); RUN_TRIED:
    the run waits for memory or capacity; GONE: the node is not to be sent any more.
    """
    m = maps[r]
    player = pmaps[p]
    step = steps_of(m)[nodes_of(m)[node].step]
    inputs = count_inputs(maps, r, node)
    in_memory = inputs > REFS_IN_RECORD
    block = 0
    used = m.arena_used
    if in_memory:
        block = take_arena(maps, r, inputs * REF_BYTES)
        if block < 0:
            ask_arena(control, maps, r, inputs * REF_BYTES)
            return RUN_TRIED
    if not take_vector(resources_of(control), control[0].resources_used, step.need):
        m.arena_used = used
        return RUN_TRIED
    seat = allocate_on(instances_of(control), seats_of(control), player.instance, control[0].owner)
    address = 0
    if seat >= 0:
        length = DISPATCH_BYTES + (1 if in_memory else inputs) * REF_BYTES
        address = claim_record(player.producer, RECORD_DISPATCH, length)
        if address == 0:
            release_seat(seats_of(control), seat, control[0].owner)
    if address == 0:
        m.arena_used = used
        give_vector(resources_of(control), control[0].resources_used, step.need)
        if producer_error(player.producer) != 0:
            bad_player(control, pmaps, p)
        return PLAYER_TRIED
    head = table(address, 1, DISPATCH)[0]
    head.run = r
    head.node = node
    head.run_generation = m.generation
    head.flags = REFS_IN_MEMORY if in_memory else 0
    head.input_count = inputs
    head.step = nodes_of(m)[node].step
    head.deadline_ns = 0 if step.timeout_ns == 0 else control[0].now + step.timeout_ns
    head.binding = step.binding
    if in_memory:
        refs = table(address + DISPATCH_BYTES, 1, REF)
        refs[0].segment = m.arena_segment
        refs[0].kind = 0
        refs[0].slot = 0
        refs[0].offset_bytes = block
        refs[0].size_bytes = inputs * REF_BYTES
        refs[0].first = 0
        refs[0].count = inputs
        write_inputs(maps, r, node, m.arena + block)
    else:
        write_inputs(maps, r, node, address + DISPATCH_BYTES)
    attempt = attempt_of(load_acquire(nodes_of(m)["word"], node)) + 1
    head.attempt = attempt
    # Record written, unpublished; position and seat beside; then the word; the tail last, by the caller.
    if dispatch(maps, r, node, p, claim_position(player.producer), seat, control[0].now) != attempt:
        abort_record(player.producer)
        release_seat(seats_of(control), seat, control[0].owner)
        give_vector(resources_of(control), control[0].resources_used, step.need)
        return GONE
    if step.timeout_ns != 0:
        # For whoever ends players that are late; the player's own stamp takes its place.
        cold_of(m)[node].started_ns = control[0].now
    stage_record(player.producer)
    player.staged = 1
    player.held += 1
    row = run_row(m)[0]
    if row.started_ns == 0:
        row.started_ns = control[0].now
    count(control, COUNTER_DISPATCHES, 1)
    players = players_of(control)
    store_relaxed(players["dispatched"], p, players[p].dispatched + 1)
    return SENT


@kernel
def publish(control, pmaps, p):
    """Make what was staged visible, and ring if the player sleeps."""
    player = pmaps[p]
    if player.staged == 0:
        return
    player.staged = 0
    publish_records(player.producer)
    sleeping = table(player.channel_in, 1, CHANNEL_IN)["sleeping"]
    # SYNC bell: publish exchanged the tail before this load; the player exchanges `sleeping` before it loads the
    # tail. A release store in place of the exchange lost 4,719 of 3,000,000 wake-ups.
    if load_seq_cst(sleeping, 0) != 0:
        ring_bell(player.channel_out)
        count(control, COUNTER_BELLS, 1)


@kernel
def choose(control, maps, active, pmaps, mmaps):
    """The lane to send from: (run, lane, player), by the policy. (-1, -1, -1): nothing can be sent."""
    best_run = -1
    best_lane = -1
    best_p = -1
    best_rank = 0
    for i in range(control[0].active_count):
        r = active[i]
        m = maps[r]
        mask = m.lane_mask
        # A run that fails or is cancelled sends nothing more, whatever stands in its ready sets.
        if mask == 0 or m.blocked != 0 or m.tried == control[0].turn or run_state(maps, r) != RUN_RUNNING:
            continue
        for lane in range(m.lane_count):
            if (mask >> lane) & 1 == 0:
                continue
            vertex = first_ready(maps, r, lane)
            # All steps of a lane need the same capacity: what cannot be had holds up this lane and no other.
            need = steps_of(m)[nodes_of(m)[vertex].step].need
            if short_of(resources_of(control), control[0].resources_used, need) >= 0:
                continue
            model = lanes_of(m)[lane].model
            alone = steps_of(m)[nodes_of(m)[vertex].step].timeout_ns != 0
            p = best_player(control, pmaps, mmaps, model, alone)
            if p < 0 or (pmaps[p].held > 0 and mmaps[model].players < mmaps[model].players_max):
                want_player(control, maps, mmaps, r, lane, model)
            if p < 0:
                continue
            rank = ranks_of(m)[vertex]
            if best_run < 0 or prefer(
                m.priority, rank, m.serial, maps[best_run].priority, best_rank, maps[best_run].serial
            ):
                best_run = r
                best_lane = lane
                best_p = p
                best_rank = rank
    return best_run, best_lane, best_p


@kernel
def send_some(control, maps, pmaps, mmaps, r, lane, p):
    """Send up to BURST nodes of one lane. How many. Who could not take or give one is passed over for this turn, so
    that it holds up nobody else."""
    alone = steps_of(maps[r])[nodes_of(maps[r])[first_ready(maps, r, lane)].step].timeout_ns != 0
    sent = 0
    while sent < BURST and p >= 0:
        vertex = first_ready(maps, r, lane)
        if vertex < 0:
            break
        node = head_node(maps, r, vertex)
        if node >= 0:
            verdict = send(control, maps, pmaps, p, r, node)
            if verdict == RUN_TRIED:
                maps[r].tried = control[0].turn
                break
            if verdict == PLAYER_TRIED:
                pmaps[p].tried = control[0].turn
                break
            sent += 1
        take_head(maps, r, vertex, node)
        p = best_player(control, pmaps, mmaps, lanes_of(maps[r])[lane].model, alone)
    return sent


@kernel
def dispatch_ready(control, maps, active, pmaps, mmaps):
    """Send what is ready to whoever has room, best first; bounded. How many were sent."""
    sent = 0
    while sent < TURN_DISPATCHES and outbox_has_room(control, 4):
        r, lane, p = choose(control, maps, active, pmaps, mmaps)
        if r < 0:
            break
        sent += send_some(control, maps, pmaps, mmaps, r, lane, p)
    for p in range(control[0].players_used):
        publish(control, pmaps, p)
    return sent


@kernel
def start_run(control, maps, active, r):
    """A run was written and queued: derive what is derived, and begin."""
    m = maps[r]
    now = control[0].now
    if run_state(maps, r) == RUN_QUEUED:
        move_run(maps, r, RUN_RUNNING, REASON_SUBMITTED, now)
    verdict = rebuild(maps, r, now)
    m.active = 1
    m.blocked = 0
    active[control[0].active_count] = r
    control[0].active_count += 1
    if verdict == NO_ROOM:
        m.blocked = 2
        say(control, GROW, r, m.serial, NONE, 0, 0)
        return
    if verdict == NOT_A_LIST:
        move_run(maps, r, RUN_FAILING, REASON_HANDLER_FAILED, now)
    say(control, RUN_STARTED, r, m.serial, 0, 0, 0)
    end_run_if_over(control, maps, active, r)


@kernel
def cancel_run(control, maps, active, pmaps, r):
    m = maps[r]
    if m.active == 0:
        return
    state = run_state(maps, r)
    if state in (RUN_RUNNING, RUN_FAILING):
        move_run(maps, r, RUN_CANCELLING, REASON_CANCELLED, control[0].now)
    elif state != RUN_CANCELLING:
        return
    nodes = nodes_of(m)
    for node in range(run_row(m)[0].node_count):
        word = load_acquire(nodes["word"], node)
        if state_of(word) != DISPATCHED:
            continue
        p = player_of(word)
        if pmaps[p].state == PLAYER_DYING or pmaps[p].state == PLAYER_NONE:
            continue
        address = claim_record(pmaps[p].producer, RECORD_CANCEL, DISPATCH_BYTES)
        if address == 0:
            continue
        head = table(address, 1, DISPATCH)[0]
        head.run = r
        head.node = node
        head.run_generation = m.generation
        head.attempt = attempt_of(word)
        head.flags = 0
        head.input_count = 0
        stage_record(pmaps[p].producer)
        pmaps[p].staged = 1
    end_run_if_over(control, maps, active, r)


@kernel
def add_player(control, pmaps, mmaps, p):
    """The clerk has filled the player's row: it counts for its model from now on."""
    player = pmaps[p]
    model = player.model
    player.state = PLAYER_STARTING
    player.was_ready = 0
    player.next_in_model = mmaps[model].first_player
    mmaps[model].first_player = p
    mmaps[model].players += 1
    mmaps[model].starting += 1
    mmaps[model].wanted = 0
    if p >= control[0].players_used:
        control[0].players_used = p + 1


@kernel
def lose_player(control, maps, active, pmaps, mmaps, p):
    """A player is dead and its ring is drained: what it held goes back, what it had begun is counted."""
    player = pmaps[p]
    heads = table(player.channel_in, 1, CHANNEL_IN)
    working = load_acquire(heads["working"], 0)
    # What a liar says of its work counts for nothing: all that it had counts as begun, so that it cannot go on for ever.
    lied = players_of(control)[p].refused != 0
    now = control[0].now
    for i in range(control[0].active_count - 1, -1, -1):
        r = active[i]
        m = maps[r]
        nodes = nodes_of(m)
        for node in range(run_row(m)[0].node_count):
            word = load_acquire(nodes["word"], node)
            if state_of(word) == DISPATCHED and player_of(word) == p:
                begun = lied or (working != IDLE and nodes[node].position <= working)
                lose_node(control, maps, pmaps, p, r, node, word, begun, now)
        end_run_if_over(control, maps, active, r)
    instances = instances_of(control)
    close_seats(seats_of(control), player.seat_first, player.window)
    store_release(instances["state"], player.instance, 0)
    players = players_of(control)
    store_release(players["state"], p, PLAYER_STATE_DEAD)
    unlink_player(pmaps, mmaps, p)
    # Its channel is the clerk's to unmap from here on: nothing staged may be published there any more.
    player.staged = 0
    count(control, COUNTER_DEATHS, 1)
    say(control, PLAYER_GONE, p, 0, 0, 0, 0)


@kernel
def unlink_player(pmaps, mmaps, p):
    model = mmaps[pmaps[p].model]
    if model.first_player == p:
        model.first_player = pmaps[p].next_in_model
    else:
        q = model.first_player
        while q >= 0 and pmaps[q].next_in_model != p:
            q = pmaps[q].next_in_model
        if q >= 0:
            pmaps[q].next_in_model = pmaps[p].next_in_model
    model.players -= 1
    model.wanted = 0
    if pmaps[p].was_ready == 0:
        model.starting -= 1
    if model.players == 0:
        model.failed = 0
    pmaps[p].state = PLAYER_NONE


@kernel
def lose_node(control, maps, pmaps, p, r, node, word, begun, now):
    """One node of a dead player: what it held goes back, then what becomes of it."""
    give_seat(control, maps, pmaps, p, r, node)
    take_back(maps, r, node, word, begun, now)


@kernel
def take_back(maps, r, node, word, begun, now):
    """A node whose player will not answer: never begun, it is simply ready again; begun, as its step allows."""
    m = maps[r]
    running = run_state(maps, r) == RUN_RUNNING
    item = cold_of(m)[node]
    if begun:
        item.deaths = counted(item.deaths, attempt_of(word))
        if flags_of(word) & FLAG_ONCE != 0 or item.deaths & COUNT_MASK > LIMIT_DEATHS:
            reason = REASON_UNKNOWN if flags_of(word) & FLAG_ONCE != 0 else REASON_PLAYER_DIED
            outputs_of(m)[nodes_of(m)[node].output].segment = 0
            fail(maps, r, node, word, reason, now)
            if running:
                move_run(maps, r, RUN_FAILING, reason, now)
            return
    if attempt_of(word) >= LAST_ATTEMPT:
        fail(maps, r, node, word, REASON_PLAYER_DIED, now)
        if running:
            move_run(maps, r, RUN_FAILING, REASON_PLAYER_DIED, now)
        return
    drop_outputs(maps, r, node)
    release(maps, r, node, word, REASON_PLAYER_DIED, now)
    if running:
        put_back(maps, r, node)


@kernel
def model_failed(control, maps, active, mmaps, model):
    """No further player of this model can be had. Those it has go on alone; without any, runs that need one now fail.

    A later run tries again: what was wrong may have been put right.
    """
    mmaps[model].wanted = 0
    if mmaps[model].players > 0:
        mmaps[model].failed = 1
        return
    mmaps[model].failed = 0
    store_release(models_of(control)["state"], model, np.uint32(MODEL_FAILED_STATE))
    for i in range(control[0].active_count - 1, -1, -1):
        r = active[i]
        m = maps[r]
        for lane in range(m.lane_count):
            if lanes_of(m)[lane].model == model and lanes_of(m)[lane].top != 0 and run_state(maps, r) == RUN_RUNNING:
                move_run(maps, r, RUN_FAILING, REASON_PLAYER_DIED, control[0].now)
        end_run_if_over(control, maps, active, r)


@kernel
def on_stored(control, maps, active, pmaps, r, node, attempt, ok, p):
    """The clerk has copied a node's outputs (or, node -1, a part of one): word storing -> done.

    A fan-out that has no room yet is asked for again by the clerk once it has made some.
    """
    pmaps[p].arena_outstanding -= 1
    if node < 0:
        pmaps[p].part = PART_TAKEN
        return
    give_arena(pmaps, p)
    m = maps[r]
    if m.active == 0:
        return
    word = load_acquire(nodes_of(m)["word"], node)
    if state_of(word) != STORING or attempt_of(word) != attempt:
        return
    if ok == 0:
        fail(maps, r, node, word, REASON_NO_MEMORY, control[0].now)
        if run_state(maps, r) == RUN_RUNNING:
            move_run(maps, r, RUN_FAILING, REASON_NO_MEMORY, control[0].now)
    else:
        verdict = NO_ROOM
        if m.blocked == 0:
            verdict = complete(maps, r, node, word, REASON_STORED, control[0].now)
        if verdict == NO_ROOM:
            m.blocked = 1
            pmaps[p].arena_outstanding += 1
            say(control, GROW, r, m.serial, node, attempt, p)
            return
        if verdict == NOT_A_LIST:
            fail(maps, r, node, word, REASON_HANDLER_FAILED, control[0].now)
            if run_state(maps, r) == RUN_RUNNING:
                move_run(maps, r, RUN_FAILING, REASON_HANDLER_FAILED, control[0].now)
    end_run_if_over(control, maps, active, r)


@kernel
def read_inbox(control, maps, active, pmaps, mmaps):
    """What the clerk has to say. How many messages were read."""
    c0 = control[0]
    got = poll_records(c0.inbox, c0.views, VIEWS)
    views = table(c0.views, VIEWS, VIEW)
    read = 0
    for i in range(got):
        if not outbox_has_room(control, 8):
            break
        w = words_at(views[i].address, 8)
        kind = views[i].kind
        if kind == RUN_START:
            start_run(control, maps, active, w[0])
        elif kind == RUN_CANCEL:
            if maps[w[0]].serial == w[1]:
                cancel_run(control, maps, active, pmaps, w[0])
        elif kind == PLAYER_ADD:
            add_player(control, pmaps, mmaps, w[0])
        elif kind == PLAYER_DEAD:
            pmaps[w[0]].state = PLAYER_DYING
            c0.dying += 1
        elif kind == STORED:
            on_stored(control, maps, active, pmaps, w[0], w[1], w[2], w[3], w[4])
        elif kind == ARENA:
            give_run_arena(control, maps, active, w)
        elif kind == GROWN:
            on_grown(control, maps, active, w[0], w[1])
        elif kind == MODEL_FAILED:
            model_failed(control, maps, active, mmaps, w[0])
        elif kind == PING:
            say(control, PONG, w[0], 0, 0, 0, 0)
        elif kind == STOP:
            c0.stop = 1
        release_records(c0.inbox, views[i].end)
        read += 1
    rewind_records(c0.inbox)
    return read


@kernel
def give_run_arena(control, maps, active, w):
    """A fresh arena for a run; id 0: there is no memory for one, and the run fails."""
    r = w[0]
    m = maps[r]
    if m.serial == w[1] and w[2] == 0:
        m.arena_asked = 0
        if m.active != 0:
            if run_state(maps, r) == RUN_RUNNING:
                move_run(maps, r, RUN_FAILING, REASON_NO_MEMORY, control[0].now)
            end_run_if_over(control, maps, active, r)
    elif m.serial == w[1]:
        m.arena_segment = w[2]
        m.arena = w[3]
        m.arena_size = w[4]
        m.arena_used = w[5]
        m.arena_asked = 0


@kernel
def on_grown(control, maps, active, r, ok):
    m = maps[r]
    if m.active == 0 or m.blocked == 0:
        return
    first = m.blocked == 2
    m.blocked = 0
    if ok == 0:
        move_run(maps, r, RUN_FAILING, REASON_NO_MEMORY, control[0].now)
    elif first:
        if rebuild(maps, r, control[0].now) != OK:
            m.blocked = 2
            say(control, GROW, r, m.serial, NONE, 0, 0)
            return
        say(control, RUN_STARTED, r, m.serial, 0, 0, 0)
    end_run_if_over(control, maps, active, r)


@kernel
def bury(control, maps, active, pmaps, mmaps):
    """Dead players whose rings are drained: give back what they held. Drain first, retry after (protocols: node, 4)."""
    for p in range(control[0].players_used):
        # While the clerk still copies from its arena, the channel has to stay mapped.
        if pmaps[p].arena_outstanding != 0:
            continue
        # Every run may end by it, and say so.
        room = control[0].active_count + 16
        if pmaps[p].state == PLAYER_DYING and pmaps[p].hold == 0 and outbox_has_room(control, room):
            if poll_records(pmaps[p].consumer, control[0].views, 1) > 0:
                rewind_records(pmaps[p].consumer)
                continue
            lose_player(control, maps, active, pmaps, mmaps, p)
            control[0].dying -= 1


@kernel
def anything(control, pmaps):
    """Is there a record anywhere? Looks without taking."""
    if poll_records(control[0].inbox, control[0].views, 1) != 0:
        rewind_records(control[0].inbox)
        return True
    for p in range(control[0].players_used):
        if pmaps[p].state != PLAYER_NONE and pmaps[p].hold == 0:
            if poll_records(pmaps[p].consumer, control[0].views, 1) > 0:
                rewind_records(pmaps[p].consumer)
                return True
    return False


@kernel
def set_sleeping(control, pmaps, value):
    for p in range(control[0].players_used):
        if pmaps[p].state != PLAYER_NONE:
            flags = table(pmaps[p].channel_out, 1, CHANNEL_OUT)["sleeping"]
            exchange(flags, 0, np.uint32(value))
    own = table(control[0].inbox_sleeping, 1, np.uint32)
    exchange(own, 0, np.uint32(value))


@kernel
def delayed(control, maps, active):
    for i in range(control[0].active_count):
        if graph_of(maps[active[i]])[0].delayed_count != 0:
            return True
    return False


@kernel
def rest(control, maps, active, pmaps):
    """Nothing to do: spin for a moment, then park until a bell rings."""
    until = now_ns() + control[0].spin_ns
    while now_ns() < until:
        if anything(control, pmaps):
            return
        pause()
    # SYNC bell: the flags are exchanged before the rings are looked at once more; a producer exchanges its tail
    # before it loads the flag. One of the two sees the other.
    set_sleeping(control, pmaps, 1)
    if not anything(control, pmaps):
        count(control, COUNTER_PARKS, 1)
        wait = PARK_DELAYED_NS if delayed(control, maps, active) else PARK_NS
        park(np.int32(control[0].epoll), wait)
    set_sleeping(control, pmaps, 0)


@kernel
def run_loop(control, maps, active, pmaps, mmaps):
    """Turn until told to stop. The only kernel that the loop's thread calls."""
    c0 = control[0]
    engine = table(c0.engine, 1, ENGINE)
    beat = table(c0.heartbeat, 1, np.int64)
    while c0.stop == 0:
        c0.now = now_ns()
        store_relaxed(engine["clock_ns"], 0, c0.now)
        store_relaxed(beat, 0, c0.now)
        c0.turn += 1
        count(control, COUNTER_LOOPS, 1)
        work = read_inbox(control, maps, active, pmaps, mmaps)
        used = c0.players_used
        if used > 0:
            # The first player to be drained moves on each turn, so that none is always last.
            c0.poll_from = (c0.poll_from + 1) % used
            for i in range(used):
                p = (c0.poll_from + i) % used
                if pmaps[p].state != PLAYER_NONE:
                    work += drain(control, maps, active, pmaps, mmaps, p)
        if c0.dying > 0:
            bury(control, maps, active, pmaps, mmaps)
        wake_delayed(control, maps, active)
        work += dispatch_ready(control, maps, active, pmaps, mmaps)
        if work == 0:
            rest(control, maps, active, pmaps)
    say(control, LOOP_ENDED, 0, 0, 0, 0, 0)
    return 1


__all__ = ["BAD", "DONE", "run_loop"]
