"""Players that do not heed: a cancelled run's handler that goes on, a step over its timeout. They are ended.

All of it is the clerk's thread. Only the player that works on such a node is ended; one that merely has it in its
ring, behind another run's work, is left to come to it.
"""

import time
from typing import Any

import numpy as np

from symphony.native import ffi, lib
from symphony.native.layout import constants

GRACE_S = 0.5
"""Between the request to end and the kill; and from a step's deadline to the request."""
STATE_SHIFT, DISPATCHED = constants["SYM_NODE_STATE_SHIFT"], constants["SYM_NODE_DISPATCHED"]
PLAYER_SHIFT, PLAYER_MASK = constants["SYM_NODE_PLAYER_SHIFT"], constants["SYM_NODE_PLAYER_MASK"]
IDLE = (1 << 64) - 1
NS = 1_000_000_000


def working(player: Any) -> int:
    """The dispatch position that a player says it works on; IDLE when it works on none."""
    channel = ffi.cast("sym_channel_in_t *", player.channel.addresses()["channel_in"])
    return int(lib.sym_load_acquire_u64(ffi.addressof(channel, "working")))


def end_cancelled(conductor: Any, run: Any) -> None:
    """End the players that a cancelled run's nodes hold up, unless another run's work is before them there."""
    flying = _flying(conductor, run)
    for player in _in_front(conductor, run, flying):
        conductor.players.end(player, GRACE_S)


def end_late(conductor: Any) -> None:
    """End the players that work on a step whose timeout has passed. Cost: only runs with timeouts are looked at."""
    now = time.monotonic_ns()
    for run in _active(conductor):
        if not any(step.timeout_s for step in run.score.steps):
            continue
        flying = _flying(conductor, run)
        if not len(flying):
            continue
        allowed = run.segment.table("steps")["timeout_ns"][run.segment.table("nodes")["step"][flying]].astype(np.int64)
        due = run.segment.table("cold")["started_ns"][flying].astype(np.int64) + allowed + int(GRACE_S * NS)
        for player in _in_front(conductor, run, flying[(allowed > 0) & (due < now)]):
            conductor.players.end(player, GRACE_S)


def _active(conductor: Any) -> list[Any]:
    return [run for run in list(conductor.runs_by_serial.values()) if not run.ended.is_set()]


def _flying(conductor: Any, run: Any) -> np.ndarray:
    words = run.segment.table("nodes")["word"][: int(conductor.tables.runs[run.row]["node_count"])]
    return np.flatnonzero(words >> STATE_SHIFT == DISPATCHED)


def _by_player(run: Any, chosen: np.ndarray) -> dict[int, int]:
    """The first dispatch position of the chosen nodes at each player."""
    first: dict[int, int] = {}
    rows = run.segment.table("nodes")
    for node in chosen:
        player, position = int(rows[node]["word"]) >> PLAYER_SHIFT & PLAYER_MASK, int(rows[node]["position"])
        first[player] = min(position, first.get(player, position))
    return first


def _in_front(conductor: Any, run: Any, chosen: np.ndarray) -> list[int]:
    """Players whose oldest unanswered dispatch is one of the chosen nodes. A player answers in order, so that is what
    it works on, whatever it says of itself."""
    mine = _by_player(run, chosen)
    for other in _active(conductor) if mine else ():
        for player, position in _by_player(other, _flying(conductor, other)).items():
            if player in mine and position < mine[player]:
                del mine[player]
    return list(mine)


__all__ = ["IDLE", "end_cancelled", "end_late", "working"]
