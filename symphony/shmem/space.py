"""Names and memory of POSIX segments: making, taking space, unlinking. The only place that touches /dev/shm itself.

posix_ipc where it is installed; without it the same names through the file system, which is what they are on Linux.
"""

import errno
import mmap
import os

from symphony.model.errors import NoSpace, NoSuchSegment, NotAllowed, SegmentExists

try:
    import posix_ipc
except ImportError:
    posix_ipc = None

PAGE = mmap.PAGESIZE
FOLDER = "/dev/shm"
_FULL = (errno.ENOSPC, errno.ENOMEM, errno.EFBIG)


def up(number: int, to: int) -> int:
    """The next multiple of `to`, `number` itself if it is one."""
    return -(-number // to) * to


def path_of(name: str) -> str:
    """Where a POSIX name lies in the file system."""
    return FOLDER + name


def make(name: str) -> int:
    """A new, empty segment, mode 0600, never over an existing one and never through a link; returns its descriptor,
    which is the caller's. Raises SegmentExists, NotAllowed, NoSpace (no inode left)."""
    try:
        if posix_ipc is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            return os.open(path_of(name), flags, 0o600)
        descriptor = posix_ipc.SharedMemory(name, posix_ipc.O_CREX, mode=0o600, size=0).fd
        os.set_inheritable(descriptor, False)
        return descriptor
    except (FileExistsError, *_existential()):
        raise SegmentExists(f"a segment {name} exists already", name=name) from None
    except (PermissionError, *_permission()):
        raise NotAllowed(f"segment {name} may not be made in {FOLDER}: its rights refuse it", name=name) from None
    except OSError as error:
        if error.errno in _FULL:
            raise _full(0, name) from None
        raise


def open_(name: str, *, writable: bool) -> int:
    """The descriptor of an existing segment. Raises NoSuchSegment, NotAllowed."""
    try:
        flags = os.O_RDWR if writable else os.O_RDONLY
        return os.open(path_of(name), flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        raise NoSuchSegment(f"there is no segment {name}", name=name) from None
    except OSError as error:
        raise NotAllowed(f"segment {name} cannot be opened: {error.strerror}", name=name) from None


def unlink(name: str) -> None:
    """Take a name away; what is gone already is gone. Raises NotAllowed."""
    try:
        os.unlink(path_of(name))
    except FileNotFoundError:
        pass
    except OSError as error:
        raise NotAllowed(f"segment {name} cannot be unlinked: {error.strerror}", name=name) from None


def take(descriptor: int, begin: int, end: int, name: str) -> None:
    """Put memory behind bytes [begin, end), whole pages; again is harmless. Raises NoSpace: then some pages of the
    range may have been taken, none that had been is lost."""
    begin, end = begin // PAGE * PAGE, up(end, PAGE)
    if end <= begin:
        return
    while True:
        try:
            os.posix_fallocate(descriptor, begin, end - begin)
            return
        except InterruptedError:
            continue
        except OSError as error:
            if error.errno in _FULL:
                raise _full(end - begin, name) from None
            raise


def _full(wanted: int, name: str) -> NoSpace:
    return NoSpace(
        f"no space for {wanted} bytes of {name}: shared memory is full ({_free()} free in {FOLDER}); "
        "free some (symphonyctl clean), or make it larger",
        name=name,
        wanted_bytes=wanted,
    )


def _free() -> str:
    try:
        found = os.statvfs(FOLDER)
    except OSError:
        return "unknown"
    return f"{found.f_bavail * found.f_frsize >> 10} KiB"


def _existential() -> tuple[type[BaseException], ...]:
    return (posix_ipc.ExistentialError,) if posix_ipc else ()


def _permission() -> tuple[type[BaseException], ...]:
    return (posix_ipc.PermissionsError,) if posix_ipc else ()
