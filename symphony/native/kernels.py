"""How kernels are compiled and kept: one decorator, one cache, one way to call C.

numba's own cache notices neither a changed constant nor a helper inlined from another module. So ours lies in a
folder named by the hash of every source that a kernel can take in, of the memory ABI and the built C, numba's version
and the processor: whatever changes, the folder changes; and nothing else does, as a full compile takes most of a
minute. Kernels are imported inside `loading()`, which points numba there and back again, so that
an embedding program's own cache stays where it was.
"""

import contextlib
import functools
import hashlib
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import llvmlite
import llvmlite.binding
import numba
from numba import config, types

from symphony.native import _csym
from symphony.native.layout import layout_text

PACKAGE = Path(__file__).resolve().parents[1]
KEPT_FOLDERS = 4
"""Caches of other builds that stay beside ours; older ones are pruned."""
KEPT_S = 86_400.0
"""And those begun to be used within this time stay too."""

llvmlite.binding.load_library_permanently(_csym.__file__)


_MAKES_KERNELS = re.compile(
    r"^\s*(?:from|import)\s+(?:numba\b|symphony\.native\.atomics\b|"
    r"symphony\.native\.kernels\s+import\s+(?:\(|.*\b(?:kernel|inlined|entry)\b))",
    re.M,
)
_IMPORT = re.compile(r"^\s*(?:from|import)\s+(symphony(?:\.\w+)*)", re.M)
_RELATIVE = re.compile(r"^\s*from\s+\.", re.M)


def compiled_from() -> list[Path]:
    """Every source whose constants or helpers a kernel can take in: the modules that make kernels, and all that they
    import, and so on. Too many rather than too few: of a package that is imported from, each file."""
    ahead = [path for path in PACKAGE.rglob("*.py") if _MAKES_KERNELS.search(path.read_text(encoding="utf-8"))]
    found: set[Path] = set()
    while ahead:
        path = ahead.pop()
        if path in found:
            continue
        found.add(path)
        text = path.read_text(encoding="utf-8")
        for module in _IMPORT.findall(text):
            ahead += _files_of(PACKAGE.joinpath(*module.split(".")[1:]))
        if _RELATIVE.search(text):
            ahead += path.parent.glob("*.py")
    return sorted(found)


def _files_of(place: Path) -> list[Path]:
    """A module's file, or every file of a package but the outermost, which finds its names only when asked. None for
    a built module."""
    if place == PACKAGE:
        return [place / "__init__.py"]
    return list(place.glob("*.py")) if place.is_dir() else list(place.parent.glob(f"{place.name}.py"))


@functools.cache
def source_hash() -> str:
    """Hash of what a kernel's machine code depends on: Python sources, the memory ABI, the built C (which stands for
    its sources and headers, absent from an installed package), compiler and processor."""
    digest = hashlib.blake2b(digest_size=10)
    for path in (*compiled_from(), Path(_csym.__file__)):
        digest.update(os.path.relpath(path, PACKAGE).encode() + b"\0" + path.read_bytes() + b"\0")
    cpu = llvmlite.binding.get_host_cpu_name() + llvmlite.binding.get_host_cpu_features().flatten()
    for part in (layout_text(), numba.__version__, llvmlite.__version__, sys.version, cpu, str(PACKAGE)):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def cache_base() -> Path:
    """SYMPHONY_CACHE_DIR, or `symphony` in the user's cache folder."""
    chosen = os.environ.get("SYMPHONY_CACHE_DIR")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "symphony"


def cache_directory() -> Path:
    """The folder of this build's machine code."""
    return cache_base() / f"kernels-{source_hash()}"


def _prune(mine: Path) -> None:
    """Remove the oldest caches of other builds, but none that was begun to be used lately: its process may be compiling
    into it just now. Another process may be doing the same: what is gone is gone."""
    lately = time.time() - KEPT_S
    with contextlib.suppress(OSError):
        others = [path for path in mine.parent.glob("kernels-*") if path != mine and path.stat().st_mtime < lately]
        others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        for path in others[KEPT_FOLDERS:]:
            shutil.rmtree(path, ignore_errors=True)


@functools.cache
def _prepared() -> Path | None:
    """Our folder, made and pruned; None when there is nowhere to keep machine code (then every start compiles)."""
    mine = cache_directory()
    try:
        mine.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = mine.lstat()
        os.utime(mine, (time.time(), time.time()))
    except OSError:
        return None
    # What lies in the cache is executed: a folder that somebody else can write is not ours.
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        return None
    _prune(mine)
    return mine


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """Import kernels inside this: numba takes the cache's place when a function is decorated."""
    before = config.CACHE_DIR
    mine = _prepared()
    if mine is not None:
        config.CACHE_DIR = str(mine)
    try:
        yield
    finally:
        config.CACHE_DIR = before


OPTIONS = {"error_model": "numpy", "_nrt": False}
"""C's rules for division, and no counting of references: a kernel allocates nothing and keeps nothing, yet numba would
count an array up and down by locked instructions in every kernel that hands it on, which cost more than the work."""


def kernel(function):
    """Compile for shared tables: without the GIL, cached. A kernel never raises, and returns no array."""
    with loading():
        return numba.njit(nogil=True, cache=_prepared() is not None, **OPTIONS)(function)


def inlined(function):
    """A kernel without code of its own: it becomes part of each kernel that calls it. For what is called per node."""
    with loading():
        return numba.njit(nogil=True, cache=_prepared() is not None, forceinline=True, **OPTIONS)(function)


def entry(signature):
    """A kernel that C calls by its address (`.address`): for the fast door. It never raises and never returns 0."""

    def decorate(function):
        with loading():
            return numba.cfunc(signature, cache=_prepared() is not None, **OPTIONS)(function)

    return decorate


def external(name: str, result, *arguments) -> types.ExternalFunction:
    """A function of our C library by its symbol; a kernel that calls cffi's function could not be cached."""
    return types.ExternalFunction(name, result(*arguments))
