"""Closing what is large elsewhere. The last reference to a GiB of shared memory takes 142 ms to close, in which a
death would go unseen: the Keeper passes such descriptors to a process whose only work it is to close them."""

from __future__ import annotations

import array
import collections
import ctypes
import os
import signal
import socket

LARGE_BYTES = 1 << 20
_MANY = 16
_DEATH_SIGNAL = 1


class Reaper:
    """Starts with the first descriptor that it gets, and again should it have been killed. If it cannot be started,
    or does not keep up, the Keeper holds on to the descriptors and tries again (`flush`)."""

    def __init__(self) -> None:
        self.pid = 0
        self._socket: socket.socket | None = None
        self._waiting: collections.deque[int] = collections.deque()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def close(self, fd: int) -> None:
        """Close it: here if it is small, otherwise elsewhere."""
        if os.fstat(fd).st_size < LARGE_BYTES:
            os.close(fd)
        else:
            self._waiting.append(fd)
            self.flush()

    def flush(self) -> None:
        """Pass on what waits, as far as it goes without waiting."""
        try:
            while self._waiting:
                self._pass_some()
        except ConnectionError:
            self._lose()
        except OSError:
            pass  # the kernel passes no more now, or starts no process: the next turn tries again

    def _pass_some(self) -> None:
        if self._socket is None:
            self._start()
        some = [self._waiting[index] for index in range(min(_MANY, len(self._waiting)))]
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", some))]
        self._socket.sendmsg([b"x"], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        for _ in some:
            os.close(self._waiting.popleft())

    def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            raise
        if not self.pid:
            _reap(theirs.fileno())
        theirs.close()
        self._socket = ours

    def collected(self, pid: int) -> None:
        """A process of this pid has ended; perhaps it was the reaper."""
        if pid == self.pid:
            self._lose()

    def _lose(self) -> None:
        self.pid = 0
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def end(self) -> None:
        """Leave it to close what it has, and to end then. What still waits is closed here."""
        while self._waiting:
            os.close(self._waiting.popleft())
        self._lose()


def _reap(fd: int) -> None:
    """The process's whole life: close what comes until the Keeper is gone. Never returns."""
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        for name in os.listdir("/proc/self/fd"):
            if int(name) != fd:
                try:
                    os.close(int(name))
                except OSError:
                    pass  # the listing's own
        connection = socket.socket(fileno=fd)
        connection.setblocking(True)
        while _close_some(connection):
            pass
    finally:
        os._exit(0)


def _close_some(connection: socket.socket) -> bool:
    numbers = array.array("i")
    data, control, _, _ = connection.recvmsg(1, socket.CMSG_SPACE(_MANY * numbers.itemsize))
    for _, _, payload in control:
        numbers.frombytes(payload)
    for number in numbers:
        os.close(number)
    return bool(data)
