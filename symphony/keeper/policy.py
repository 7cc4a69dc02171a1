"""How often a Conductor is replaced, and when no more: back-off, and parking of a crash loop."""

from __future__ import annotations

import collections
from dataclasses import dataclass

FIRST_S = 0.01
MOST_S = 10.0


@dataclass(frozen=True)
class Policy:
    """`hang_s`: without an answer for so long a Conductor counts as hung (0: never). `start_s`: a Conductor that is
    not ready after so long does, too. Parked after more than `stillborn` deaths within `window_s` seconds that never
    became ready, or `deaths` of any kind. `spare`: keep a second process loaded that takes over."""

    hang_s: float = 10.0
    start_s: float = 180.0
    window_s: float = 60.0
    stillborn: int = 5
    deaths: int = 10
    spare: bool = False


class Backoff:
    """Waits that double from 10 ms to 10 s, and begin anew after a time of service."""

    def __init__(self, steady_s: float):
        self._steady_s = steady_s
        self._next_s = FIRST_S

    def after(self, served_s: float) -> float:
        """Seconds to wait after a process that served for so long."""
        if served_s >= self._steady_s:
            self._next_s = FIRST_S
        wait, self._next_s = self._next_s, min(MOST_S, self._next_s * 2)
        return wait


class Deaths:
    """The Conductors' deaths of the last while."""

    def __init__(self, policy: Policy):
        self._policy = policy
        self._found: collections.deque[tuple[float, bool]] = collections.deque()

    def add(self, now: float, served: bool) -> None:
        self._found.append((now, served))

    def verdict(self, now: float) -> str:
        """Why it is not worth another try; empty as long as it is."""
        policy = self._policy
        while self._found and now - self._found[0][0] > policy.window_s:
            self._found.popleft()
        stillborn = sum(not served for _, served in self._found)
        if stillborn > policy.stillborn:
            return f"Conductors that died before they were ready, in {policy.window_s:g} s: {stillborn}"
        if len(self._found) >= policy.deaths:
            return f"Conductors that died in {policy.window_s:g} s: {len(self._found)}"
        return ""
