"""Starting and ending engines that are processes of their own: what `up`, `down`, a private `play` and tests do.

`up` starts the Keeper as a daemon; the Keeper starts the Conductor; the Conductor says that it is ready by one line
in a pipe that only this starter reads: JSON {"ready": true, "pid", "keeper_pid", …} or {"error": errors.to_wire(…)},
or the Keeper's own `ready TEXT` and `error TEXT` around the same. The pipe's end without a line: all of it died.
"""

import contextlib
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from symphony.client import Client, connect
from symphony.model.errors import (
    DoorError,
    EngineExists,
    EngineLost,
    EngineNotFound,
    SymphonyError,
    WaitTimeout,
    from_wire,
)
from symphony.pit.stale import sweep
from symphony.shmem import names

READY_S = 600.0
"""A first start compiles the kernels, which takes minutes on a busy machine; a later one takes about a second."""
DOWN_S = 30.0
READY_BYTES = 1 << 20
PARKED_FILE = "parked"
"""In the engine's folder, by its Keeper."""


@dataclass
class Started:
    """An engine that has just become ready."""

    name: str
    pid: int
    keeper_pid: int
    ready_s: float
    told: dict[str, Any] = field(default_factory=dict)


def start_engine(name: str, *, timeout: float = READY_S, arguments: Sequence[str] = ()) -> Client:
    """Start an engine as processes of its own and connect to it. Raises as `start`, and what `connect` raises."""
    start(name, timeout=timeout, arguments=arguments)
    return connect(name)


def start(
    name: str,
    *,
    timeout: float = READY_S,
    arguments: Sequence[str] = (),
    keeping: Sequence[str] = (),
    recover: bool = False,
) -> Started:
    """Start an engine as processes of its own; returns when it is ready. `arguments` go to the Conductor,
    `keeping` to its Keeper. `recover` goes on from the state that a dead engine of that name left; when that
    fails the state stays where it is.

    Raises NothingToRecover, EngineExists when the name is live, WaitTimeout when it is not ready in time, and the
    engine's own error when it fails; nothing of it is left then. Ctrl-C ends what was started.
    """
    names.check_instance_name(name)
    _refuse_live(name)
    begun = time.monotonic()
    keeper_id = secrets.token_hex(8)
    try:
        # The Keeper's patience is the starter's; what `keeping` says of it comes later and wins.
        words = ["--start-s", f"{timeout:g}", *keeping, *arguments, *(["--recover"] if recover else [])]
        line = _spawn_and_listen(name, keeper_id, words, begun + timeout)
        told = _parse(line, name)
    except BaseException:
        _abandon(name, keeper_id, leave_state=recover)
        raise
    return Started(name, int(told.get("pid", 0)), int(told.get("keeper_pid", 0)), time.monotonic() - begun, told)


def stop_engine(name: str, *, timeout: float = DOWN_S, force: bool = False) -> list[str]:
    """End an engine and wait until its processes are gone; then take away whatever is left of it.

    Returns the names of segments that it left behind (none, when all is well). Raises EngineNotFound when none of that
    name runs, WaitTimeout when it does not end in time: with `force` it is killed then.
    """
    names.check_instance_name(name)
    pids = {process.pid for process in sweep.owners_of(name) if process.judge() == sweep.LIVE}
    try:
        with connect(name, timeout=min(timeout, 10.0)) as client:
            status = client.status()
            pids |= {int(status[key]) for key in ("pid", "keeper_pid") if status.get(key)}
            watched = _pidfds(pids - {os.getpid()})
            client.stop()
    except EngineNotFound:
        if not (force and pids):
            _sweep(name)
            raise
        watched = _pidfds(pids)
    except (WaitTimeout, EngineLost, DoorError):
        # An engine that is ending already closes its door on whoever comes.
        if not force:
            raise
        watched = _pidfds(pids)
    try:
        _await_ends(name, watched, timeout, force)
    finally:
        for descriptor in watched.values():
            os.close(descriptor)
    return _sweep(name)


def parked(name: str) -> str:
    """Why the engine's Keeper gave it up; empty when it did not."""
    with contextlib.suppress(OSError):
        return (names.base_path() / name / PARKED_FILE).read_text("utf-8", "replace")
    return ""


def private_name(verb: str) -> str:
    """A name for an engine that one command starts for itself; no two commands share one."""
    return f"{verb}-{os.getpid()}-{secrets.token_hex(3)}"


def _refuse_live(name: str) -> None:
    for entry in sweep.plan(instance=name).entries:
        if entry.state == sweep.LIVE:
            pid = entry.owners[0].pid if entry.owners else None
            raise EngineExists(
                f"an engine named {name!r} runs already ({entry.reason}); use another name (-n NAME), or end it: "
                f"symphonyctl -n {name} down",
                engine=name,
                pid=pid,
            )


def _spawn_and_listen(name: str, keeper_id: str, arguments: Sequence[str], deadline: float) -> str:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        try:
            _spawn(name, keeper_id, arguments, writer)
        finally:
            os.close(writer)
        return _read_line(reader, deadline)
    finally:
        os.close(reader)


def _spawn(name: str, keeper_id: str, arguments: Sequence[str], writer: int) -> None:
    """Start the Keeper's daemon, which says by `writer` that it is ready. The process started here ends at once."""
    command = [
        sys.executable,
        "-m",
        "symphony.keeper",
        "--daemon",
        "--id",
        keeper_id,
        "--name",
        name,
        "--ready-fd",
        str(writer),
        "--directory",
        str(names.base_path() / name),
        *arguments,
    ]
    try:
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(writer,),
            env=_environment(),
            check=True,
            stderr=subprocess.PIPE,
            timeout=READY_S,
        )
    except (subprocess.SubprocessError, OSError) as error:
        words = getattr(error, "stderr", None)
        detail = words.decode(errors="replace").strip() if words else str(error)
        raise SymphonyError(f"the Keeper of engine {name!r} could not be started: {detail}") from None


def _environment() -> dict[str, str]:
    """The daemon leaves the working directory: a package that is only found there must be found by its path."""
    root = str(Path(__file__).resolve().parents[2])
    known = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    absolute = [os.path.abspath(path) for path in known]
    if root not in absolute and "site-packages" not in root:
        absolute.insert(0, root)
    return {**os.environ, "PYTHONPATH": os.pathsep.join(absolute)} if absolute else dict(os.environ)


def _read_line(reader: int, deadline: float) -> str:
    """Everything up to the end of file: an error may have several lines."""
    body = b""
    while len(body) < READY_BYTES:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            raise WaitTimeout("the engine was not ready in time; it was ended. Allow it longer: up --timeout SECONDS")
        piece = os.read(reader, 65536)
        if not piece or ((body + piece).startswith((b"{", b"ready")) and piece.endswith(b"\n")):
            return (body + piece).decode(errors="replace").strip()
        body += piece
    return body.decode(errors="replace")


def _parse(line: str, name: str) -> dict[str, Any]:
    word, _, text = line.partition(" ")
    if word not in ("ready", "error"):
        word, text = "", line
    told = _json(text)
    if "error" in told:
        described = told["error"]
        raise from_wire(described if isinstance(described, dict) else {"message": str(described)})
    if told.get("ready") or word == "ready":
        return told
    raise _failure(text, name)


def _json(text: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(text.splitlines()[0]) if text else {}
        return found if isinstance(found, dict) else {}
    return {}


def _failure(text: str, name: str) -> SymphonyError:
    """What a Conductor that died before it was ready left as last words: often a traceback, its last line the error."""
    last = text.strip().splitlines()[-1] if text.strip() else ""
    kind, separator, message = last.partition(": ")
    kind = kind.rpartition(".")[2]
    if separator and kind.isidentifier():
        known = from_wire({"error": kind, "message": message})
        if type(known) is not SymphonyError:
            return known
    return SymphonyError(f"engine {name!r} did not start: {text.strip() or 'its processes ended without a word'}")


# -- ending -----------------------------------------------------------------------------------------------


def _abandon(name: str, keeper_id: str, *, leave_state: bool) -> None:
    """End a Keeper whose start failed or was given up, and take away what it left. It may be forking just now, so it
    is looked for until there is none."""
    deadline = time.monotonic() + DOWN_S
    asked: set[int] = set()
    while found := _processes_with(keeper_id):
        number = signal.SIGTERM if found - asked and time.monotonic() < deadline else signal.SIGKILL
        asked |= found
        watched = _pidfds(found)
        try:
            _signal(watched.values(), number)
            _gone(watched, max(deadline, time.monotonic() + 1.0))
        finally:
            for descriptor in watched.values():
                os.close(descriptor)
    if leave_state:
        return
    with contextlib.suppress(SymphonyError, OSError):
        _sweep(name)


def _processes_with(keeper_id: str) -> set[int]:
    """Processes that bear a Keeper's id on their command line: the Keeper itself."""
    found = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                words = Path(entry.path, "cmdline").read_bytes().split(b"\0")
                if keeper_id.encode() in words:
                    found.add(int(entry.name))
    return found


def _pidfds(pids: Iterable[int]) -> dict[int, int]:
    found = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            found[pid] = os.pidfd_open(pid)
    return found


def _await_ends(name: str, watched: dict[int, int], timeout: float, force: bool) -> None:
    if _gone(watched, time.monotonic() + timeout):
        return
    if not force:
        raise WaitTimeout(
            f"engine {name!r} has not ended in {timeout:g} s; end it by force: symphonyctl -n {name} down --force"
        )
    _signal(watched.values(), signal.SIGKILL)
    if not _gone(watched, time.monotonic() + DOWN_S):
        raise WaitTimeout(f"engine {name!r}: processes {sorted(watched)} cannot be killed")


def _gone(watched: dict[int, int], deadline: float) -> bool:
    """Whether every process ended before the deadline."""
    poll = select.poll()
    waiting = set(watched.values())
    for descriptor in waiting:
        poll.register(descriptor, select.POLLIN)
    while waiting:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        for descriptor, _ in poll.poll(left * 1000):
            poll.unregister(descriptor)
            waiting.discard(descriptor)
    return True


def _signal(descriptors: Iterable[int], number: int) -> None:
    for descriptor in descriptors:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, number)


def _sweep(name: str) -> list[str]:
    return sweep.sweep(sweep.plan(instance=name)).segments
