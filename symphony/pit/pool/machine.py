"""The seat's machine, compiled: allocate, release, open, close, give back.

The seat's word {state 3 | owner 13 | generation 48} alone says who holds it; one compare-and-swap takes each
edge (`pit.commit.take`). Any thread of any process that maps the table read-write may call `allocate` and
`release`; the rest is the loop's.
"""

from symphony.native.atomics import load_acquire, load_seq_cst
from symphony.native.kernels import kernel
from symphony.native.layout import constants
from symphony.pit.commit import COMMITTED, edges, take

CLOSED = constants["SYM_SEAT_CLOSED"]
FREE = constants["SYM_SEAT_FREE"]
OFFERED = constants["SYM_SEAT_OFFERED"]
HELD = constants["SYM_SEAT_HELD"]
STATE_SHIFT = constants["SYM_SEAT_STATE_SHIFT"]
OWNER_SHIFT = constants["SYM_SEAT_OWNER_SHIFT"]
OWNER_MASK = constants["SYM_SEAT_OWNER_MASK"]
GENERATION_MASK = (1 << OWNER_SHIFT) - 1
TOKEN_SEAT_BITS = 14
"""A token is {generation 48 | seat 14} + 1 bit of room: the seat fits SYM_LIMIT_SEATS, the token is positive."""

SEAT_EDGES = edges(
    (CLOSED, FREE), (FREE, CLOSED), (FREE, HELD), (FREE, OFFERED), (OFFERED, HELD), (OFFERED, FREE), (HELD, FREE)
)

NOTHING_FREE = -10
WAITERS_FIRST = -11
"""Others wait already: a seat that comes free is theirs."""
STALE = -12
"""The token is of an earlier holding of the seat."""
NO_SEATS = -13
"""The model has no instance."""


@kernel
def seat_state(word):
    return (word >> STATE_SHIFT) & 7


@kernel
def seat_owner(word):
    return (word >> OWNER_SHIFT) & OWNER_MASK


@kernel
def seat_word(state, owner, generation):
    return (state << STATE_SHIFT) | (owner << OWNER_SHIFT) | (generation & GENERATION_MASK)


@kernel
def token_of(seat, word):
    """What the holder gets: seat and the low bits of its generation, positive."""
    return ((word & GENERATION_MASK) % (1 << 48)) << TOKEN_SEAT_BITS | seat


@kernel
def hold(seats, seat, owner):
    """Take one seat if it is free: its word, or 0."""
    words = seats["word"]
    before = load_acquire(words, seat)
    if seat_state(before) != FREE:
        return 0
    after = seat_word(HELD, owner, before + 1)
    if take(words, seat, before, after, STATE_SHIFT, SEAT_EDGES) == COMMITTED:
        return after
    return 0


@kernel
def allocate(models, seats, model, owner):
    """Take any free seat of a model.

    Returns its token (positive), WAITERS_FIRST, NO_SEATS or NOTHING_FREE. Lock-free: a lost race moves on to the next seat.
    """
    if load_seq_cst(models["waiters"], model) != 0:
        return WAITERS_FIRST
    first = models[model].seat_first
    count = models[model].seat_count
    if count == 0:
        return NO_SEATS
    for seat in range(first, first + count):
        word = hold(seats, seat, owner)
        if word != 0:
            return token_of(seat, word)
    return NOTHING_FREE


@kernel
def allocate_on(instances, seats, instance, owner):
    """Take a free seat of one instance (the loop's dispatch): the seat's row, or -1."""
    first = instances[instance].seat_first
    for seat in range(first, first + instances[instance].seat_count):
        if hold(seats, seat, owner) != 0:
            return seat
    return -1


@kernel
def release(models, seats, token, owner):
    """Give a seat back by its token.

    Returns 1; 2 when requests wait for it (then notify the loop); STALE when this owner does not hold it under
    this token. Safe from any thread of the owner.
    """
    seat = token & ((1 << TOKEN_SEAT_BITS) - 1)
    if token < 0 or seat >= len(seats):
        return STALE
    words = seats["word"]
    before = load_acquire(words, seat)
    if seat_state(before) != HELD or seat_owner(before) != owner or token_of(seat, before) != token:
        return STALE
    after = seat_word(FREE, 0, before + 1)
    if take(words, seat, before, after, STATE_SHIFT, SEAT_EDGES) != COMMITTED:
        return STALE
    # SYNC seat-waiters: the exchange of the seat comes before this load, the loop's store of `waiters` before its
    # scan; one of the two sees the other. Without it a seat stays free beside a waiter for ever.
    return 2 if load_seq_cst(models["waiters"], seats[seat].model) != 0 else 1


@kernel
def release_seat(seats, seat, owner):
    """Give back a seat that this owner holds, by its row (the loop's own seats). 1 or STALE."""
    words = seats["word"]
    before = load_acquire(words, seat)
    if seat_state(before) != HELD or seat_owner(before) != owner:
        return STALE
    after = seat_word(FREE, 0, before + 1)
    return 1 if take(words, seat, before, after, STATE_SHIFT, SEAT_EDGES) == COMMITTED else STALE


@kernel
def open_seats(seats, first, count, model, instance):
    """A loaded instance opens: its seats go closed -> free (loop only)."""
    words = seats["word"]
    for seat in range(first, first + count):
        before = load_acquire(words, seat)
        if seat_state(before) != CLOSED:
            continue
        seats[seat].model = model
        seats[seat].instance = instance
        take(words, seat, before, seat_word(FREE, 0, before + 1), STATE_SHIFT, SEAT_EDGES)


@kernel
def close_seats(seats, first, count):
    """Eviction, first half: every free seat goes to closed. Returns how many are still held (loop only)."""
    words = seats["word"]
    held = 0
    for seat in range(first, first + count):
        before = load_acquire(words, seat)
        if seat_state(before) == FREE:
            take(words, seat, before, seat_word(CLOSED, 0, before + 1), STATE_SHIFT, SEAT_EDGES)
        if seat_state(load_acquire(words, seat)) != CLOSED:
            held += 1
    return held


@kernel
def give_back(seats, count, owner):
    """Free every seat among the first `count` rows that a dead owner held or was offered. How many (loop only)."""
    words = seats["word"]
    freed = 0
    for seat in range(count):
        before = load_acquire(words, seat)
        state = seat_state(before)
        if (state == HELD or state == OFFERED) and seat_owner(before) == owner:
            if take(words, seat, before, seat_word(FREE, 0, before + 1), STATE_SHIFT, SEAT_EDGES) == COMMITTED:
                freed += 1
    return freed


@kernel
def rebuild(instances, seats, instance_count, owner):
    """Count again, from the words, the seats that `owner` (the loop) holds of each instance."""
    for instance in range(instance_count):
        held = 0
        first = instances[instance].seat_first
        for seat in range(first, first + instances[instance].seat_count):
            word = load_acquire(seats["word"], seat)
            if seat_state(word) == HELD and seat_owner(word) == owner:
                held += 1
        instances[instance].held = held
    return 1
