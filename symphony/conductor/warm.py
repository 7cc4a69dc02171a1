"""Loads every kernel that a Conductor needs, without running any.

A spare does so before it is wanted, and the first start on a machine, so that a Conductor which comes back never
compiles: those that it waits for are waiting for it.
"""

import numba
import numpy as np

from symphony.conductor import state
from symphony.native.kernels import cache_directory, loading
from symphony.pit.dag import graph as graphs
from symphony.pit.tables import RESOURCE, SEAT

with loading():
    from symphony.conductor.loop import run_loop
    from symphony.conductor.reattach import give_back_seats, resume_run, settle_run, take_up_player
    from symphony.pit.pool.machine import close_seats


COMPLETE = "complete"
"""A file in the cache's folder: everything below was compiled into it."""


def warm_once() -> None:
    """`warm`, unless this cache was completed before. Without a place for a cache there is nothing to gain."""
    marker = cache_directory() / COMPLETE
    if marker.exists() or not marker.parent.is_dir():
        return
    warm()
    marker.touch()


def warm() -> None:
    """From the cache some hundred milliseconds; without one, as long as compiling takes."""
    control, maps, active = np.zeros(1, state.CONTROL), graphs.new_map(1), np.zeros(1, np.int64)
    pmaps, mmaps = np.zeros(1, state.PLAYER_MAP), np.zeros(1, state.MODEL_MAP)
    seats, resources, named = np.zeros(1, SEAT), np.zeros(1, RESOURCE), np.zeros(1, np.uint8)
    for function, arguments in (
        (run_loop, (control, maps, active, pmaps, mmaps)),
        (take_up_player, (control, pmaps, mmaps, 0, True, True)),
        (settle_run, (control, maps, pmaps, named, resources, 0, 0)),
        (give_back_seats, (seats, 0, 0, named)),
        (close_seats, (seats, 0, 0)),
        (resume_run, (control, maps, active, pmaps, 0)),
    ):
        function.compile(tuple(numba.typeof(argument) for argument in arguments))
