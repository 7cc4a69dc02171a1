"""When an extension that keeps dying may be started again. The state is its row in the tables, so that it outlives the
Conductor: a crash loop is no shorter for a Conductor that comes back in the middle of it.

Deaths between which it completed nothing are counted; from the fourth on each doubles the wait, and at the twelfth the
extension is parked: runs that need it fail with its last words, and the next one that asks tries again after the wait.
A step completed, or a quiet time, forgets all of it. (Erlang's intensity and systemd's RestartSteps, in one rule.)
"""

from typing import Any

MS = 1_000_000
FREE_DEATHS = 3
"""So many in a row cost no wait: a step that kills its player is tried so often before it is given up."""
FIRST_NS = 10 * MS
LONGEST_NS = 10_000 * MS
PARKED_DEATHS = 12
QUIET_NS = 60_000 * MS


def count_death(row: Any, now_ns: int, progress: bool = False) -> None:
    """One more process of it ended unasked; `progress`: it has completed a step since the one before."""
    quiet = now_ns > int(row["not_before_ns"]) + QUIET_NS
    recent = 1 if progress or quiet else int(row["recent_deaths"]) + 1
    steps = recent - FREE_DEATHS
    wait = 0 if steps <= 0 else min(LONGEST_NS, FIRST_NS << min(steps - 1, 10))
    row["recent_deaths"], row["parked"] = recent, int(recent >= PARKED_DEATHS)
    row["not_before_ns"] = now_ns + wait


def wait_ns(row: Any, now_ns: int) -> int:
    """How long a start has to wait still; a parked extension that may be tried again is parked no more."""
    left = int(row["not_before_ns"]) - now_ns
    if left > 0:
        return left
    if int(row["parked"]):
        row["parked"], row["recent_deaths"] = 0, FREE_DEATHS
    return 0
