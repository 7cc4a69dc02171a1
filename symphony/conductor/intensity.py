"""How often something may be started again: at most so many times in so much time (Erlang/OTP's restart intensity)."""

from collections import deque


class Intensity:
    """At most `most` events within any `period_s`; one thread. Time enters as an argument."""

    def __init__(self, most: int, period_s: float) -> None:
        self.most, self.period_s = most, period_s
        self._at: deque[float] = deque()

    def allow(self, now: float) -> bool:
        """Count one more. False: it is one too many."""
        while self._at and now - self._at[0] > self.period_s:
            self._at.popleft()
        self._at.append(now)
        return len(self._at) <= self.most
