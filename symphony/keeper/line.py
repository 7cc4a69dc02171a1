"""The Keeper's end of the socket to a Conductor: what cannot be sent now waits here, never the Keeper."""

from __future__ import annotations

import collections
import select
import socket
import time
from collections.abc import Callable
from typing import Any

from symphony.bus import packet

RETRY_S = 0.01
"""Until descriptors are offered again that the kernel would not pass: no event tells when it would."""
BACKLOG = 4096
"""Messages that wait for a Conductor that does not read; beyond, it is not listened to either."""

Letter = Callable[[], "tuple[dict[str, Any], tuple[int, ...]] | None"]
"""Makes a message and its descriptors when it is sent, since a descriptor may be closed while it waits. None: not any
more."""


class Line:
    """One socket, with a queue out. Its events are the owner's to watch: `events()` after every turn."""

    def __init__(self, connection: socket.socket):
        connection.setblocking(False)
        self.connection: socket.socket | None = connection
        self.retry_at: float | None = None
        self.watched_events = 0
        self._unsent: collections.deque[bytes | Letter] = collections.deque()
        self._full = False

    def fileno(self) -> int:
        return self.connection.fileno() if self.connection is not None else -1

    @property
    def waiting(self) -> int:
        return len(self._unsent)

    def events(self) -> int:
        listening = select.EPOLLIN if len(self._unsent) < BACKLOG else 0
        return listening | (select.EPOLLOUT if self._full else 0)

    def say(self, message: dict[str, Any]) -> None:
        self._queue(packet.encode(message))

    def post(self, letter: Letter) -> None:
        self._queue(letter)

    def _queue(self, what: bytes | Letter) -> None:
        if self.connection is not None:
            self._unsent.append(what)
            self.flush()

    def flush(self) -> None:
        """Send what goes without waiting, in order."""
        self._full, self.retry_at = False, None
        while self._unsent and self.connection is not None:
            try:
                self._send(self._unsent[0])
            except BlockingIOError:
                self._full = True
                return
            except OSError as error:
                if error.errno in packet.NOT_NOW:
                    self.retry_at = time.monotonic() + RETRY_S
                    return
                self._unsent.clear()  # it is gone; its end of file, or its death, is told elsewhere
                return
            self._unsent.popleft()

    def _send(self, what: bytes | Letter) -> None:
        if isinstance(what, bytes):
            packet.send(self.connection, what)
            return
        made = what()
        if made is not None:
            packet.send(self.connection, packet.encode(made[0]), made[1])

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """As `packet.receive`; None, too, when the connection broke."""
        try:
            return packet.receive(self.connection)
        except BlockingIOError:
            raise
        except OSError:
            return None

    def close(self) -> None:
        self._unsent.clear()
        if self.connection is not None:
            self.connection.close()
            self.connection = None
