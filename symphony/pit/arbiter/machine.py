"""Vectors of named capacities, taken whole or not at all (the loop only: `used` has one writer)."""

from symphony.native.atomics import store_relaxed
from symphony.native.kernels import kernel


@kernel
def short_of(resources, used_rows, need):
    """The first resource of which too little is left for the vector, or -1."""
    for i in range(used_rows):
        if need[i] != 0 and resources[i].used + need[i] > resources[i].capacity:
            return i
    return -1


@kernel
def take_vector(resources, used_rows, need):
    """Take a vector whole. False: nothing was taken, and the resource that is short counts a refusal."""
    if used_rows == 0:
        return True
    short = short_of(resources, used_rows, need)
    if short >= 0:
        store_relaxed(resources["refused"], short, resources[short].refused + 1)
        return False
    for i in range(used_rows):
        if need[i] != 0:
            store_relaxed(resources["used"], i, resources[i].used + need[i])
            store_relaxed(resources["granted"], i, resources[i].granted + 1)
    return True


@kernel
def give_vector(resources, used_rows, need):
    """Give a vector back."""
    for i in range(used_rows):
        if need[i] != 0:
            store_relaxed(resources["used"], i, resources[i].used - need[i])
