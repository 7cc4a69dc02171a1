"""What the Keeper keeps under a token: which process it is, how it ended, and the descriptors deposited with it.

It outlives the process, and the Conductor: the next one still has to empty the rings of what died in between. It ends
when the Conductor says `forget`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from symphony.bus import packet

RECORDS = 16384
"""As many as an engine has segments; a Conductor that never forgets is refused then."""
WORDS_KEPT = 2048
"""Last words of the dead that are kept for the next Conductor; the `died` message bears all of them."""


@dataclass(slots=True)
class Record:
    token: int
    name: str = ""
    pid: int = 0
    start: int = 0
    alive: bool = False
    status: int = 0
    signal: int = 0
    last_words: str = ""
    spawned: bool = False
    forgotten: bool = False
    deposit: dict[str, int] = field(default_factory=dict)

    def lives(self, pid: int, start: int) -> None:
        self.pid, self.start, self.alive = pid, start, True

    def failed(self, why: str) -> None:
        self.status, self.last_words = -1, why[:WORDS_KEPT]

    def died(self, status: int, last_words: str) -> None:
        """`status` is what waitpid gave."""
        self.alive = False
        self.signal = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        self.status = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -self.signal
        self.last_words = last_words[-WORDS_KEPT:]

    def take(self, names: list[str], fds: list[int]) -> list[int]:
        """Keep the descriptors; those they replace are the caller's to close."""
        replaced = [self.deposit[name] for name in names if name in self.deposit]
        self.deposit.update(zip(names, fds, strict=True))
        return replaced

    def letters(self) -> Iterator[list[str]]:
        """The names of the deposit in pieces that fit a packet each; one piece at least."""
        names = list(self.deposit)
        for first in range(0, max(1, len(names)), packet.DESCRIPTORS):
            yield names[first : first + packet.DESCRIPTORS]

    def inherit(self, names: list[str], n: int) -> tuple[dict[str, Any], tuple[int, ...]]:
        """An `inherit` message as things stand now, and the descriptors that go with it."""
        names = [name for name in names if name in self.deposit]
        message = {
            "op": "inherit", "n": n, "token": self.token, "name": self.name, "pid": self.pid, "start": self.start,
            "alive": self.alive, "status": self.status, "signal": self.signal, "last_words": self.last_words,
            "names": names,
        }  # fmt: skip
        return message, tuple(self.deposit[name] for name in names)
