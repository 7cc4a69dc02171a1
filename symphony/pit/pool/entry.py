"""The pool's hot calls by address, for the fast door: integers in, one integer out, never 0."""

from numba import types

from symphony.native.atomics import table
from symphony.native.kernels import entry
from symphony.native.layout import constants
from symphony.pit.pool.machine import allocate, release
from symphony.pit.tables import MODEL, SEAT

MODELS = constants["SYM_LIMIT_MODELS"]
SEATS = constants["SYM_LIMIT_SEATS"]


@entry(types.int64(types.int64, types.int64, types.int64, types.int64))
def allocate_seat(models, seats, owner, model):
    """pit.pool.machine.allocate over raw addresses of the two tables."""
    return allocate(
        table(models, MODELS, MODEL),
        table(seats, SEATS, SEAT),
        model,
        owner,
    )


@entry(types.int64(types.int64, types.int64, types.int64, types.int64))
def release_seat(models, seats, owner, token):
    """pit.pool.machine.release over raw addresses of the two tables."""
    return release(
        table(models, MODELS, MODEL),
        table(seats, SEATS, SEAT),
        token,
        owner,
    )
