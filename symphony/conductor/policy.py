"""What the loop chooses: pure functions over numbers, compiled, no state of their own.

`prefer` orders ready nodes, `depth` says how deep a player's window may be filled. A learned policy takes
their place without the loop changing.
"""

from symphony.native.kernels import kernel

PREFETCH_NS = 20_000_000
"""Nodes shorter than this are sent ahead of their turn, so that a player never waits for the loop; longer ones
stay in the ready set, where another player can still take them."""


@kernel
def prefer(priority, rank, serial, other_priority, other_rank, other_serial):
    """Whether the first of two ready nodes goes first: priority, then upward rank (longest way to the run's
    end), then the older run."""
    if priority != other_priority:
        return priority > other_priority
    if rank != other_rank:
        return rank > other_rank
    return serial < other_serial


@kernel
def depth(window, mean_ns):
    """How many nodes a player may have at once, from the mean run time of its nodes (0: none known yet)."""
    if mean_ns <= 0:
        return window
    ahead = PREFETCH_NS // mean_ns
    return window if ahead >= window else 1 + ahead
