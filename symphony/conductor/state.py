"""The loop's private memory: addresses, never read back from shared memory, and what it derives for itself."""

import numpy as np

from symphony.native.layout import constants

LIMIT_PLAYERS = constants["SYM_LIMIT_PLAYERS"]
LIMIT_MODELS = constants["SYM_LIMIT_MODELS"]
LIMIT_RUNS = constants["SYM_LIMIT_RUNS"]

PLAYER_NONE, PLAYER_STARTING, PLAYER_READY, PLAYER_DYING = 0, 1, 2, 3

PLAYER_MAP = np.dtype(
    [
        (name, "<i8")
        for name in (
            "state", "model", "instance", "seat_first", "window", "pid",
            "consumer", "producer", "channel_out", "channel_in", "arena", "arena_size", "command_producer",
            "held", "mean_ns", "arena_end", "arena_outstanding", "staged", "hold", "next_in_model", "was_ready",
            "part", "first_again", "tail", "tried",
        )
    ]
)  # fmt: skip
"""One row a player. `consumer`, `producer`: addresses of the private ring structs; `hold`: 1 while a record at
the ring's front waits for memory; `arena_outstanding`: jobs of the clerk that still read the arena;
`part`: what became of the piece at the ring's front; `first_again`: 1 until the first record after a Conductor came
back, which may have been applied before; `tail`: of the dispatch ring then, what lies behind it was never seen;
`tried`: the turn in which it could not take
what it was given."""

MODEL_MAP = np.dtype(
    [
        ("first_player", "<i8"),
        ("players", "<i8"),
        ("starting", "<i8"),
        ("players_max", "<i8"),
        ("wanted", "<i8"),
        ("failed", "<i8"),
    ]
)

CONTROL = np.dtype(
    [
        (name, "<i8")
        for name in (
            "stop", "epoll", "inbox", "outbox", "views", "scratch", "scratch_bytes", "owner", "spin_ns",
            "engine", "runs", "players", "models", "instances", "seats", "resources", "counters", "heartbeat",
            "instances_used", "seats_used", "players_used", "resources_used",
            "active_count", "outbox_pipe", "outbox_sleeping", "inbox_sleeping", "now", "turn", "poll_from", "dying",
        )
    ]
)  # fmt: skip

# What the clerk tells the loop (record kinds of the inbox; payload: eight int64).
RUN_START, RUN_CANCEL, PLAYER_ADD, PLAYER_DEAD, STORED, ARENA, GROWN, MODEL_FAILED, STOP, PING = range(64, 74)
# What the loop tells the clerk (record kinds of the outbox; payload: eight int64).
(
    WANT_PLAYER, STORE, PART, NEED_ARENA, GROW, RUN_ENDED, PLAYER_GONE, PLAYER_UP, BAD_RECORD, LOOP_ENDED, RUN_STARTED, PONG,
) = range(96, 108)  # fmt: skip

MESSAGE_BYTES = 64
VIEWS = 64
"""Records taken from one player's ring at a turn: the bound that keeps a flood from starving the others."""
