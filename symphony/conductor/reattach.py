"""What a Conductor that comes back does to the tables before its loop turns, compiled.

Nothing here trusts what is derived: each node's word is read once and says what becomes of the node; seats and
capacities are counted again from the nodes in flight; everything else of a run is made again by the tracker's rebuild.
Killed anywhere and begun again by the next Conductor it comes to the same. Order, by whoever calls: `settle_run` for
every run, `give_back_seats`, `take_up_player` for every player, `resume_run` for every run; then the loop, which drains
every command ring, dead players' too, before it takes anything of theirs back.
"""

from symphony.conductor.loop import (
    GATHERING,
    IN_ARENA,
    REASON_STORED,
    STORE,
    add_player,
    end_run_if_over,
    note_arena,
    say,
    start_run,
    take_back,
)
from symphony.conductor.state import PLAYER_DYING, PLAYER_NONE, PLAYER_READY
from symphony.native.atomics import load_acquire, store_relaxed
from symphony.native.kernels import kernel
from symphony.native.layout import constants
from symphony.pit.commit import COMMITTED, take
from symphony.pit.dag.machine import move_node, run_state
from symphony.pit.dag.machine import release as release_node
from symphony.pit.dag.word import (
    DISPATCHED,
    DONE,
    LAST_ATTEMPT,
    RUN_QUEUED,
    STORING,
    attempt_of,
    player_of,
    state_of,
)
from symphony.pit.pool.machine import FREE, HELD, SEAT_EDGES, STATE_SHIFT, seat_owner, seat_state, seat_word
from symphony.pit.run_map import graph_of, groups_of, nodes_of, outputs_of, run_row, steps_of
from symphony.pit.tables import NONE

REASON_RECOVERED = constants["SYM_REASON_RECOVERED"]
BEGUN = True
NEVER_SEEN = False


@kernel
def all_copied(maps, r, node):
    """Whether every output of a storing node lies in the run's own memory already."""
    m = maps[r]
    rows = outputs_of(m)
    base = nodes_of(m)[node].output
    for k in range(steps_of(m)[nodes_of(m)[node].step].output_count):
        row = rows[base + k]
        if row.slot == GATHERING or (row.slot == IN_ARENA and row.size_bytes > 0):
            return False
    return True


@kernel
def rows_in_use(maps, r):
    """How far the nodes of a run reach. By its groups too: a rebuild that was cut off leaves the count too small."""
    m = maps[r]
    top = run_row(m)[0].node_count
    groups = groups_of(m)
    for g in range(m.group_count):
        if groups[g].expanded != 0:
            top = max(top, groups[g].first + groups[g].count)
    return min(top, graph_of(m)[0].node_capacity)


@kernel
def settle_run(control, maps, pmaps, named, resources, resources_used, r):
    """Decide about every node that the dead Conductor had in flight. `named` (uint8, a seat each) collects the seats
    that nodes in flight hold; `resources` gets their needs added. How many stay in flight."""
    m = maps[r]
    nodes = nodes_of(m)
    flying = 0
    for node in range(rows_in_use(maps, r)):
        word = load_acquire(nodes["word"], node)
        state = state_of(word)
        if state != DISPATCHED and state != STORING:
            continue
        p = player_of(word)
        if state == DISPATCHED and nodes[node].position >= pmaps[p].tail:
            settle_unseen(control, maps, r, node, word)
            continue
        if pmaps[p].state == PLAYER_NONE:
            settle_lost(control, maps, pmaps, r, node, word)
            continue
        if state == STORING:
            continue  # its seat and its capacity went back with its record
        flying += 1
        pmaps[p].held += 1
        if nodes[node].seat != NONE:
            named[nodes[node].seat] = 1
        need = steps_of(m)[nodes[node].step].need
        for i in range(resources_used):
            store_relaxed(resources["used"], i, resources[i].used + need[i])
    return flying


@kernel
def settle_unseen(control, maps, r, node, word):
    """A node whose record was never published: no player can have seen it, and its attempt does not count as one."""
    if attempt_of(word) < LAST_ATTEMPT:
        release_node(maps, r, node, word, REASON_RECOVERED, control[0].now)
    else:
        take_back(maps, r, node, word, NEVER_SEEN, control[0].now)


@kernel
def settle_lost(control, maps, pmaps, r, node, word):
    """A node in flight whose player's memory is gone too: nobody can say any more how far it was."""
    now = control[0].now
    if state_of(word) == STORING and all_copied(maps, r, node):
        move_node(maps, r, node, word, DONE, attempt_of(word), player_of(word), REASON_STORED, now)
        return
    take_back(maps, r, node, word, BEGUN, now)


@kernel
def give_back_seats(seats, count, owner, named):
    """Free what the dead Conductor held and no node in flight names. How many."""
    words = seats["word"]
    freed = 0
    for seat in range(count):
        before = load_acquire(words, seat)
        if seat_state(before) == HELD and seat_owner(before) == owner and named[seat] == 0:
            after = seat_word(FREE, 0, before + 1)
            if take(words, seat, before, after, STATE_SHIFT, SEAT_EDGES) == COMMITTED:
                freed += 1
    return freed


@kernel
def take_up_player(control, pmaps, mmaps, p, ready, dead):
    """Count a player for its model as it was; a dead one is buried by the loop once its ring is drained."""
    held = pmaps[p].held
    add_player(control, pmaps, mmaps, p)
    pmaps[p].held = held
    pmaps[p].first_again = 1
    if ready:
        pmaps[p].state = PLAYER_READY
        pmaps[p].was_ready = 1
        mmaps[pmaps[p].model].starting -= 1
    if dead:
        pmaps[p].state = PLAYER_DYING
        control[0].dying += 1


@kernel
def store_again(control, maps, pmaps, r):
    """The clerk's jobs went with the dead Conductor: hand them over again. Bytes in a player's arena stay there."""
    m = maps[r]
    nodes = nodes_of(m)
    rows = outputs_of(m)
    for node in range(rows_in_use(maps, r)):
        word = load_acquire(nodes["word"], node)
        if state_of(word) != STORING:
            continue
        p = player_of(word)
        for k in range(steps_of(m)[nodes[node].step].output_count):
            row = rows[nodes[node].output + k]
            if row.slot == IN_ARENA and row.segment == 0 and row.size_bytes > 0:
                note_arena(pmaps, p, row.offset_bytes + row.size_bytes)
        pmaps[p].arena_outstanding += 1
        say(control, STORE, r, m.serial, node, attempt_of(word), p)


@kernel
def resume_run(control, maps, active, pmaps, r):
    """A run goes on: everything derived is made again from its words. A run that was only queued begins."""
    queued = run_state(maps, r) == RUN_QUEUED
    start_run(control, maps, active, r)
    if not queued:
        store_again(control, maps, pmaps, r)
        end_run_if_over(control, maps, active, r)
    return 1


__all__ = ["give_back_seats", "resume_run", "settle_run", "take_up_player"]
