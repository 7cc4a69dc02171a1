"""The commit rule: one compare-and-swap on one word is the truth.

Every edge of every machine over shared words goes through `take`: it refuses an edge that the machine's
literal table does not list, and commits the others by a single compare-and-swap (acquire-release). What
stands beside the word was written before it by the only one who may take that edge; everything else is
derived, and made again by the room's rebuild().

SYNC word-commit: the release half publishes what was written beside the word; whoever loads the word with
acquire and finds the new state also finds those fields. Without it a reader could act on the fields of the
attempt before.
"""

import numpy as np

from symphony.native.atomics import compare_exchange
from symphony.native.kernels import inlined

COMMITTED = 1
LOST = -1
"""Another one was first: the word is no longer what was read."""
ILLEGAL = -2
"""The machine has no such edge."""


def edges(*pairs: tuple[int, int]) -> np.ndarray:
    """A literal table of edges as a bit mask a state: int64[16], bit `to` of row `from`."""
    table = np.zeros(16, np.int64)
    for before, after in pairs:
        table[before] |= 1 << after
    return table


@inlined
def take(words, index, before, after, shift, legal):
    """Take the edge from word `before` to word `after` of words[index].

    `shift` is where the state's bits begin (the state is at most 4 bits), `legal` the machine's table from
    `edges`. Returns COMMITTED, LOST or ILLEGAL; 0 is never returned. Safe between threads and processes.
    """
    source = (before >> shift) & 15
    target = (after >> shift) & 15
    if (legal[source] >> target) & 1 == 0:
        return ILLEGAL
    if compare_exchange(words, index, before, after):
        return COMMITTED
    return LOST
