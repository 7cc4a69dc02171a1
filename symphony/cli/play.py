"""`play`: a melody from its file to its outputs, on a running engine or on a private one that lives as long."""

import contextlib
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import click

from symphony.cli import leave, show
from symphony.cli.show import Settings, settled

UNWRITTEN = 1
"""The exit code of a run that is done and whose record could not be written."""
CANCEL_S = 10.0
"""How long an interrupted play waits for its run to come to rest before it goes."""


@click.command()
@click.argument("melody")
@click.option(
    "-i", "--input", "inputs", multiple=True, metavar="KEY=VALUE", help="An input of the melody; may be repeated."
)
@click.option("--detach", is_flag=True, help="Return once the engine has taken the run (needs a running engine).")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds allowed; then the run is cancelled, exit code 4.",
)
@click.option(
    "--record", type=click.Path(dir_okay=False, path_type=Path), help="Write what every node did, as JSON lines."
)
@click.option(
    "--time-scale", type=click.FloatRange(min=0), default=1.0, help="Of a WfFormat instance's run times; 0: no work."
)
@click.option(
    "--size-scale", type=click.FloatRange(min=0), default=0.0, help="Of a WfFormat instance's outputs; 0: 64 B a file."
)
@click.option(
    "--players", type=click.IntRange(min=1), help="Of a private engine: at most this many processes of an extension."
)
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@settled
def play(
    settings: Settings,
    melody: str,
    inputs: tuple[str, ...],
    detach: bool,
    timeout: float | None,
    record: Path | None,
    time_scale: float,
    size_scale: float,
    players: int | None,
    quiet: bool,
) -> int:
    """Play MELODY and print its outputs.

    MELODY is a shipped name (`melody ls`), a .toml or .yaml file, a Python file that makes one, or a WfFormat instance
    (.json). Without a running engine one is started for this run and ended after it. The exit code tells the outcome:
    0 done, 1 failed, 4 timed out, 5 cancelled.
    """
    from symphony.cli.melody import catalogue
    from symphony.melody.find import score_of
    from symphony.melody.inputs import parse_inputs

    score = score_of(melody, catalogue=catalogue(), time_scale=time_scale, size_scale=size_scale)
    values = parse_inputs(score, _pairs(inputs))
    _check_writable(record)
    with _until_terminated(), _engine(settings, detach, quiet, players) as client:
        if detach:
            return _detach(settings, client.play(score, values))
        return _attend(settings, client, (score, values), timeout, record, quiet)


def _pairs(words: tuple[str, ...]) -> dict[str, str]:
    from symphony.melody.inputs import split_pair
    from symphony.model.errors import UsageError

    found: dict[str, str] = {}
    for key, text in map(split_pair, words):
        if key in found:
            raise UsageError(f"input {key!r} is given twice")
        found[key] = text
    return found


def _detach(settings: Settings, run: Any) -> int:
    item = {"run": run.serial, "name": run.name, "engine": run.client.name}
    show.single(settings, "play", item, lambda: print(run.serial))
    return 0


def _attend(
    settings: Settings, client: Any, what: tuple[Any, ...], timeout: float | None, record: Path | None, quiet: bool
) -> int:
    from symphony.model.errors import WaitTimeout

    deadline = None if timeout is None else time.monotonic() + timeout
    run = _submit(client, what)
    try:
        ended = _follow(run, deadline, quiet)
    except WaitTimeout:
        ended = _give_up(run)
        if record is not None:
            _write_record(run, record)
        raise WaitTimeout(
            f"run {run.serial} ({run.name}) was not done in {timeout:g} s and was cancelled: "
            f"{ended.get('done')} of {ended.get('nodes')} nodes done"
        ) from None
    except BaseException:
        _give_up(run)
        raise
    written = record is None or _write_record(run, record)
    return _conclude(settings, client, run, ended) or (0 if written else UNWRITTEN)


def _submit(client: Any, what: tuple[Any, ...]) -> Any:
    """Start the run. An interrupt that comes before its answer may have come after its start: asking again by the same
    id tells which run it is, so that it can be cancelled."""
    from symphony.model.errors import SymphonyError

    request_id = secrets.token_bytes(16)
    try:
        return client.play(*what, request_id=request_id)
    except SymphonyError:
        raise
    except BaseException:
        with contextlib.suppress(SymphonyError):
            _give_up(client.play(*what, request_id=request_id, timeout=CANCEL_S))
        raise


def _follow(run: Any, deadline: float | None, quiet: bool) -> dict[str, Any]:
    from symphony.cli.progress import progress

    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    seen: dict[str, Any] = {}
    with progress(quiet) as teller:
        for seen in run.events(left):
            teller.update(seen)
    return seen


def _give_up(run: Any) -> dict[str, Any]:
    """Cancel the run and wait a little for it to come to rest; an engine that has gone is no further matter."""
    from symphony.model.errors import SymphonyError

    try:
        run.cancel()
        return run.wait(CANCEL_S)
    except SymphonyError:
        return {}


def _conclude(settings: Settings, client: Any, run: Any, ended: dict[str, Any]) -> int:
    from symphony.client import check_outcome
    from symphony.model.errors import SymphonyError

    try:
        check_outcome(ended)
    except SymphonyError as error:
        if settings.output != "table":
            show.single(settings, "play", {**_run_item(ended), "outputs": None}, lambda: None)
        leave.say(str(error))
        return error.exit_code
    from symphony.cli import outputs

    results = client.raw_result(run)
    if settings.output == "table":
        outputs.tell(results)
        took = (
            (ended["ended_ns"] - ended["submitted_ns"]) / 1e9
            if ended.get("ended_ns") and ended.get("submitted_ns")
            else None
        )
        print(
            f"{ended['name']}: {ended['done']} nodes done" + (f" in {show.duration(took)}" if took else ""),
            file=sys.stderr,
        )
        return 0
    item = {
        **_run_item(ended),
        "outputs": {name: outputs.as_json(kind, payload) for name, (kind, payload) in results.items()},
    }
    show.single(settings, "play", item, lambda: None)
    return 0


def _run_item(run: dict[str, Any]) -> dict[str, Any]:
    return {key: run.get(key) for key in ("run", "name", "state", "nodes", "done", "failed", "error")}


def _check_writable(record: Path | None) -> None:
    """Before anything is started: a record that cannot be written is a mistake of the command line."""
    from symphony.model.errors import UsageError

    if record is None:
        return
    try:
        there = record.exists()
        with open(record, "ab"):
            pass
        if not there:
            record.resolve().unlink()
    except OSError as error:
        raise UsageError(f"--record {record}: {error.strerror}") from None


def _write_record(run: Any, record: Path) -> bool:
    """Whether it was written. A file is there whole, or as it was before."""
    from symphony.model.errors import SymphonyError

    try:
        lines = run.record()
        with _written_whole(record) as file:
            for line in lines:
                file.write(show.as_json(line) + "\n")
    except (SymphonyError, OSError) as error:
        leave.say(f"the record was not written to {record}: {error}")
        return False
    return True


@contextlib.contextmanager
def _written_whole(path: Path) -> Iterator[IO[str]]:
    """A file beside it that takes its place at the end; what is no file, such as a pipe, is written to as it is."""
    if path.exists() and not path.is_file():
        with open(path, "w", encoding="utf-8") as file:
            yield file
        return
    path = path.resolve()
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with open(fresh, "x", encoding="utf-8") as file:
            yield file
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


# -- the engine -------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _engine(settings: Settings, detach: bool, quiet: bool, players: int | None) -> Iterator[Any]:
    """A client of the engine that runs under the name, or of a private one that ends with the block.

    Who names an engine means that one: it is not replaced by a private one.
    """
    from symphony.client import connect
    from symphony.model.errors import EngineNotFound, UsageError

    try:
        client = connect(settings.name)
    except EngineNotFound:
        if settings.named is not None:
            raise
        if detach:
            raise UsageError("--detach needs a running engine; start one: symphonyctl up") from None
    else:
        if players is not None:
            leave.say(f"--players is of an engine's start; {settings.name!r} runs already, with its own")
        with client:
            yield client
        return
    with _private_engine(quiet, players) as client:
        yield client


@contextlib.contextmanager
def _private_engine(quiet: bool, players: int | None) -> Iterator[Any]:
    from symphony.cli import start
    from symphony.client import connect
    from symphony.model.errors import EngineNotFound

    name = start.private_name("play")
    if not quiet:
        print("no engine runs: starting one for this run", file=sys.stderr, flush=True)
    start.start(name, arguments=["--private", *(["--players", str(players)] if players else [])])
    try:
        with connect(name) as client:
            client.hold()  # so that it also ends when this process is killed
            yield client
    finally:
        with _unhurried(), contextlib.suppress(EngineNotFound):
            start.stop_engine(name, force=True)


@contextlib.contextmanager
def _unhurried() -> Iterator[None]:
    """Ending a private engine is bounded in time and leaves nothing: a second Ctrl-C must not cut it short."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _until_terminated() -> Iterator[None]:
    """SIGTERM and SIGHUP end the play as Ctrl-C does, with the run cancelled and nothing left."""

    def leave_by(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave_by) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
