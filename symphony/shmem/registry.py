"""Which segments an engine has: a folder with one empty file a name.

A name is entered before its segment exists and leaves after the segment is gone, so that whatever a crash leaves is
listed. Any process of the user may read it; the engine's own processes write it.
"""

import contextlib
import os
from pathlib import Path

from symphony.model.errors import SegmentExists
from symphony.shmem.names import runtime_directory


class Registry:
    """The registry of one engine. Safe from any thread and process: every change is one system call."""

    def __init__(self, instance: str) -> None:
        self.folder: Path = runtime_directory(instance) / "segments"
        self.folder.mkdir(mode=0o700, exist_ok=True)

    def enter(self, name: str) -> None:
        """List a segment that is about to be made. Raises SegmentExists when it is listed already."""
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            os.close(os.open(self.folder / name.lstrip("/"), flags, 0o600))
        except FileExistsError:
            raise SegmentExists(f"a segment {name} is listed in {self.folder} already", name=name) from None

    def leave(self, name: str) -> None:
        """Strike out a segment that is gone. Again is harmless."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.folder / name.lstrip("/"))

    def names(self) -> list[str]:
        """POSIX names of the segments listed, sorted; some may be about to exist or just gone."""
        try:
            return sorted("/" + name for name in os.listdir(self.folder))
        except FileNotFoundError:
            return []
