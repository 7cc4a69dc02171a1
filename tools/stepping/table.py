"""The table: every operation on shared memory that there is, and what of the code is none.

Whoever writes a new operation enters it here, in the commit that brings it: a row in one of the tuples of
`tools/stepping/operations/`, or a line in `EXEMPT` with the reason. `missing()` finds what is in neither; a test fails
by it.
"""

from collections.abc import Iterator
from functools import cache

from tools.stepping import inventory
from tools.stepping.core import Operation
from tools.stepping.operations import artifact, clerk, dag, files, loop, pool, ring, small, submit, words

OPERATIONS: tuple[Operation, ...] = (
    *words.OPERATIONS,
    *ring.OPERATIONS,
    *pool.OPERATIONS,
    *dag.OPERATIONS,
    *loop.OPERATIONS,
    *clerk.OPERATIONS,
    *artifact.OPERATIONS,
    *submit.OPERATIONS,
    *small.OPERATIONS,
    *files.OPERATIONS,
)

BRANCHING = frozenset(
    f"symphony.conductor.{name}"
    for name in (
        "loop.run_loop", "loop.drain", "loop.read_inbox", "loop.on_completion", "loop.settle", "reattach.settle_run",
        "loop.lose_node", "loop.rest",
    )
)  # fmt: skip
"""Kernels that do one thing or another: that one is stepped says nothing of what it calls."""

PRIVATE = "changes the private memory of its process alone"
READS = "reads"
WAITS = "waits for the kernel; the words are changed by who rings"
THIN = "no store of its own: calls what is in the table"
MAPS = "maps what is there; a mapping goes with its process"
FILES = "one system call, stepped with what makes and removes segments"

_S, _P = "symphony.shmem.", "symphony.pit."
_L, _C = "symphony.conductor.loop.", "symphony.conductor."
EXEMPT: dict[str, str] = {
    # csrc
    "sym_now_ns": READS,
    "sym_now_coarse_ns": READS,
    "sym_pause": READS,
    "sym_process_start": READS,
    "sym_copy": "copies bytes for whoever calls it; what names them is in the table",
    "sym_bell_wait": WAITS,
    "sym_bell_pipe_drain": WAITS,
    "sym_park": WAITS,
    "sym_stamp_magic": READS,
    "sym_stamp_check": READS,
    "sym_seqlock_read": READS,
    "sym_ring_fits": READS,
    "sym_ring_producer_error_spsc": READS,
    "sym_ring_position_spsc": READS,
    "sym_ring_space_spsc": PRIVATE,
    # kernels
    _C + "policy.prefer": READS,
    _C + "policy.depth": READS,
    _L + "anything": READS,
    _L + "delayed": READS,
    _L + "rest": "parks between two turns; what it writes is loop.set_sleeping",
    _P + "dag.machine.vertex_complete": READS,
    _P + "dag.graph.topological_order": PRIVATE,
    _P + "dag.graph.upward_ranks": PRIVATE,
    # segments, names, counters
    **dict.fromkeys(
        (
            _S + name
            for name in (
                "segment.Segment.address", "segment.Segment.address_of_stamp", "segment.Segment.buffer", "segment.stride_of",
                "segment.Segment.generation", "segment.Segment.offset", "segment.Segment.regions", "segment.Segment.table",
                "segment.Region.stride", "names.base_path", "names.check_instance_name", "names.segment_name",
                "names.base_if_there", "names.told_by", "registry.Registry.names", "space.path_of", "space.up", "counters.Counters",
                "counters.Counters.read", "counters.Counters.value",
            )
        ), READS,
    ),
    **dict.fromkeys(
        (f"{_S}segment.Segment{name}" for name in ("", ".attach", ".attach_fd", ".reattach_memfd", ".close")), MAPS
    ),
    **dict.fromkeys((f"{_S}space.{name}" for name in ("make", "open_", "take", "unlink")), FILES),
    _S + "counters.Counters.name": "by the maker, before anybody else has the segment",
    # channels and bare rings
    **dict.fromkeys((f"symphony.bus.channel.Channel.{name}" for name in ("addresses", "deposit", "geometry", "hello")), READS),
    "symphony.bus.channel.Channel": MAPS,
    "symphony.bus.channel.Channel.reattach": MAPS,
    "symphony.bus.channel.Channel.disown": "closes descriptors of a forked child",
    **dict.fromkeys((f"symphony.ring.Ring{name}" for name in ("", ".kind", ".size")), READS),
    # the state segment
    _C + "tables.Tables": MAPS,
    _C + "tables.Tables.attach": MAPS,
    _C + "tables.Tables.address": READS,
    _C + "tables.Tables.close": THIN,
    _C + "tables.read_name": READS,
    _C + "tables.write_name": "by who makes the row, before its word",
    # rooms
    **dict.fromkeys(
        (
            _P + "artifact.store." + name
            for name in (
                "Arena.address", "Arena.size", "ArtifactRef.view", "Store.address_of", "Store.bytes_at", "Store.live",
                "Store.names", "Store.payload", "Store.size_of_run", "Store.totals", "size_class",
            )
        ), READS,
    ),
    **dict.fromkeys((f"{_P}artifact.store.{name}" for name in ("Arena.take", "Store")), PRIVATE),
    _P + "artifact.store.Store.close": THIN,
    _P + "artifact.store.Store.resume": "what the judges of this table call: a stop in the middle is begun again",
    **dict.fromkeys(
        (
            _P + "dag." + name
            for name in (
                "graph.Prepared.geometry", "graph.prepare", "graph.regions", "graph.story_records", "room.raw_graph",
                "room.RawGraph.state", "room.RawGraph.state_of", "room.RawGraph.validate", "room.Tracker.validate",
            )
        ), READS,
    ),
    **dict.fromkeys((f"{_P}dag.{name}" for name in ("graph.attach_map", "graph.new_map", "room.Tracker")), PRIVATE),
    **dict.fromkeys(
        (f"{_P}dag.room.RawGraph{name}" for name in ("", ".complete", ".play_through", ".ready", ".rebuild")), THIN
    ),
    **dict.fromkeys((f"{_P}pool.room.Pool.{name}" for name in ("models", "reason", "validate")), READS),
    **dict.fromkeys((f"{_P}pool.room.Pool.{name}" for name in ("allocate", "release", "bind", "bind_release", "load")), THIN),
    _P + "pool.room.Pool": PRIVATE,
    **dict.fromkeys(
        (
            _P + "stale.sweep." + name
            for name in (
                "Entry.size_bytes", "Plan.dead", "Process.judge", "Process.of", "boot_id", "judge", "owners_of",
                "pid_namespace", "plan", "start_time",
            )
        ), READS,
    ),
    _P + "stale.sweep.Claim": PRIVATE,
    _P + "stale.sweep.Claim.leave": PRIVATE,
    _P + "stale.sweep.lock": "a lock of the kernel's, which takes it back from the dead",
}  # fmt: skip


def find(names: list[str]) -> list[Operation]:
    """The operations of these names, or whose names begin so. Raises KeyError for a name that none has."""
    if not names:
        return list(OPERATIONS)
    for name in names:
        if not any(operation.name.startswith(name) for operation in OPERATIONS):
            raise KeyError(name)
    return [operation for operation in OPERATIONS if any(operation.name.startswith(name) for name in names)]


@cache
def covered() -> frozenset[str]:
    """Everything that an operation steps: what it names, and every kernel that those call (but for `BRANCHING`)."""
    found = {name for operation in OPERATIONS for name in operation.covers}
    calls = inventory.kernels()
    ahead = list(found)
    while ahead:
        caller = ahead.pop()
        new = set() if caller in BRANCHING else calls.get(caller, frozenset()) - found
        found |= new
        ahead += new
    return frozenset(found)


def missing() -> Iterator[str]:
    """Operations of the code that are neither in the table nor exempt."""
    yield from sorted(inventory.everything() - covered() - EXEMPT.keys())


def stale() -> Iterator[str]:
    """Names in the table or among the exempt that the code does not have (any more)."""
    named = {name for operation in OPERATIONS for name in operation.covers} | EXEMPT.keys()
    yield from sorted(named - inventory.everything())
