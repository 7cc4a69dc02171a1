"""What the control door and its clients say to each other, and how it lies on the socket.

It stands apart from the door because a client must speak it without importing the Conductor. A packet of a
SEQPACKET socket is one msgpack map of at most PACKET_BYTES. A longer message travels as a sealed memfd beside
the packet {"memfd": size}: the receiver gets memory that nobody can change or shorten any more.

    request   {"op": text, "id": int, ...}             answer   {"id": int, "ok": value}
                                                                {"id": int, "error": errors.to_wire(error)}

The first request of a connection is {"op": "hello", "secret": bytes, "version": VERSION}.
"""

import contextlib
import fcntl
import mmap
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from symphony.model import limits
from symphony.model.errors import DoorError
from symphony.shmem import names

VERSION = 1
SOCKET_NAME = "door"
SECRET_NAME = "secret"
PACKET_BYTES = limits.DOOR_BYTES
"""The longest packet; what is longer goes into a memfd."""
HELLO_BYTES = 4096
"""The longest packet that a client may send before it has shown the secret."""
DESCRIPTORS = 4
"""Descriptors that one packet is searched for; more are a breach and end the connection."""
SECRET_BYTES = 32

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE

_ancillary_bytes = socket.CMSG_SPACE(DESCRIPTORS * 4)
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder()


class Closed(DoorError):
    """The other side of the connection has gone."""


def pack(message: dict[str, Any]) -> tuple[bytes, int | None]:
    """Encode `message`; returns (packet, descriptor).

    The descriptor is None, or a sealed memfd that the caller owns and closes once the packet is sent. Costs one
    copy of the message. Raises TypeError for a value that msgpack has no form for.
    """
    body = _encoder.encode(message)
    if len(body) <= PACKET_BYTES:
        return body, None
    descriptor = _sealed(body)
    return _encoder.encode({"memfd": len(body)}), descriptor


def _sealed(body: bytes) -> int:
    descriptor = os.memfd_create("symphony-door", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        left = memoryview(body)
        while left:
            left = left[os.write(descriptor, left) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def transmit(sock: socket.socket, packet: bytes, descriptor: int | None) -> None:
    """Send one packet whole. Raises BlockingIOError when a non-blocking socket is full, Closed when the peer went."""
    descriptors = [] if descriptor is None else [descriptor]
    try:
        socket.send_fds(sock, [packet], descriptors, socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError, ConnectionRefusedError) as error:
        raise Closed("the other side closed the connection") from error


def receive(sock: socket.socket, limit: int = PACKET_BYTES) -> tuple[bytes, list[int]]:
    """Receive one packet; returns (packet, descriptors), the descriptors being the caller's to close.

    Raises Closed at the end of the connection, DoorError for a packet longer than `limit` or with more than
    DESCRIPTORS descriptors (all of them are closed then), BlockingIOError when a non-blocking socket is empty.
    """
    try:
        packet, ancillary, flags, _ = sock.recvmsg(limit, _ancillary_bytes, socket.MSG_CMSG_CLOEXEC)
    except (ConnectionResetError, BrokenPipeError) as error:
        raise Closed("the other side closed the connection") from error
    descriptors = _descriptors(ancillary)
    fault = None
    if flags & socket.MSG_CTRUNC:
        fault = f"a packet carried more than {DESCRIPTORS} descriptors"
    elif flags & socket.MSG_TRUNC:
        fault = f"a packet is longer than {limit} bytes"
    if fault is None and packet:
        return packet, descriptors
    close_all(descriptors)
    if fault is None:
        raise Closed("the other side closed the connection")
    raise DoorError(fault)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found: list[int] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(data) // 4 * 4
            found.extend(int.from_bytes(data[i : i + 4], "little", signed=True) for i in range(0, whole, 4))
    return found


def close_all(descriptors: list[int]) -> None:
    """Close every descriptor of the list."""
    for descriptor in descriptors:
        os.close(descriptor)


def unpack(packet: bytes, descriptors: list[int], limit: int, *, mapped: bool = False) -> dict[str, Any]:
    """Decode a received packet and close its descriptors, whatever happens.

    A memfd is accepted only when the packet announces it, exactly one came, its size is the announced one and at
    most `limit` bytes, and it is sealed against writing, growing and shrinking. With `mapped` the message is
    decoded from a map of it (no copy, for a peer that is trusted: memory of huge pages may fail at access);
    otherwise it is read into private memory. Raises DoorError.
    """
    try:
        message = _decode(packet)
        if "memfd" not in message:
            if descriptors:
                raise DoorError("a packet carried a descriptor that nobody asked for")
            return message
        return _decode(_read_sealed(message["memfd"], descriptors, limit, mapped))
    finally:
        close_all(descriptors)


def _decode(body: Any) -> dict[str, Any]:
    try:
        message = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, ValueError) as error:
        raise DoorError(f"a message is not valid msgpack: {error}") from None
    if not isinstance(message, dict):
        raise DoorError("a message is not a map")
    return message


def _read_sealed(size: Any, descriptors: list[int], limit: int, mapped: bool) -> Any:
    if type(size) is not int or not 0 < size <= limit:
        raise DoorError(f"a memfd of {size!r} bytes is announced; from 1 to {limit} are taken")
    if len(descriptors) != 1:
        raise DoorError(f"one descriptor is announced, {len(descriptors)} came")
    descriptor = descriptors[0]
    try:
        seals = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS)
    except OSError:
        raise DoorError("the descriptor is not a memfd") from None
    if seals & SEALS != SEALS:
        raise DoorError("the memfd is not sealed against writing, growing and shrinking")
    if os.fstat(descriptor).st_size != size:
        raise DoorError("the memfd has another size than announced")
    if mapped:
        return mmap.mmap(descriptor, size, mmap.MAP_PRIVATE, mmap.PROT_READ)
    return _read(descriptor, size)


def _read(descriptor: int, size: int) -> bytearray:
    body = bytearray(size)
    view = memoryview(body)
    done = 0
    while done < size:
        count = os.preadv(descriptor, [view[done:]], done)
        if count == 0:
            raise DoorError("the memfd ended early")
        done += count
    return body


def directory_of(name: str) -> Path:
    """Where an engine's door is, if it runs; not made. Raises UsageError for a name that cannot be, NotAllowed when
    the folder of all engines is another user's: its door might be a trap."""
    names.check_instance_name(name)
    return names.base_if_there() / name


@contextlib.contextmanager
def folder_address(directory: Path, file: str) -> Iterator[str]:
    """A socket's address through a descriptor of its folder: a path longer than 107 bytes would not fit."""
    descriptor = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{file}"
    finally:
        os.close(descriptor)
