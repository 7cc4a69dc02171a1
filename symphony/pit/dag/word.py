"""The words of nodes and runs: how they are packed, and the literal tables of their edges."""

from numba import njit

from symphony.native.layout import constants
from symphony.pit.commit import edges

PENDING = constants["SYM_NODE_PENDING"]
DISPATCHED = constants["SYM_NODE_DISPATCHED"]
STORING = constants["SYM_NODE_STORING"]
DONE = constants["SYM_NODE_DONE"]
FAILED = constants["SYM_NODE_FAILED"]
SKIPPED = constants["SYM_NODE_SKIPPED"]
CANCELLED = constants["SYM_NODE_CANCELLED"]
CACHED = constants["SYM_NODE_CACHED"]

RUN_FREE = constants["SYM_RUN_FREE"]
RUN_QUEUED = constants["SYM_RUN_QUEUED"]
RUN_RUNNING = constants["SYM_RUN_RUNNING"]
RUN_COMPLETED = constants["SYM_RUN_COMPLETED"]
RUN_FAILED = constants["SYM_RUN_FAILED"]
RUN_CANCELLED = constants["SYM_RUN_CANCELLED"]
RUN_CANCELLING = constants["SYM_RUN_CANCELLING"]
RUN_FAILING = constants["SYM_RUN_FAILING"]

STATE_SHIFT = constants["SYM_NODE_STATE_SHIFT"]
FLAG_SHIFT = constants["SYM_NODE_FLAG_SHIFT"]
ATTEMPT_SHIFT = constants["SYM_NODE_ATTEMPT_SHIFT"]
PLAYER_SHIFT = constants["SYM_NODE_PLAYER_SHIFT"]
ATTEMPT_MASK = constants["SYM_NODE_ATTEMPT_MASK"]
PLAYER_MASK = constants["SYM_NODE_PLAYER_MASK"]
LAST_ATTEMPT = constants["SYM_NODE_LAST_ATTEMPT"]
GENERATION_MASK = 0xFFFFFFFF
FLAG_GROUP = constants["SYM_NODE_GROUP"]
FLAG_ONCE = constants["SYM_NODE_ONCE"]
RUN_STATE_SHIFT = constants["SYM_RUN_STATE_SHIFT"]

NODE_EDGES = edges(
    (PENDING, DISPATCHED),
    (PENDING, SKIPPED),
    (PENDING, CANCELLED),
    (PENDING, CACHED),
    (DISPATCHED, DONE),
    (DISPATCHED, STORING),
    (DISPATCHED, FAILED),
    (DISPATCHED, PENDING),
    (DISPATCHED, CANCELLED),
    (STORING, DONE),
    (STORING, FAILED),
    (STORING, PENDING),
)

RUN_EDGES = edges(
    (RUN_FREE, RUN_QUEUED),
    (RUN_QUEUED, RUN_RUNNING),
    (RUN_QUEUED, RUN_CANCELLED),
    (RUN_RUNNING, RUN_COMPLETED),
    (RUN_RUNNING, RUN_FAILING),
    (RUN_RUNNING, RUN_CANCELLING),
    (RUN_FAILING, RUN_FAILED),
    (RUN_FAILING, RUN_CANCELLING),
    (RUN_CANCELLING, RUN_CANCELLED),
    (RUN_COMPLETED, RUN_FREE),
    (RUN_FAILED, RUN_FREE),
    (RUN_CANCELLED, RUN_FREE),
)


@njit(inline="always")
def pack(state, flags, attempt, player, generation):
    """A node's word: {state 4 | flags 4 | attempt 12 | player 12 | run generation 32}, as int64."""
    return (
        (state << STATE_SHIFT)
        | (flags << FLAG_SHIFT)
        | (attempt << ATTEMPT_SHIFT)
        | (player << PLAYER_SHIFT)
        | (generation & GENERATION_MASK)
    )


@njit(inline="always")
def state_of(word):
    return (word >> STATE_SHIFT) & 15


@njit(inline="always")
def flags_of(word):
    return (word >> FLAG_SHIFT) & 15


@njit(inline="always")
def attempt_of(word):
    return (word >> ATTEMPT_SHIFT) & ATTEMPT_MASK


@njit(inline="always")
def player_of(word):
    return (word >> PLAYER_SHIFT) & PLAYER_MASK


@njit(inline="always")
def generation_of(word):
    return word & GENERATION_MASK


@njit(inline="always")
def moved(word, state):
    """The same word in another state."""
    return (word & ~(15 << STATE_SHIFT)) | (state << STATE_SHIFT)


@njit(inline="always")
def run_word(state, generation):
    return (state << RUN_STATE_SHIFT) | (generation & GENERATION_MASK)


@njit(inline="always")
def over(state):
    """Whether a node in this state will not be touched again."""
    return state >= DONE
