"""What counts as text, in one place: walking and reading must agree on it, or a listed file could not be read."""

from __future__ import annotations

import os
import stat

LIMIT_BYTES = 1 << 20
PROBE_BYTES = 8000  # as far as git looks for a NUL when it tells binary from text


class NotText(ValueError):
    """The file is binary. The message names it."""


class TooLarge(ValueError):
    """The file is larger than the limit. The message names file, size and limit."""


def opener(path: str, flags: int) -> int:
    """For `open`: never waits for the other side of a fifo."""
    return os.open(path, flags | os.O_NONBLOCK)


def opener_of_files(path: str, flags: int) -> int:
    """For `open`: as `opener`, and a symbolic link raises `OSError`."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def look(path: str, limit_bytes: int, *, follow: bool = False) -> tuple[str, int]:
    """Say what `path` is: ("", size) for text, else (reason, size). Reads at most `PROBE_BYTES`."""
    try:
        descriptor = (opener if follow else opener_of_files)(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return "unreadable", 0
    try:
        about = os.fstat(descriptor)
        if not stat.S_ISREG(about.st_mode):
            return "not a file", 0
        if about.st_size > limit_bytes:
            return "huge", about.st_size
        return ("binary" if b"\0" in os.read(descriptor, PROBE_BYTES) else ""), about.st_size
    except OSError:
        return "unreadable", 0
    finally:
        os.close(descriptor)


def read_text(path: str, limit_bytes: int = LIMIT_BYTES) -> tuple[str, dict]:
    """Read one file whole as (text, summary).

    summary: {file, size_bytes, encoding ("utf-8"), replaced (characters that stand for bytes that were not UTF-8)}.
    Raises `OSError` (missing, a folder, no rights), `NotText`, `TooLarge`. One copy of the file is held while it runs.
    """
    with open(path, "rb", opener=opener) as file:
        about = os.fstat(file.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise NotText(f"{path} is neither a file nor a link to one: give the path of a text file")
        # One byte more than allowed: a file that grows while it is read is caught as well.
        raw = file.read(limit_bytes + 1)
    if len(raw) > limit_bytes:
        size = max(about.st_size, len(raw))
        raise TooLarge(f"{path} has {size} bytes, more than limit_bytes = {limit_bytes}: raise the limit to read it")
    if b"\0" in raw[:PROBE_BYTES]:
        raise NotText(f"{path} is binary (it holds NUL bytes): only text can be read")
    try:
        text, replaced = raw.decode("utf-8"), 0
    except UnicodeDecodeError:
        text = raw.decode("utf-8", errors="replace")
        replaced = text.count("\ufffd") - raw.count("\ufffd".encode())
    return text, {"file": path, "size_bytes": len(raw), "encoding": "utf-8", "replaced": replaced}
