"""Is the pool consistent? One check an invariant (numbers as in this folder's README.md). Reads tables only."""

from typing import Any

import numpy as np

from symphony.native.layout import constants

STATE_SHIFT, OWNER_SHIFT = constants["SYM_SEAT_STATE_SHIFT"], constants["SYM_SEAT_OWNER_SHIFT"]
CLOSED, FREE, OFFERED, HELD = (constants[f"SYM_SEAT_{name}"] for name in ("CLOSED", "FREE", "OFFERED", "HELD"))
READY, ACTIVE = constants["SYM_MODEL_READY"], constants["SYM_MODEL_ACTIVE"]
OWNER_FREE = constants["SYM_OWNER_FREE"]


def validate(
    engine: np.void, models: Any, instances: Any, seats: Any, owners: Any, conductor_owner: int = 1
) -> list[tuple[str, str, str]]:
    """Every violation found: (invariant, where, text). The arguments are the tables of the state segment."""
    used = seats[: int(engine["seats_used"])]
    state = (used["word"] >> STATE_SHIFT).astype(np.int64)
    owner = (used["word"] >> OWNER_SHIFT & constants["SYM_SEAT_OWNER_MASK"]).astype(np.int64)
    found = _owners(state, owner, owners)
    for index in range(int(engine["instances_used"])):
        found += _instance(index, instances[index], state, owner, models, conductor_owner)
    return found + _free(state, used["instance"], instances)


def _free(state: np.ndarray, instance: np.ndarray, instances: Any) -> list[tuple[str, str, str]]:
    """I2, from the seats' side: a free seat is one of an instance that is not cold."""
    free = np.flatnonzero(state == FREE)
    rows = instances[np.minimum(instance[free], len(instances) - 1)]
    inside = (rows["seat_first"] <= free) & (free < rows["seat_first"].astype(np.int64) + rows["seat_count"])
    wrong = free[~inside | (rows["state"] == 0)]
    return [("I2", f"seat {seat}", f"is free, and its instance {instance[seat]} is cold") for seat in wrong]


def _owners(state: np.ndarray, owner: np.ndarray, owners: Any) -> list[tuple[str, str, str]]:
    """I1: a free or closed seat names nobody; a held or offered one names an owner whose slot is in use."""
    found = []
    for seat in np.flatnonzero(((state == FREE) | (state == CLOSED)) & (owner != 0)):
        found.append(("I1", f"seat {seat}", f"is free or closed and names owner {owner[seat]}"))
    for seat in np.flatnonzero((state == HELD) | (state == OFFERED)):
        slot = int(owner[seat])
        if slot >= len(owners) or int(owners[slot]["word"]) >> 60 == OWNER_FREE:
            found.append(("I1", f"seat {seat}", f"is held by owner {slot}, whose slot is free"))
    return found


def _instance(
    index: int, row: np.void, state: np.ndarray, owner: np.ndarray, models: Any, conductor_owner: int
) -> list[tuple[str, str, str]]:
    """I2: the seats of a ready instance are open, those of a cold one closed or still held. I3: an instance's seats
    lie inside its model's block."""
    found = []
    first, count = int(row["seat_first"]), int(row["seat_count"])
    model = models[int(row["model"])]
    inside = int(model["seat_first"]) <= first and first + count <= int(model["seat_first"]) + int(model["seat_count"])
    if count and not inside:
        found.append(("I3", f"instance {index}", "has seats outside its model's block"))
    mine = state[first : first + count]
    if int(row["state"]) in (READY, ACTIVE) and (mine == CLOSED).any():
        found.append(("I2", f"instance {index}", "is ready with a closed seat"))
    if int(row["state"]) == 0 and (mine == FREE).any():
        found.append(("I2", f"instance {index}", "is cold with a free seat"))
    return found
