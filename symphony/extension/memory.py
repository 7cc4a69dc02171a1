"""The socket to the Conductor as an extension sees it: the hello with the channel's descriptors, then grants."""

from __future__ import annotations

import mmap
import os
import select
import socket
import time
from typing import Any

from symphony.bus import packet
from symphony.model.errors import ExtensionError

HELLO_S = 30.0
GRANT_S = 30.0


class ConductorGone(Exception):
    """The Conductor closed its end: there is nobody to work for."""


class Grants:
    """Maps what the Conductor grants, read-only, and unmaps what it takes back; a map that a handler still looks at
    stays until it lets go."""

    def __init__(self, connection: socket.socket):
        connection.setblocking(False)
        self._connection = connection
        self.channel: Any = None

    def hello(self) -> tuple[dict[str, Any], list[int]]:
        """The first message. Raises ExtensionError if none comes in time or it is something else."""
        received = self._await(time.monotonic() + HELLO_S)
        if received is None or received[0].get("op") != "hello" or len(received[1]) != 3:
            raise ExtensionError("the Conductor did not say hello with its three descriptors within 30 s")
        return received

    def take(self) -> None:
        """Whatever has come by now; never blocks. Raises ConductorGone at the end of file."""
        while (received := self._receive()) is not None:
            self._apply(*received)

    def missing(self, segment: int) -> None:
        """A dispatch names a segment that is not mapped: its grant is on its way. Raises ExtensionError after 30 s."""
        deadline = time.monotonic() + GRANT_S
        while True:
            received = self._await(deadline)
            if received is None:
                raise ExtensionError(f"segment {segment} was not granted within {GRANT_S:.0f} s")
            if self._apply(*received) == segment:
                return

    def _await(self, deadline: float) -> tuple[dict[str, Any], list[int]] | None:
        while True:
            received = self._receive()
            left = deadline - time.monotonic()
            if received is not None or left <= 0:
                return received
            select.select([self._connection], [], [], left)

    def _receive(self) -> tuple[dict[str, Any], list[int]] | None:
        try:
            received = packet.receive(self._connection)
        except BlockingIOError:
            return None
        except ConnectionError:
            received = None
        if received is None:
            raise ConductorGone
        return received

    def _apply(self, message: dict[str, Any], fds: list[int]) -> int | None:
        """Act on a message; the segment that it granted, if it did."""
        try:
            if message.get("op") == "grant" and fds:
                self.channel.add_segment(message["segment"], mmap.mmap(fds[0], message["size"], prot=mmap.PROT_READ))
                return message["segment"]
            if message.get("op") == "forget":
                self.channel.forget(message["segment"])
            return None
        finally:
            for fd in fds:
                os.close(fd)


def map_channel(fds: list[int], geometry: dict[str, int]) -> tuple[mmap.mmap, mmap.mmap]:
    """The channel's two segments: out read-only, in read-write. The descriptors are closed."""
    out = mmap.mmap(fds[0], geometry["out_size"], prot=mmap.PROT_READ)
    own = mmap.mmap(fds[1], geometry["in_size"])
    os.close(fds[0])
    os.close(fds[1])
    return out, own
