"""What a child prints: kept short in memory as its last words, and copied to a log file that stays small."""

from __future__ import annotations

import os

LAST_WORDS_BYTES = 8192
LOG_BYTES = 1 << 20
_READ_BYTES = 1 << 16


class Output:
    """One child's standard output and error, joined in one pipe. A child that floods it is slowed by the pipe alone:
    each turn reads one bounded piece."""

    def __init__(self, fd: int, path: str | None):
        os.set_blocking(fd, False)
        self.fd = fd
        self._path = path
        self._log = -1
        self._written = 0
        self._tail = bytearray()
        if path:
            self._open_log()

    def _open_log(self) -> None:
        try:
            os.makedirs(os.path.dirname(self._path) or ".", mode=0o700, exist_ok=True)
            self._log = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            self._written = os.fstat(self._log).st_size
        except OSError as error:
            self._tail += f"[keeper: no log at {self._path}: {error}]\n".encode()

    def read(self) -> int:
        """Take one piece and say how long it was: 0 when every writer has closed its end, -1 when none is there yet."""
        try:
            piece = os.read(self.fd, _READ_BYTES)
        except BlockingIOError:
            return -1
        except OSError:
            return 0
        self._tail += piece
        del self._tail[:-LAST_WORDS_BYTES]
        self._write(piece)
        return len(piece)

    def drain(self) -> None:
        """Take what lies in the pipe now, at most one log's length: a survivor may print for ever."""
        for _ in range(LOG_BYTES // _READ_BYTES):
            if self.read() <= 0:
                return

    def _write(self, piece: bytes) -> None:
        if self._log < 0:
            return
        try:
            if self._written + len(piece) > LOG_BYTES:
                os.close(self._log)
                self._log = -1
                os.replace(self._path, self._path + ".1")
                self._open_log()
            self._written += os.write(self._log, piece)
        except OSError as error:
            self._tail += f"[keeper: log {self._path}: {error}]\n".encode()
            if self._log >= 0:
                os.close(self._log)
                self._log = -1

    def last_words(self) -> str:
        return self._tail.decode("utf-8", "replace").strip()

    def close(self) -> None:
        for fd in (self.fd, self._log):
            if fd >= 0:
                os.close(fd)
        self.fd = self._log = -1
