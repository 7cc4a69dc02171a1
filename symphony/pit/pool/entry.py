"""The pool's hot calls by address, for the fast door: integers in, one integer out, never 0."""

from numba import carray, types

from symphony.native.atomics import as_pointer
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
        carray(as_pointer(models), (MODELS,), dtype=MODEL),
        carray(as_pointer(seats), (SEATS,), dtype=SEAT),
        model,
        owner,
    )


@entry(types.int64(types.int64, types.int64, types.int64, types.int64))
def release_seat(models, seats, owner, token):
    """pit.pool.machine.release over raw addresses of the two tables."""
    return release(
        carray(as_pointer(models), (MODELS,), dtype=MODEL),
        carray(as_pointer(seats), (SEATS,), dtype=SEAT),
        token,
        owner,
    )
