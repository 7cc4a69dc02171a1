"""What an engine that was killed leaves behind, found and taken away: segments, sockets, its runtime folder.

An engine's name is *claimed* by an owner file in its runtime folder: which processes it is made of, each told by
pid, start time and boot, since a pid alone may be another process by now. Nothing is taken while one of them lives,
nor while the maker of a segment of that name lives, nor what belongs to another user, nor where it cannot be told
(another pid namespace). Claiming, judging and sweeping happen under one lock of the runtime base, so that two starts
and a clean at once cannot take each other's for an earlier life's.

Pure Python, no NumPy: the command line uses it too.
"""

import contextlib
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from symphony.model.errors import EngineExists, NotAllowed, NothingToRecover, WaitTimeout
from symphony.shmem import names

OWNER_FILE = "owner"
SHM = Path("/dev/shm")
LOCK_S = 10.0
YOUNG_S = 60.0
"""Leavings that do not tell their owner are believed to be somebody's who is only starting, for this long."""

LIVE, DEAD, UNKNOWN = "live", "dead", "unknown"

_SEGMENT = re.compile(r"symphony\.(\d+)\.(.+)\.([a-z]+)\.([0-9a-f]{16})")
_STAMP = struct.Struct("<QIIQQQQII16s32sQQQIIQ")
"""The stamp's fields: magic, abi, kind, fingerprint, size, generation, owner's start, pid, regions, boot id, instance,
heartbeat, state, Keeper's start, pid, stays, pid namespace."""
_GONE = ".gone."
"""A runtime folder that is being taken away; the dot keeps it from being an engine's name."""
_MAGIC = int.from_bytes(b"SYMPHONY", "little")


@dataclass(frozen=True)
class Process:
    """A process, told apart from a later one of the same pid."""

    pid: int
    start: int
    boot_id: str
    namespace: int = 0

    @classmethod
    def of(cls, pid: int) -> "Process":
        """The process that has this pid now. Raises ProcessLookupError."""
        start = start_time(pid)
        if start is None:
            raise ProcessLookupError(f"no process {pid}")
        return cls(pid, start, boot_id(), pid_namespace())

    def judge(self) -> str:
        """LIVE, DEAD, or UNKNOWN when its pid is of a namespace that this process does not see."""
        if self.boot_id != boot_id():
            return DEAD
        if self.namespace and self.namespace != pid_namespace():
            return UNKNOWN
        return LIVE if start_time(self.pid) == self.start else DEAD


@dataclass(frozen=True)
class Leaving:
    """A segment in /dev/shm: its POSIX name, size, and what is known of its maker; a state segment tells of its
    engine's Keeper too, and whether it is to stay after a crash."""

    name: str
    size_bytes: int
    maker: Process | None
    keeper: Process | None = None
    stays: bool = False


@dataclass(frozen=True)
class Entry:
    """What stands under one engine's name, and whether it may be taken away (`state` is DEAD)."""

    instance: str
    state: str
    reason: str
    directory: Path | None
    owners: tuple[Process, ...] = ()
    segments: tuple[Leaving, ...] = ()
    recoverable: bool = False
    """It was started to stay, and its state is there: `up --recover` goes on from it."""

    @property
    def size_bytes(self) -> int:
        return sum(segment.size_bytes for segment in self.segments)


@dataclass(frozen=True)
class Plan:
    """What is there, by engine; `dead` is what `sweep` would take."""

    base: Path
    entries: tuple[Entry, ...]

    @property
    def dead(self) -> tuple[Entry, ...]:
        return tuple(entry for entry in self.entries if entry.state == DEAD)


@dataclass
class Swept:
    """What was taken away."""

    instances: list[str] = field(default_factory=list)
    segments: list[str] = field(default_factory=list)
    size_bytes: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


class Claim:
    """An engine's name, held by this process: `directory` is its runtime folder, `swept` what an earlier life left.

    `release` gives the name back and removes the folder. A claim that is never released is found dead by the next
    start. Safe from any thread.
    """

    def __init__(self, instance: str, directory: Path, swept: Swept):
        self.instance = instance
        self.directory = directory
        self.swept = swept
        self._mine = Process.of(os.getpid())
        self._released = False

    def own(self, pid: int) -> None:
        """Name a further process of the engine (its Keeper): while it lives, the name is taken."""
        _write_owners(self.directory, [self._mine, Process.of(pid)])

    def leave(self) -> None:
        """Give the name up without taking anything away: the state stays for `take_over`. Idempotent."""
        self._released = True

    def release(self) -> None:
        """Give the name back; the folder and all in it goes. Idempotent; not for a forked child."""
        if self._released or os.getpid() != self._mine.pid:
            return
        self._released = True
        with lock(self.directory.parent), contextlib.suppress(FileNotFoundError):
            if self._mine in _read_owners(self.directory):
                _remove(self.directory)


def claim(instance: str, *, deadline_s: float = LOCK_S) -> Claim:
    """Take an engine's name for this process, sweeping what a dead engine of that name left.

    Raises EngineExists when the name is live or cannot be told to be dead, UsageError for a name that cannot be,
    NotAllowed when the runtime folder is another user's.
    """
    names.check_instance_name(instance)
    base = names.runtime_base()
    names.runtime_directory(instance)
    with lock(base, deadline_s):
        _clear(base)
        entry = judge(instance, base, claiming=True)
        if entry.state != DEAD:
            verb = "runs" if entry.state == LIVE else "may run"
            raise EngineExists(
                f"an engine named {instance!r} {verb} already ({entry.reason}); "
                f"use another name (-n NAME), or end it: symphonyctl -n {instance} down",
                engine=instance,
                pid=entry.owners[0].pid if entry.owners else None,
            )
        swept = Swept()
        _take(entry, swept)
        directory = names.runtime_directory(instance)
        _write_owners(directory, [Process.of(os.getpid())])
        return Claim(instance, directory, swept)


def take_over(instance: str, keeper: int, *, deadline_s: float = LOCK_S) -> Claim:
    """Take the name of an engine whose Conductor has ended, and leave its segments where they are.

    `keeper`: the pid of its Keeper, this process's parent: an owner that lives besides it makes the name another's.
    Raises EngineExists then, NothingToRecover when nothing of that name is there.
    """
    names.check_instance_name(instance)
    base = names.runtime_base()
    with lock(base, deadline_s):
        directory = base / instance
        owners = _read_owners(directory) if _own_folder(directory) else []
        if not owners:
            raise NothingToRecover(f"nothing of an engine named {instance!r} is there to go on from", engine=instance)
        for owner in owners:
            if owner.pid not in (keeper, os.getpid()) and owner.judge() != DEAD:
                raise EngineExists(
                    f"an engine named {instance!r} runs already (the engine's process {owner.pid} lives)",
                    engine=instance,
                    pid=owner.pid,
                )
        _write_owners(directory, [Process.of(os.getpid()), Process.of(keeper)])
        return Claim(instance, directory, Swept())


def plan(base: str | os.PathLike[str] | None = None, instance: str | None = None) -> Plan:
    """What stands of this user's engines, live and dead (of one, when `instance` is given). Changes nothing."""
    root = names.base_if_there() if base is None else Path(base)
    if instance is not None:
        found = {instance}
    else:
        found = _folders(root) | {match[2] for match in map(_SEGMENT.fullmatch, _mine_in_shm()) if match}
    entries = [judge(name, root) for name in sorted(found)]
    return Plan(root, tuple(e for e in entries if e.directory is not None or e.segments))


def sweep(planned: Plan) -> Swept:
    """Take away what of the plan is dead, each entry judged again under the lock. Idempotent: a kill in the middle
    leaves what the next sweep finds."""
    swept = Swept()
    if not planned.dead and not any(planned.base.glob(f"{_GONE}*")):
        return swept
    with lock(planned.base):
        _clear(planned.base)
        for entry in planned.dead:
            again = judge(entry.instance, planned.base)
            if again.state == DEAD:
                _take(again, swept)
                swept.instances.append(again.instance)
            elif again.directory is not None or again.segments:
                swept.refused.append((again.instance, again.reason))
    return swept


def judge(instance: str, base: Path, *, claiming: bool = False) -> Entry:
    """Look at all that bears an engine's name and say whether anybody may still use it.

    `claiming`: the caller holds the lock and has just made the folder itself, so an empty one is nobody's.
    """
    directory = base / instance if _own_folder(base / instance) else None
    segments = _segments_of(instance, directory)
    owners = _read_owners(directory) if directory else []
    state, reason = _verdict(directory, owners, segments, claiming)
    recoverable = any(segment.stays for segment in segments)
    return Entry(instance, state, reason, directory, tuple(owners), tuple(segments), recoverable)


def owners_of(instance: str) -> tuple[Process, ...]:
    """The processes that an engine's owner file names, living or not."""
    return tuple(_read_owners(names.base_if_there() / instance))


# -- judging ----------------------------------------------------------------------------------------------


def _verdict(directory: Path | None, owners: list[Process], segments: list[Leaving], claiming: bool) -> tuple[str, str]:
    makers = [segment.maker for segment in segments if segment.maker is not None]
    keepers = [segment.keeper for segment in segments if segment.keeper is not None]
    for what, processes in (("the engine's", owners), ("a segment maker's", makers), ("its Keeper's", keepers)):
        for process in processes:
            if process.judge() == LIVE:
                return LIVE, f"{what} process {process.pid} lives"
    if any(process.judge() == UNKNOWN for process in (*owners, *makers, *keepers)):
        return UNKNOWN, "its processes are of another pid namespace, such as another container"
    if owners:
        return DEAD, f"its process {owners[0].pid} is gone"
    if makers and len(makers) == len(segments):
        return DEAD, f"the maker of its segments, process {makers[0].pid}, is gone"
    if claiming and not segments:
        return DEAD, "nothing was there"
    paths = [SHM / segment.name.lstrip("/") for segment in segments]
    if _age_s([*paths, directory] if directory else paths) < YOUNG_S:
        return UNKNOWN, "it tells no owner and is younger than a minute: somebody may be starting it"
    return DEAD, "it tells no owner and is older than a minute"


def _age_s(paths: list[Path]) -> float:
    """Since the last of them was changed."""
    newest = 0.0
    for path in paths:
        with contextlib.suppress(OSError):
            newest = max(newest, path.stat().st_mtime)
    return time.time() - newest


def _folders(base: Path) -> set[str]:
    try:
        with os.scandir(base) as found:
            return {item.name for item in found if item.is_dir(follow_symlinks=False) and not item.name.startswith(".")}
    except FileNotFoundError:
        return set()


def _own_folder(path: Path) -> bool:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()


def _mine_in_shm() -> list[str]:
    prefix = f"symphony.{os.getuid()}."
    try:
        return [name for name in os.listdir(SHM) if name.startswith(prefix)]
    except FileNotFoundError:
        return []


def _segments_of(instance: str, directory: Path | None) -> list[Leaving]:
    """The engine's segments. A half-made one tells no maker: it counts when the engine's registry lists it, or when it
    is old; a young one may be of an engine of the same name that starts under another runtime base."""
    found = []
    listed = _listed(directory)
    for name in sorted(_mine_in_shm()):
        match = _SEGMENT.fullmatch(name)
        if match and match[1] == str(os.getuid()) and match[2] == instance:
            leaving = _look_at_segment(name)
            if leaving is not None and (leaving.maker or name in listed or _age_s([SHM / name]) >= YOUNG_S):
                found.append(leaving)
    return found


def _listed(directory: Path | None) -> set[str]:
    try:
        return set(os.listdir(directory / "segments")) if directory is not None else set()
    except OSError:
        return set()


def _look_at_segment(name: str) -> Leaving | None:
    """None: it is gone meanwhile, or is not a file of this user's. A half-made one tells no maker."""
    try:
        descriptor = os.open(SHM / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid():
            return None
        return Leaving("/" + name, status.st_size, *_told_by(os.pread(descriptor, _STAMP.size, 0)))
    finally:
        os.close(descriptor)


def _told_by(head: bytes) -> tuple[Process | None, Process | None, bool]:
    """Maker, Keeper and whether it stays, as a stamp tells them."""
    if len(head) < _STAMP.size:
        return None, None, False
    magic, _, _, _, _, _, start, pid, _, boot, _, _, _, keeper_start, keeper_pid, stays, space = _STAMP.unpack(head)
    if magic != _MAGIC:
        return None, None, False
    keeper = Process(keeper_pid, keeper_start, boot.hex(), space) if keeper_pid else None
    return Process(pid, start, boot.hex(), space), keeper, bool(stays)


# -- taking -----------------------------------------------------------------------------------------------


def _take(entry: Entry, swept: Swept) -> None:
    """Segments first and the folder last, so that what remains after a kill is still found by its name."""
    for segment in entry.segments:
        try:
            os.unlink(SHM / segment.name.lstrip("/"))
        except FileNotFoundError:
            continue
        except OSError as error:
            swept.refused.append((segment.name, error.strerror or str(error)))
            continue
        swept.segments.append(segment.name)
        swept.size_bytes += segment.size_bytes
    if entry.directory is not None:
        with contextlib.suppress(FileNotFoundError):
            _remove(entry.directory)


def _remove(directory: Path) -> None:
    """Take a runtime folder away, under the lock. It is renamed first: a kill in the middle then leaves what plainly is
    nobody's, and not a folder without its owner file, which might be somebody's who is only starting."""
    gone = directory.with_name(f"{_GONE}{secrets.token_hex(8)}")
    os.rename(directory, gone)
    shutil.rmtree(gone)


def _clear(base: Path) -> None:
    """Finish what a killed sweep or release began, under the lock."""
    for gone in base.glob(f"{_GONE}*"):
        if _own_folder(gone):
            shutil.rmtree(gone, ignore_errors=True)


@contextlib.contextmanager
def lock(base: Path, deadline_s: float = LOCK_S) -> Iterator[None]:
    """Hold the runtime base for a start or a sweep. Raises WaitTimeout after `deadline_s`.

    An advisory lock of the folder itself: it needs no file, and ends with its holder.
    """
    try:
        descriptor = os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        yield
        return
    except OSError as error:
        raise NotAllowed(f"the runtime folder {base} cannot be opened: {error.strerror}") from None
    try:
        _await_lock(descriptor, base, time.monotonic() + deadline_s)
        yield
    finally:
        os.close(descriptor)


def _await_lock(descriptor: int, base: Path, deadline: float) -> None:
    pause = 0.001
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise WaitTimeout(f"another start or clean holds {base}; try again when it has ended") from None
        time.sleep(pause)
        pause = min(pause * 2, 0.05)


# -- who is alive -----------------------------------------------------------------------------------------


def start_time(pid: int) -> int | None:
    """Start time of a living process in clock ticks since boot; None when there is none (a zombie has ended)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    fields = text[text.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def boot_id() -> str:
    """The kernel's boot id, 32 hex digits."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip().replace("-", "")


def pid_namespace() -> int:
    """Number of this process's pid namespace."""
    return os.stat("/proc/self/ns/pid").st_ino


def _read_owners(directory: Path) -> list[Process]:
    try:
        told = json.loads((directory / OWNER_FILE).read_bytes())
        return [
            Process(int(p["pid"]), int(p["start"]), str(p["boot_id"]), int(p["namespace"])) for p in told["processes"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _write_owners(directory: Path, owners: list[Process]) -> None:
    """Replaced whole: a reader finds the old file or the new one."""
    told: dict[str, Any] = {"processes": [vars(owner) for owner in owners]}
    fresh = directory / f".{OWNER_FILE}.{os.getpid()}"
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, json.dumps(told).encode())
    finally:
        os.close(descriptor)
    os.rename(fresh, directory / OWNER_FILE)
