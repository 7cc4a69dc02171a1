"""The one place that makes names: of segments, of engines, of runtime folders. A name tells its owner."""

import os
import re
import secrets
import stat
from pathlib import Path

from symphony.model.errors import NotAllowed, UsageError

_INSTANCE = re.compile(r"[a-z0-9][a-z0-9._-]{0,30}")
_KIND = re.compile(r"[a-z]{1,12}")
_SEGMENT = re.compile(r"/?symphony\.(\d+)\.(.+)\.([a-z]{1,12})\.([0-9a-f]{16})")


def check_instance_name(name: str) -> str:
    """The same name, if an engine may bear it; raises UsageError."""
    if not _INSTANCE.fullmatch(name):
        raise UsageError(
            f"an engine cannot be named {name!r}: 1 to 31 of a-z, 0-9, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    return name


def segment_name(instance: str, kind: str) -> str:
    """A fresh POSIX name: /symphony.<uid>.<instance>.<kind>.<64 random bits>."""
    check_instance_name(instance)
    if not _KIND.fullmatch(kind):
        raise UsageError(f"a segment's kind cannot be {kind!r}")
    return f"/symphony.{os.getuid()}.{instance}.{kind}.{secrets.token_hex(8)}"


def told_by(name: str) -> tuple[int, str, str] | None:
    """What a segment's name tells: (uid, instance, kind); None when it is none of ours."""
    found = _SEGMENT.fullmatch(name)
    return (int(found[1]), found[2], found[3]) if found else None


def base_path() -> Path:
    """Where the folder of all engines of this user is or would be; nothing is made or checked."""
    chosen = os.environ.get("SYMPHONY_RUNTIME_DIR")
    if chosen:
        return Path(chosen)
    if os.environ.get("XDG_RUNTIME_DIR"):
        return Path(os.environ["XDG_RUNTIME_DIR"]) / "symphony"
    return Path(f"/tmp/symphony-{os.getuid()}")


def base_if_there() -> Path:
    """The same folder: checked to be this user's if it is there, and not made. Raises NotAllowed."""
    base = base_path()
    try:
        there = base.exists()
    except OSError as error:
        raise NotAllowed(
            f"the runtime folder {base} cannot be reached: {error.strerror}; set SYMPHONY_RUNTIME_DIR"
        ) from None
    return runtime_base() if there else base


def runtime_base() -> Path:
    """Folder of all engines of this user; made 0700 if need be. Raises NotAllowed when it is another user's."""
    return _own(base_path())


def runtime_directory(instance: str) -> Path:
    """The engine's 0700 runtime folder, made if need be. Raises NotAllowed, UsageError."""
    return _own(runtime_base() / check_instance_name(instance))


def _own(path: Path) -> Path:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = path.lstat()
    except OSError as error:
        raise NotAllowed(
            f"the runtime folder {path} cannot be made: {error.strerror}; set SYMPHONY_RUNTIME_DIR"
        ) from None
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise NotAllowed(f"{path} is not a folder of this user's; set SYMPHONY_RUNTIME_DIR to one")
    if status.st_mode & 0o077:
        os.chmod(path, 0o700)
    return path
