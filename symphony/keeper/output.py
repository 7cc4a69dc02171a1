"""What a child prints: kept short in memory as its last words, and copied to a log file that stays small."""

from __future__ import annotations

import os

LAST_WORDS_BYTES = 8192
LOG_BYTES = 1 << 20
_READ_BYTES = 1 << 16


class Log:
    """A log file of at most LOG_BYTES, and the one before it as `.1`. What cannot be written is dropped, with one
    complaint. Several outputs may share one."""

    def __init__(self, path: str):
        self.path = path
        self._fd = -1
        self._written = 0
        self._early: bytearray | None = bytearray()

    def open(self) -> str:
        """Begin to write, what was held back first. Until then the folder need not be there. Returns a complaint."""
        early, self._early = self._early, None
        complaint = self._open()
        return complaint or (self.write(bytes(early)) if early else "")

    def _open(self) -> str:
        try:
            os.makedirs(os.path.dirname(self.path) or ".", mode=0o700, exist_ok=True)
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._written = os.fstat(self._fd).st_size
        except OSError as error:
            return f"[keeper: no log at {self.path}: {error}]\n"
        return ""

    def write(self, piece: bytes) -> str:
        """Returns a complaint, once, when it cannot."""
        if self._early is not None:
            self._early += piece
            del self._early[:-_READ_BYTES]
            return ""
        if self._fd < 0:
            return ""
        try:
            if self._written + len(piece) > LOG_BYTES:
                self.close()
                os.replace(self.path, self.path + ".1")
                if complaint := self._open():
                    return complaint
            self._written += os.write(self._fd, piece)
        except OSError as error:
            self.close()
            return f"[keeper: log {self.path}: {error}]\n"
        return ""

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Output:
    """One child's standard output and error, joined in one pipe. A child that floods it is slowed by the pipe alone:
    each turn reads one bounded piece."""

    def __init__(self, fd: int, path: str | None, shared: Log | None = None):
        """The log is `shared`, which its maker opens and closes, or one of its own at `path`, or none."""
        os.set_blocking(fd, False)
        self.fd = fd
        self._own = Log(path) if path and shared is None else None
        self._log = shared or self._own
        self._tail = bytearray(self._own.open().encode() if self._own is not None else b"")

    def read(self) -> int:
        """Take one piece and say how long it was: 0 when every writer has closed its end, -1 when none is there yet."""
        try:
            piece = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return -1
        except OSError:
            return 0
        self._tail += piece
        if self._log is not None:
            self._tail += self._log.write(piece).encode()
        del self._tail[:-LAST_WORDS_BYTES]
        return len(piece)

    def drain(self) -> None:
        """Take what lies in the pipe now, at most one log's length: a survivor may print for ever."""
        for _ in range(LOG_BYTES // _READ_BYTES):
            if self.read() <= 0:
                return

    def last_words(self) -> str:
        return self._tail.decode("utf-8", "replace").strip()

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self._own is not None:
            self._own.close()
