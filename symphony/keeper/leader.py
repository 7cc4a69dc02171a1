"""One Conductor's process as its Keeper sees it, the spare's too: how far it has come, and whether it still answers."""

from __future__ import annotations

from symphony.keeper import tree
from symphony.keeper.child import Child
from symphony.keeper.line import Line
from symphony.keeper.policy import Policy

PING_S = 1.0
TAKE_S = 2.0
"""A spare that waits for one message and does not answer it in this time is stopped or stuck."""

STARTING, WAITING, TAKING, SERVING = "starting", "waiting", "taking", "serving"


class Leader:
    """States: starting, serving; a spare's are starting, waiting (all loaded), taking (told to take over), starting
    (it has heard it), serving.

    Serving and waiting, it is pinged, and silence counts. Only as much silence counts between two looks as there
    should have been: a Keeper that was itself stopped for an hour has not been listening. A process that starts is
    busy and answers nothing, but it should not be stopped, and not take for ever.
    """

    def __init__(self, child: Child, line: Line, policy: Policy, now: float):
        self.child = child
        self.line: Line | None = line
        self.born = now
        self.deaths_told = True
        self.served_since: float | None = None
        self._policy = policy
        self._every_s = min(PING_S, policy.hang_s / 3) if policy.hang_s else PING_S
        self._number = self._answered = 0
        self.enter(STARTING, now)

    def enter(self, state: str, now: float) -> None:
        self.state = state
        self.since = self._looked = now
        self.look_at = now + (TAKE_S if state == TAKING else self._every_s)
        self._silence_s = 0.0
        self._unanswered = False
        if state == SERVING and self.served_since is None:
            self.served_since = now

    def answered(self, number: object) -> None:
        """A pong, perhaps a late one: whoever lags still answers. One that was heard before tells nothing new."""
        if isinstance(number, int) and self._answered < number <= self._number:
            self._answered, self._silence_s = number, 0.0
            self._unanswered = number < self._number

    def look(self, now: float) -> str:
        """Ping it, or see how it comes along; due at `look_at`. Why it must be replaced, or nothing."""
        passed = min(now - self._looked, 1.5 * self._every_s)
        self._looked = now
        self.look_at = now + self._every_s
        if self.state == TAKING:
            return "it does not take over"
        if self.state == STARTING:
            return self._look_at_start(now, passed)
        if self._unanswered:
            self._silence_s += passed
        if self._policy.hang_s and self._silence_s >= self._policy.hang_s:
            return f"it has not answered for {self._silence_s:.1f} s"
        self._ping()
        return ""

    def _look_at_start(self, now: float, passed: float) -> str:
        if now - self.since >= self._policy.start_s:
            return f"it is not ready after {self._policy.start_s:g} s"
        fields = tree.stat_fields(self.child.pid)
        stopped = fields is not None and fields[0] == "T"  # "t" is a debugger's
        self._silence_s = self._silence_s + passed if stopped else 0.0
        if self._policy.hang_s and self._silence_s >= self._policy.hang_s:
            return f"it has been stopped for {self._silence_s:.1f} s"
        return ""

    def _ping(self) -> None:
        """Unless the last one still waits here: it does not read."""
        self._unanswered = True
        if self.line is not None and not self.line.waiting:
            self._number += 1
            self.line.say({"op": "ping", "n": self._number})
