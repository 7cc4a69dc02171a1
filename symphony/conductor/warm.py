"""Loads every kernel that a Conductor needs, without running any: what a spare does before it is wanted."""

import numba
import numpy as np

from symphony.conductor import state
from symphony.native.kernels import loading
from symphony.pit.dag import graph as graphs
from symphony.pit.tables import RESOURCE, SEAT

with loading():
    from symphony.conductor.loop import run_loop
    from symphony.conductor.reattach import give_back_seats, resume_run, settle_run, take_up_player
    from symphony.pit.pool.machine import close_seats


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
