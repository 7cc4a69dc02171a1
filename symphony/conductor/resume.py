"""A Conductor takes up the live state of one that ended: segments, runs, extensions and their players.

Private memory is made again from what lies in shared memory and from what the Keeper kept (each player's sealed
memory, bell and socket). Extensions are not restarted and notice nothing; what they answered meanwhile waits in their
rings. All of it comes before the loop turns, in the order that `conductor/reattach.py` names, and may be cut off
anywhere: the next Conductor begins again.
"""

import logging
import os
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from symphony.conductor.failure import explain
from symphony.conductor.players import TOKEN_ROW_BITS, Hosted
from symphony.conductor.run import ENDED, Run
from symphony.conductor.tables import OWNER_SELF, read_name
from symphony.model import score as scores
from symphony.model.errors import SegmentError, SymphonyError
from symphony.native import ffi, lib
from symphony.native.kernels import loading
from symphony.native.layout import constants
from symphony.pit.dag import graph as graphs
from symphony.pit.tables import RESOURCE, SEAT
from symphony.shmem.names import told_by
from symphony.shmem.segment import Segment

with loading():
    from symphony.conductor.reattach import give_back_seats, resume_run, settle_run, take_up_player
    from symphony.pit.pool.machine import close_seats

log = logging.getLogger("symphony.conductor")

RUN_STATE_SHIFT = constants["SYM_RUN_STATE_SHIFT"]
PLAYER_READY, PLAYER_DEAD = constants["SYM_PLAYER_READY"], constants["SYM_PLAYER_DEAD"]
IN_USE = (constants["SYM_PLAYER_STARTING"], PLAYER_READY, constants["SYM_PLAYER_STOPPING"])
UNKNOWN_TAIL = 1 << 62
"""Of a dispatch ring that is gone: everything in it may have been seen."""


@dataclass
class LostManifest:
    """An extension that the tables name and that is not found any more: nothing of it can be started."""

    id: str
    version: str = "?"
    directory: str = ""
    models: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def take_up(conductor: Any, inherited: list[Any]) -> None:
    """Everything, in order. Raises SegmentError, NoSuchSegment, AbiMismatch; the state is then as it was."""
    c = conductor
    begun = time.monotonic_ns()
    c.control[0]["now"] = begun
    _extensions(c)
    _runs(c)
    outs = _outs(c)
    told = [one for one in inherited if _player(c, one, outs)]
    lost = _forget_lost_players(c, outs)
    _unlink_strangers(c)
    for one in told:
        row = one.token & ((1 << TOKEN_ROW_BITS) - 1)
        ready = int(c.tables.players[row]["state"]) == PLAYER_READY
        take_up_player(c.control, c.pmaps, c.mmaps, row, ready, not one.alive)
    _settle(c, lost)
    _grant_again(c)
    engine = c.tables.engine[0]
    engine["restarts"] += 1
    engine["resumed_ns"] = time.monotonic_ns()
    c.resumed_ms = (time.monotonic_ns() - begun) / 1e6


# -- extensions ---------------------------------------------------------------------------------------------


def _extensions(c: Any) -> None:
    """`extensions_used` says how many there are; the counts of models and seats follow from their rows."""
    engine = c.tables.engine[0]
    count = int(engine["extensions_used"])
    seats = 0
    for row in range(count):
        shared = c.tables.extensions[row]
        name, model = read_name(shared["name"]), int(shared["model"])
        pool = c.tables.models[model]
        manifest = c.catalogue.get(name) or LostManifest(name)
        hosted = Hosted(
            manifest, row, model, int(shared["window"]), int(shared["players_max"]), int(pool["seat_first"])
        )
        hosted.starts = int(shared["starts"])
        c.hosted[name] = c.hosted_by_model[model] = hosted
        c.mmaps[model]["players_max"] = hosted.players_max
        seats = max(seats, int(pool["seat_first"]) + int(pool["seat_count"]))
    engine["models_used"], engine["seats_used"] = count, seats


# -- segments and runs --------------------------------------------------------------------------------------


def _runs(c: Any) -> None:
    words = c.tables.runs["word"] >> RUN_STATE_SHIFT
    rows = set()
    for row in np.flatnonzero((words != 0) & (c.tables.runs["driver"] == OWNER_SELF)).tolist():
        if int(c.tables.runs[row]["score"]["segment"]):
            rows.add(row)
        else:
            # A raw graph that the dead Conductor's own program drove: its driver is gone, and nobody else knows it.
            c.free_row(row)
    segments = c.store.resume(lambda name: _attach(c, name), rows)
    for row in sorted(rows, key=lambda row: int(c.tables.runs[row]["serial"])):
        _run(c, row, segments)
    for segment in segments.values():
        c.store.leave(segment)
        segment.unlink()
        segment.close()
    newest = max(c.runs_by_serial, default=0)
    c.tables.engine[0]["next_serial"] = max(newest + 1, int(c.tables.engine[0]["next_serial"]))


def _attach(c: Any, name: str) -> Segment:
    return Segment.attach(name, writable=True, registry=c.registry)


def _run(c: Any, row: int, segments: dict[int, Segment]) -> None:
    shared = c.tables.runs[row]
    segment = segments.pop(int(shared["segment"]))
    graph = segment.table("graph")[0]
    grown = {name: int(graph["node_capacity"]) for name in ("nodes", "cold", "marks")}
    grown["outputs"] = int(graph["output_capacity"])
    geometry = {
        name: (place.count, grown.get(name, place.count)) for name, place in segment.regions.items() if name != "layout"
    }
    score = scores.load(bytes(c.payload_of(shared["score"])))
    run = Run(int(shared["serial"]), row, score, segment, geometry, bytes(shared["id"]))
    private = c.maps[row]
    graphs.attach_map(private, segment, geometry, row, c.tables.address("runs", row))
    private["priority"], private["serial"] = int(shared["priority"]), run.serial
    c.enter(run)
    last = ENDED.get(int(shared["word"]) >> RUN_STATE_SHIFT)
    if last is None:
        return
    run.state = last
    if last == "failed":
        try:
            run.error = explain(c, run)
        except SymphonyError as error:
            run.error = f"the run failed; what it said of it is gone: {error}"
    run.ended.set()


# -- players ------------------------------------------------------------------------------------------------


def _outs(c: Any) -> dict[int, Segment]:
    """The segments towards players that are there, by the generation of their channel."""
    found = {}
    for name in c.registry.names():
        told = told_by(name)
        if told is not None and told[2] == "out":
            try:
                segment = Segment.attach(name, writable=True, kind="out", registry=c.registry)
            except SegmentError:
                continue
            found[segment.generation] = segment
    return found


def _player(c: Any, told: Any, outs: dict[int, Segment]) -> bool:
    """Take up one player that the Keeper tells of. One that the tables do not know is ended: its start was cut off."""
    row, generation = told.token & ((1 << TOKEN_ROW_BITS) - 1), told.token >> TOKEN_ROW_BITS
    shared = c.tables.players[row]
    known = int(shared["generation"]) == generation and int(shared["state"]) in IN_USE and generation in outs
    hosted = next((h for h in c.hosted.values() if h.row == int(shared["extension"])), None)
    # One that wrote what no honest extension writes was about to be ended.
    honest = known and int(shared["refused"]) == 0
    if honest and hosted is not None and {"in", "bell", "control"} <= told.descriptors.keys():
        try:
            c.players.reattach(row, hosted, outs.pop(generation), told)
            return True
        except SymphonyError as error:
            log.warning("player %d cannot be taken up and is ended: %s", row, error)
    for descriptor in told.descriptors.values():
        os.close(descriptor)
    if told.alive:
        c.keeper.end(told.token, 0.0)
    else:
        c.players.forget(told.token)
    return False


def _forget_lost_players(c: Any, outs: dict[int, Segment]) -> list[int]:
    """Rows of players that are no more, whose memory nobody kept: how far their dispatch rings were published is all
    that can be told of them. Their instances, which are free again, as are all that no living player has."""
    used, lost = set(), []
    for row in range(len(c.tables.players)):
        shared = c.tables.players[row]
        if row in c.players.live:
            used.add(int(shared["instance"]))
            continue
        c.pmaps[row]["tail"] = UNKNOWN_TAIL
        if int(shared["state"]) not in IN_USE:
            continue
        out = outs.get(int(shared["generation"]))
        if out is not None:
            c.pmaps[row]["tail"] = int(ffi.cast("sym_ring_producer_t *", out.address("dispatch")).tail)
        lost.append(int(shared["instance"]))
        shared["state"] = PLAYER_DEAD
    for out in outs.values():
        out.unlink()
        out.close()
    c.take_instances(used)
    return lost


def _unlink_strangers(c: Any) -> None:
    """Segments that were made and never entered anywhere: nobody can know them."""
    known = {c.tables.segment.name, *(player.channel.out.name for player in c.players.live.values())}
    known |= set(c.store.names())
    for name in c.registry.names():
        if name not in known:
            Segment.discard(name, c.registry)


# -- words --------------------------------------------------------------------------------------------------


def _settle(c: Any, lost_instances: list[int]) -> None:
    tables = c.tables
    named = np.zeros(len(tables.seats), np.uint8)
    tables.resources["used"] = 0
    going = [run for _, run in sorted(c.runs_by_serial.items()) if not run.ended.is_set()]
    seats, resources = tables.seats.view(SEAT), tables.resources.view(RESOURCE)
    for run in going:
        settle_run(c.control, c.maps, c.pmaps, named, resources, len(c.capacity), run.row)
    give_back_seats(seats, int(tables.engine[0]["seats_used"]), OWNER_SELF, named)
    for instance in lost_instances:
        row = tables.instances[instance]
        close_seats(seats, int(row["seat_first"]), int(row["seat_count"]))
        row["state"] = 0
    for run in going:
        resume_run(c.control, c.maps, c.active, c.pmaps, run.row)
        # What it says to the clerk is taken before the next says more than the ring holds.
        c.clerk.catch_up()


def _grant_again(c: Any) -> None:
    """What was told before is told again: it does no harm, and what was not would."""
    for player in c.players.live.values():
        if player.ended:
            continue
        for number, segment in c.store.live():
            c.players.tell(player, number, segment)
        words = ffi.cast("sym_channel_out_t *", player.channel.addresses()["channel_out"])
        lib.sym_bell_ring(ffi.addressof(words, "bell"))


__all__ = ["take_up"]
