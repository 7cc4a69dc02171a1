"""The verbs about an engine as a whole: up, down, status, warmup, version."""

import platform
import signal
import sys
import threading
import time
from typing import Any

import click

from symphony.cli import leave, show
from symphony.cli.show import Settings, settled


@click.command()
@click.option("--foreground", is_flag=True, help="Stay until Ctrl-C or SIGTERM, then end the engine.")
@click.option("--players", type=click.IntRange(min=1), help="At most this many processes of an extension.")
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=600.0, help="Seconds allowed until it is ready."
)
@click.option("--recover", is_flag=True, help="Go on from the state that a dead engine of that name left.")
@click.option("--spare", is_flag=True, help="Keep a second Conductor ready, so that a killed one is replaced at once.")
@click.option(
    "--hang-s",
    type=click.FloatRange(min=0.1),
    help="Seconds without an answer after which a Conductor counts as hung and is replaced.",
)
@settled
def up(
    settings: Settings,
    foreground: bool,
    players: int | None,
    timeout: float,
    recover: bool,
    spare: bool,
    hang_s: float | None,
) -> None:
    """Start an engine; returns when it is ready.

    What a killed engine of the same name left behind is taken away first, and said; with --recover its runs go on.
    """
    from symphony.cli import start

    arguments = ["--players", str(players)] if players else []
    keeper = [*(["--spare"] if spare else []), *(["--hang-s", str(hang_s)] if hang_s else [])]
    started = start.start(settings.name, timeout=timeout, arguments=arguments, keeping=keeper, recover=recover)
    swept = list(started.told.get("swept") or ())
    if swept:
        leave.say(f"took away what killed engines had left: {len(swept)} segments")
    runs = int(started.told.get("runs") or 0)
    if recover:
        leave.say(f"goes on from what was left: {runs} runs")
    item = {
        "name": started.name,
        "pid": started.pid,
        "keeper_pid": started.keeper_pid,
        "ready_s": round(started.ready_s, 3),
        "runs": runs,
        "swept": swept,
    }
    show.single(
        settings,
        "up",
        item,
        lambda: print(
            f"engine {started.name} ready in {show.duration(started.ready_s)} "
            f"(pid {started.pid}, keeper {started.keeper_pid})",
            flush=True,
        ),
    )
    if foreground:
        _stay(settings.name, started.keeper_pid or started.pid)


def _stay(name: str, pid: int) -> None:
    """Until the engine ends or this process is asked to end; then the engine has ended."""
    import os
    import select

    from symphony.cli import start
    from symphony.model.errors import EngineLost, EngineNotFound

    asked = threading.Event()
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    before = signal.set_wakeup_fd(writer)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: asked.set())
    engine = os.pidfd_open(pid)
    try:
        while not asked.is_set():
            ready, _, _ = select.select([reader, engine], [], [])
            if engine in ready:
                why = start.parked(name)
                go_on = f"; go on from its state: symphonyctl -n {name} up --recover" if why else ""
                raise EngineLost(f"engine {name!r} ended by itself{': ' if why else ''}{why}{go_on}")
        start.stop_engine(name, force=True)
    except EngineNotFound:
        pass
    finally:
        signal.set_wakeup_fd(before)
        for descriptor in (reader, writer, engine):
            os.close(descriptor)


@click.command()
@click.option(
    "--timeout", type=click.FloatRange(min=0, min_open=True), default=30.0, help="Seconds allowed for ending."
)
@click.option("--force", is_flag=True, help="Kill it if it does not end in time.")
@settled
def down(settings: Settings, timeout: float, force: bool) -> None:
    """End an engine and wait until nothing of it is left. Its runs are cancelled."""
    from symphony.cli import start

    left = start.stop_engine(settings.name, timeout=timeout, force=force)
    if left:
        leave.say(f"it left {len(left)} segments, which were taken away")
    show.single(settings, "down", {"name": settings.name, "left": left}, lambda: print(f"engine {settings.name} ended"))


@click.command()
@settled
def status(settings: Settings) -> None:
    """What an engine says of itself: its processes, extensions, runs and isolation level."""
    from symphony.client import connect

    with connect(settings.name) as client:
        told = client.status()
    item = {"name": settings.name, **told}
    show.single(settings, "status", item, lambda: _tell_status(item))


def _tell_status(told: dict[str, Any]) -> None:
    tables = {key: content for key, content in told.items() if _is_table(content)}
    lines = {key: content for key, content in told.items() if key not in tables and not key.endswith("_ns")}
    if told.get("started_ns"):
        lines["up"] = show.duration((time.monotonic_ns() - told["started_ns"]) / 1e9)
    show.facts([(key.replace("_", " "), _words(key, content) or None) for key, content in lines.items()])
    for key, rows in tables.items():
        print(f"\n{show.bold(key)}")
        headings = list(dict.fromkeys(column for row in rows for column in row))
        cells = [[_words(heading, row.get(heading)) for heading in headings] for row in rows]
        show.table([heading.replace("_", " ") for heading in headings], cells)


def _is_table(content: Any) -> bool:
    return isinstance(content, list) and bool(content) and all(isinstance(row, dict) for row in content)


def _words(key: str, content: Any) -> str:
    """A value of the status as people read it; empty for what there is none of."""
    if content is None:
        return ""
    if isinstance(content, dict):
        return ", ".join(f"{_words(name, each)} {name.replace('_', ' ')}" for name, each in content.items() if each)
    if isinstance(content, list):
        return ", ".join(_words(key, each) for each in content)
    if isinstance(content, int) and (key == "bytes" or key.endswith("_bytes")):
        return show.size(content)
    return str(content).partition("\n")[0]


@click.command()
@settled
def warmup(settings: Settings) -> None:
    """Compile the engine's kernels into the cache, by starting a private engine once and ending it."""
    from symphony.cli import start

    name = start.private_name("warmup")
    leave.say("starting an engine once; the first time its kernels are compiled, which takes a while")
    started = start.start(name, timeout=900.0, arguments=["--private"])
    start.stop_engine(name, force=True)
    item = {"ready_s": round(started.ready_s, 3)}
    show.single(
        settings, "warmup", item, lambda: print(f"warm: an engine was ready in {show.duration(started.ready_s)}")
    )


@click.command()
@settled
def version(settings: Settings) -> None:
    """Versions of Symphony, of its memory layout, and of Python."""
    item = {
        "symphony": _symphony_version(),
        "abi": None,
        "layout": None,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    try:
        from symphony.native import layout

        item["abi"] = layout.constants["SYM_ABI_VERSION"]
        item["layout"] = f"{layout.FINGERPRINT:016x}"
    except ImportError as error:
        leave.say(f"the compiled part is not there ({error}); build it: pip install .")
    show.single(settings, "version", item, lambda: show.facts(item.items()))


def _symphony_version() -> str:
    from importlib import metadata

    try:
        return metadata.version("symphony")
    except metadata.PackageNotFoundError:
        return str(getattr(sys.modules["symphony"], "__version__", "unknown"))
