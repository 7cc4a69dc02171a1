"""Messages with descriptors, one msgpack map a packet of a SEQPACKET socket: Conductor, Keeper, extensions."""

from __future__ import annotations

import array
import errno
import os
import socket
from typing import Any

import msgspec

MESSAGE_BYTES = 1 << 17
DESCRIPTORS = 16
"""Most descriptors of one packet."""
NOT_NOW = frozenset({errno.EAGAIN, errno.ETOOMANYREFS, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors of `send` after which the same packet may go through later: when the peer has read, or has closed some."""
_FD_BYTES = array.array("i").itemsize
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class CutShort(ValueError):
    """A message came without all of its descriptors: this process can open no more, or they were more than
    DESCRIPTORS. Those that did come are closed; `message` is what it said."""

    def __init__(self, message: dict[str, Any]):
        super().__init__(f"message {message.get('op')!r} came without all of its descriptors: none is free here")
        self.message = message


def encode(message: dict[str, Any]) -> bytes:
    data = _encode(message)
    if len(data) > MESSAGE_BYTES:
        raise ValueError(f"message {message.get('op')!r} has {len(data)} bytes; at most {MESSAGE_BYTES} fit a packet")
    return data


def send(connection: socket.socket, data: bytes, fds: tuple[int, ...] = ()) -> None:
    """One packet. Raises BlockingIOError if the peer does not read, OSError with a number of NOT_NOW if it may go
    through later, ConnectionError if the peer is gone."""
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    connection.sendmsg([data], control, socket.MSG_NOSIGNAL)


def receive(connection: socket.socket, limit: int = MESSAGE_BYTES) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and the descriptors that came with it, which belong to the caller; None at the peer's end.
    Raises BlockingIOError on a non-blocking socket with nothing to read, ValueError on a packet that is no message,
    CutShort on one that lost descriptors."""
    room = socket.CMSG_SPACE(DESCRIPTORS * _FD_BYTES)
    data, control, flags, _ = connection.recvmsg(limit, room, socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, payload in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(payload[: len(payload) - len(payload) % _FD_BYTES])
            fds += numbers
    if not data:
        return None
    try:
        message = _message(data, flags)
    except ValueError:
        for fd in fds:
            os.close(fd)
        raise
    return message, fds


def _message(data: bytes, flags: int) -> dict[str, Any]:
    try:
        message = _decode(data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a message: {error}") from error
    if flags & socket.MSG_TRUNC or not isinstance(message, dict):
        raise ValueError("not a message: packet is cut short or is no map")
    if flags & socket.MSG_CTRUNC:
        raise CutShort(message)
    return message
