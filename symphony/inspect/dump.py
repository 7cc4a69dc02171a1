"""A segment copied into a file that the inspector reads like the segment; holes stay holes."""

import contextlib
import os
from pathlib import Path
from typing import Any

from symphony.inspect.memory import Memory
from symphony.model.errors import NotAllowed, UsageError

PIECE_BYTES = 1 << 20


def dump(memory: Memory, target: str | os.PathLike[str]) -> dict[str, Any]:
    """Copy a segment into a new file of mode 0600, complete or not there at all. Of a live engine it is no snapshot:
    what changes during the copy is copied before or after. Costs only what has been written, not what is reserved.

    Raises UsageError when the file exists already, NotAllowed when it cannot be written.
    """
    path = Path(target)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            written = _copy(memory, descriptor)
        finally:
            os.close(descriptor)
        # A link, not a renaming: what somebody has put there meanwhile stays.
        os.link(unfinished, path)
    except FileExistsError:
        raise UsageError(f"{path} is there already: choose another name") from None
    except OSError as error:
        raise NotAllowed(f"{path} cannot be written: {error.strerror}") from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(unfinished)
    return {"segment": memory.name, "file": str(path), "size_bytes": memory.size, "written_bytes": written}


def _copy(memory: Memory, descriptor: int) -> int:
    os.ftruncate(descriptor, memory.size)
    written = 0
    for begin, end in memory.extents:
        for at in range(begin, end, PIECE_BYTES):
            data = memory.read(at, min(PIECE_BYTES, end - at))
            done = 0
            while done < len(data):
                done += os.pwrite(descriptor, data[done:], at + done)
            written += len(data)
    return written
