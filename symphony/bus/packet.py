"""Messages with descriptors, one msgpack map a packet of a SEQPACKET socket: Conductor, Keeper, extensions."""

from __future__ import annotations

import array
import os
import socket
from typing import Any

import msgspec

MESSAGE_BYTES = 1 << 17
_FD_BYTES = array.array("i").itemsize
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def encode(message: dict[str, Any]) -> bytes:
    data = _encode(message)
    if len(data) > MESSAGE_BYTES:
        raise ValueError(f"message {message.get('op')!r} has {len(data)} bytes; at most {MESSAGE_BYTES} fit a packet")
    return data


def send(connection: socket.socket, data: bytes, fds: tuple[int, ...] = ()) -> None:
    """One packet. Raises BlockingIOError if the peer does not read, ConnectionError if it is gone."""
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    connection.sendmsg([data], control, socket.MSG_NOSIGNAL)


def receive(connection: socket.socket, limit: int = MESSAGE_BYTES) -> tuple[dict[str, Any], list[int]] | None:
    """The next message and the descriptors that came with it, which belong to the caller; None at the peer's end.
    Raises BlockingIOError on a non-blocking socket with nothing to read, ValueError on a packet that is no message."""
    data, control, flags, _ = connection.recvmsg(limit, socket.CMSG_SPACE(16 * _FD_BYTES), socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, payload in control:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(payload[: len(payload) - len(payload) % _FD_BYTES])
            fds += numbers
    if not data:
        return None
    try:
        message = _decode(data)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) or not isinstance(message, dict):
            raise ValueError("packet is cut short or is no map")
    except (ValueError, msgspec.MsgspecError) as error:
        for fd in fds:
            os.close(fd)
        raise ValueError(f"not a message: {error}") from error
    return message, fds
