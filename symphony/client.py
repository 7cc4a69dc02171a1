"""The client of a running engine: everything that another process may do to one goes through its control door.

`symphonyctl` uses nothing else. A client holds no state of the engine's: it can be made, lost and made again. A
`play` bears a 128-bit id of its own, so that asking again after a broken connection gives the same run, never two.
When the engine's Conductor is killed, a request in flight is asked again of the one that comes back.
"""

import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from symphony.bus import door_wire as wire
from symphony.melody.inputs import parse_inputs
from symphony.model import score as scores
from symphony.model import value
from symphony.model.errors import (
    DoorError,
    EngineLost,
    EngineNotFound,
    NotAllowed,
    RunCancelled,
    RunFailed,
    SymphonyError,
    ValueRefused,
    WaitTimeout,
    from_wire,
)
from symphony.pit.stale.sweep import DEAD, LIVE, owners_of, plan
from symphony.shmem import names

ENDED = frozenset({"completed", "failed", "cancelled"})
"""States of a run that do not change any more."""

ANSWER_S = 120.0
"""The longest an engine may take to answer what is not a wait."""
TURN_S = 30.0
"""A long wait is asked for in turns of this length."""
GRACE_S = 10.0
LOOK_S = 0.01
"""Between two looks whether an engine whose Conductor has ended serves again."""
CLOSED_MOST = 16
"""Times that a connection may end under one request: a door that will not have it is not asked for ever."""
RESULT_BYTES = 1 << 40
IDLE_CONNECTIONS = 4

SEEN = ("state", "nodes", "done", "failed", "running")


def connect(name: str = "default", *, timeout: float = 10.0) -> "Client":
    """A client of the engine `name` of this user.

    Raises EngineNotFound when none of that name runs, NotAllowed when the door's secret cannot be read, DoorError
    when the door refuses. Costs one connection, below a millisecond.
    """
    client = Client(name)
    client._give(client._connection(time.monotonic() + timeout))
    return client


class Client:
    """Acts on one running engine. Safe between threads (each call has a connection of its own); not after fork."""

    def __init__(self, name: str):
        names.check_instance_name(name)
        self.name = name
        self._idle: list[_Connection] = []
        self._held: list[_Connection] = []
        self._lock = threading.Lock()
        self._closed = False

    def close(self) -> None:
        """Close the connections. The engine goes on; so do the runs."""
        with self._lock:
            self._closed = True
            ended = self._idle + self._held
            self._idle, self._held = [], []
        for connection in ended:
            connection.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- runs ---------------------------------------------------------------------------------------------

    def play(
        self,
        melody: Any,
        inputs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        request_id: bytes | None = None,
        timeout: float = ANSWER_S,
    ) -> "ClientRun":
        """Play a melody: a Score, a Melody, a shipped name or a file's path. Returns once the engine has taken it.

        Values of `inputs` are what msgpack can carry, or text that is read by the input's type; paths are made
        absolute here, since the engine's working directory is another one. Asking again with the same
        `request_id` (16 bytes, made when not given) gives the same run. Raises MelodyError, UsageError,
        ValueRefused, EngineLost.
        """
        score = as_score(melody)
        message = {
            "score": scores.dump(score),
            "inputs": parse_inputs(score, inputs or {}),
            "request_id": secrets.token_bytes(16) if request_id is None else request_id,
            "options": dict(options or {}),
        }
        answer = self._request("play", message, timeout)
        return ClientRun(self, answer["run"], score.name)

    def run(self, run: "int | ClientRun") -> dict[str, Any]:
        """The run as it is now: {"run", "name", "state", "nodes", "done", …, "steps": […], "error"}."""
        return self._request("run", {"run": _serial(run)})

    def runs(self) -> list[dict[str, Any]]:
        """Every run that the engine remembers, oldest first."""
        return self._request("runs", {})

    def wait(self, run: "int | ClientRun", timeout: float | None = None) -> dict[str, Any]:
        """Wait until the run has ended; returns it. Raises WaitTimeout (the run goes on), EngineLost."""
        deadline = None if timeout is None else time.monotonic() + timeout
        return self._wait(_serial(run), None, deadline)

    def watch(self, run: "int | ClientRun", timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """The run each time it moved on, from now until it has ended (that one too). Raises as `wait`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        seen = self.run(run)
        yield seen
        while seen["state"] not in ENDED:
            seen = self._wait(_serial(run), seen, deadline)
            yield seen

    def result(self, run: "int | ClientRun", timeout: float | None = None) -> dict[str, Any]:
        """Wait for the run and return its outputs by name, decoded: text as str, data as plain Python, arrays as
        read-only views, bytes as memoryviews, lists as sequences.

        Raises RunFailed (its facts name run, step and error), RunCancelled, WaitTimeout, EngineLost.
        """
        outputs = self.raw_result(run, timeout)
        return {name: value.decode(kind, payload) for name, (kind, payload) in outputs.items()}

    def raw_result(self, run: "int | ClientRun", timeout: float | None = None) -> dict[str, tuple[int, Any]]:
        """As `result`, but not decoded: {name: (kind, payload)}."""
        check_outcome(self.wait(run, timeout))
        outputs = self._request("result", {"run": _serial(run)})
        return {name: (kind, payload) for name, (kind, payload) in outputs.items()}

    def record(self, run: "int | ClientRun") -> list[dict[str, Any]]:
        """What every node of the run did: {step, node, state, attempt, started_ns, ended_ns, extension, pid, …}."""
        return self._request("record", {"run": _serial(run)})

    def cancel(self, run: "int | ClientRun") -> None:
        """Ask the run to stop: nothing new starts, what runs is told. Returns before it has ended."""
        self._request("cancel", {"run": _serial(run)})

    # -- the engine ---------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What the engine says of itself."""
        return self._request("status", {})

    def stop(self) -> None:
        """Ask the engine to end. Returns when it has agreed; `symphonyctl down` also waits for its processes."""
        self._request("stop", {})

    def hold(self) -> None:
        """Tie the engine's life to this client: it ends when the client is closed or its process dies, however."""
        connection = self._connection(time.monotonic() + ANSWER_S)
        self._held.append(connection)
        connection.ask({"op": "hold"}, time.monotonic() + ANSWER_S)

    # -- how ----------------------------------------------------------------------------------------------

    def _wait(self, serial: int, seen: dict[str, Any] | None, deadline: float | None) -> dict[str, Any]:
        shown = None if seen is None else {key: seen.get(key) for key in SEEN}
        while True:
            turn = TURN_S if deadline is None else max(0.0, min(TURN_S, deadline - time.monotonic()))
            run = self._request("wait", {"run": serial, "seen": shown, "timeout_s": turn}, turn + GRACE_S)
            if run["state"] in ENDED or (shown is not None and any(run.get(k) != shown[k] for k in SEEN)):
                return run
            if deadline is not None and time.monotonic() >= deadline:
                raise WaitTimeout(
                    f"run {serial} of {self.name!r} has not ended in time ({run['done']} of {run['nodes']} nodes "
                    "done); it goes on, wait again or cancel it",
                    run=serial,
                )

    def _request(self, operation: str, fields: dict[str, Any], timeout: float = ANSWER_S) -> Any:
        deadline = time.monotonic() + timeout
        message = {"op": operation, **fields}
        pause = threading.Event()
        lost, closed = False, 0
        while True:
            try:
                answer = self._ask(message, deadline)
                if lost:
                    self._hold_again(deadline)
                return answer
            except (wire.Closed, EngineNotFound, DoorError) as error:
                if not isinstance(error, wire.Closed) and not lost:
                    raise
                if operation == "stop":
                    return None
                # The same request again is safe: a play has its id, everything else only asks, or asks for what
                # already is. A Conductor that was killed comes back as long as its Keeper lives.
                closed += isinstance(error, wire.Closed)
                gone = (lost and not _lives(self.name)) or closed > CLOSED_MOST or time.monotonic() >= deadline
                if gone:
                    raise EngineLost(f"engine {self.name!r} went away while it was asked to {operation}") from error
                if lost:
                    pause.wait(LOOK_S)
                lost = True

    def _hold_again(self, deadline: float) -> None:
        """The engine is another process now: what tied its life to this client's is gone with the old one."""
        with self._lock:
            gone, self._held = self._held, []
        for connection in gone:
            connection.close()
            fresh = self._connection(deadline)
            fresh.ask({"op": "hold"}, deadline)
            with self._lock:
                self._held.append(fresh)

    def _ask(self, message: dict[str, Any], deadline: float) -> Any:
        connection = self._take() or self._connection(deadline)
        try:
            answer = connection.ask(message, deadline)
        except BaseException:
            connection.close()
            raise
        self._give(connection)
        if "error" in answer:
            raise from_wire(answer["error"])
        return answer.get("ok")

    def _take(self) -> "_Connection | None":
        with self._lock:
            if self._closed:
                raise DoorError("this client is closed")
            return self._idle.pop() if self._idle else None

    def _give(self, connection: "_Connection") -> None:
        with self._lock:
            if not self._closed and len(self._idle) < IDLE_CONNECTIONS:
                self._idle.append(connection)
                return
        connection.close()

    def _connection(self, deadline: float) -> "_Connection":
        """A new connection. An engine that ends, or is followed by another, between secret and hello is asked again."""
        secret = _read_secret(self.name)
        while True:
            try:
                return _Connection(self.name, secret, deadline)
            except wire.Closed:
                shown, secret = secret, _read_secret(self.name)
                if shown == secret:
                    raise DoorError(f"engine {self.name!r} refused the connection: the secret was not right") from None


class ClientRun:
    """A run of an engine in another process: its serial number and who to ask about it."""

    def __init__(self, client: Client, serial: int, name: str = ""):
        self.client = client
        self.serial = serial
        self.name = name

    def __repr__(self) -> str:
        return f"ClientRun({self.serial}, {self.name!r}, engine {self.client.name!r})"

    @property
    def state(self) -> str:
        """Its state now, by a request."""
        return self.client.run(self.serial)["state"]

    def wait(self, timeout: float | None = None) -> dict[str, Any]:
        """As `Client.wait`."""
        return self.client.wait(self.serial, timeout)

    def events(self, timeout: float | None = None) -> Iterator[dict[str, Any]]:
        """As `Client.watch`."""
        return self.client.watch(self.serial, timeout)

    def result(self, timeout: float | None = None) -> dict[str, Any]:
        """As `Client.result`."""
        return self.client.result(self.serial, timeout)

    def record(self) -> list[dict[str, Any]]:
        """As `Client.record`."""
        return self.client.record(self.serial)

    def cancel(self) -> None:
        """As `Client.cancel`."""
        self.client.cancel(self.serial)


class _Connection:
    """One connection that has shown the secret. One request at a time."""

    def __init__(self, name: str, secret: bytes, deadline: float):
        self._number = 0
        self._sock = _dial(name, wire.directory_of(name), deadline)
        try:
            answer = self.ask({"op": "hello", "secret": secret, "version": wire.VERSION}, deadline)
        except BaseException:
            self.close()
            raise
        if "error" in answer:
            self.close()
            raise from_wire(answer["error"])

    def ask(self, message: dict[str, Any], deadline: float) -> dict[str, Any]:
        """Send and await the answer that bears the same number; others are of requests that were given up."""
        self._number += 1
        self._send({**message, "id": self._number}, deadline)
        while True:
            self._patience(deadline)
            try:
                packet, descriptors = wire.receive(self._sock)
            except TimeoutError:
                raise WaitTimeout(f"the engine did not answer {message['op']!r} in time") from None
            answer = wire.unpack(packet, descriptors, RESULT_BYTES, mapped=True)
            if answer.get("id") == self._number:
                return answer

    def close(self) -> None:
        self._sock.close()

    def _send(self, message: dict[str, Any], deadline: float) -> None:
        try:
            packet, descriptor = wire.pack(message)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueRefused(f"an input cannot travel to the engine: {error}") from None
        try:
            self._patience(deadline)
            wire.transmit(self._sock, packet, descriptor)
        except TimeoutError:
            raise WaitTimeout(f"the engine did not take {message['op']!r} in time") from None
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _patience(self, deadline: float) -> None:
        self._sock.settimeout(max(0.001, deadline - time.monotonic()))


def _dial(name: str, directory: Path, deadline: float) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        with wire.folder_address(directory, wire.SOCKET_NAME) as address:
            sock.connect(address)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        sock.close()
        raise _not_found(name) from None
    except OSError as error:
        sock.close()
        raise NotAllowed(f"the door of engine {name!r} in {directory} cannot be reached: {error.strerror}") from None
    return sock


def _lives(name: str) -> bool:
    """Whether a process of that engine, its Keeper above all, is still there."""
    return any(process.judge() == LIVE for process in owners_of(name))


def _read_secret(name: str) -> bytes:
    directory = wire.directory_of(name)
    try:
        return (directory / wire.SECRET_NAME).read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise _not_found(name) from None
    except OSError as error:
        raise NotAllowed(f"the secret of engine {name!r} in {directory} cannot be read: {error.strerror}") from None


def _not_found(name: str) -> EngineNotFound:
    how = f"start it: symphonyctl -n {name} up"
    if any(entry.state == DEAD and entry.recoverable for entry in plan(instance=name).entries):
        how = f"its state is there still: symphonyctl -n {name} up --recover goes on from it, without --recover it is swept"
    return EngineNotFound(f"no engine named {name!r} runs; {how}", engine=name)


def check_outcome(run: Mapping[str, Any]) -> None:
    """Raise RunFailed or RunCancelled for a run that ended so."""
    if run["state"] == "cancelled":
        raise RunCancelled(f"run {run['run']} ({run['name']}) was cancelled", run=run["run"])
    if run["state"] != "failed":
        return
    broken = next((step for step in run.get("steps", ()) if step["state"] == "failed"), {})
    text = run.get("error") or broken.get("error") or "it gives no reason"
    raise RunFailed(
        f"run {run['run']} ({run['name']}) failed: {text}", run=run["run"], step=broken.get("step"), error=text
    )


def as_score(melody: Any) -> scores.Score:
    """The Score of what may be played: a Score, a Melody, or a shipped name or path as text."""
    if isinstance(melody, scores.Score):
        return melody
    from symphony.catalogue import catalogue
    from symphony.melody.find import score_of

    return score_of(melody, catalogue=catalogue())


def _serial(run: "int | ClientRun") -> int:
    if isinstance(run, ClientRun):
        return run.serial
    if isinstance(run, int):
        return run
    raise SymphonyError(f"{run!r} is not a run: give its serial number or what play() returned")
