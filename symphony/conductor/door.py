"""The control door: how other processes of this user act on a running engine.

One thread, one selector, nothing that blocks: a client that is silent, slow, gone or hostile costs a bounded
amount of memory and never the time of another. Each request becomes one call of the Conductor object; a wait is
not a call but a row in a table, looked at again when the Conductor says that its run moved (`notify`).

Who may come in: a process of the same uid (the kernel's word for it) that shows the secret from the 0600 file
beside the socket. An extension of the same uid might reach the socket; it cannot read the file.
"""

import contextlib
import errno
import hmac
import logging
import os
import secrets
import selectors
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from symphony.bus import door_wire as wire
from symphony.model import limits
from symphony.model.errors import DoorError, SymphonyError, UsageError, to_wire

log = logging.getLogger("symphony.door")

CLIENTS = 64
STRANGERS = 16
"""Connections that have not shown the secret yet; one more puts the oldest of them out."""
WAITS = 1024
WAITS_A_CLIENT = 64
PACKETS_A_TURN = 8
"""Requests of one client served before the others have their turn."""
HELLO_S = 5.0
HOLDER_S = 15.0
"""A client that an engine was started for may take so long to come back to a Conductor that came back."""
REQUEST_BYTES = limits.SCORE_BYTES + (64 << 20)
"""The longest request, in a memfd."""
WAIT_S = 3600.0
"""The longest wait that is kept; a client asks again."""
LOOK_S = 0.005
"""The least time between two looks at the runs that moved: a busy run costs its watchers, not the engine."""
LOOK_SHARE = 4.0
"""A look that takes long (a run of many nodes) is followed by a rest that many times as long."""
STEPS_WATCHED = 256
"""Steps that a watched run is told with while it goes on."""
ACCEPT_PAUSE_S = 0.5
"""Rest of the listener when the process is out of descriptors: the queue waits in the kernel."""

ENDED = frozenset({"completed", "failed", "cancelled"})
"""States of a run that do not change any more."""

WATCHED = ("state", "nodes", "done", "failed", "running")
"""What of a run `seen` is compared by."""


class Conductor(Protocol):
    """What the door calls, always from its own thread and one call at a time. A SymphonyError reaches the client
    as it is; another exception is reported as a fault of the engine. No method waits for a run."""

    def play(self, score: bytes, inputs: dict[str, Any], request_id: bytes, options: dict[str, Any]) -> dict: ...
    def run(self, serial: int) -> dict: ...
    def runs(self) -> list[dict]: ...
    def status(self) -> dict: ...
    def result(self, serial: int) -> dict: ...
    def record(self, serial: int) -> list[dict]: ...
    def cancel(self, serial: int) -> Any: ...
    def hold(self) -> Any:
        """A client ties the engine's life to its own."""

    def stop(self) -> Any:
        """Ask the engine to end; returns at once, so that the asking client gets its answer."""


class _Client:
    """One connection: its socket, whether it showed the secret, and what could not be sent to it yet."""

    __slots__ = ("born", "holds", "known", "number", "outbox", "sock", "waits")

    def __init__(self, number: int, sock: socket.socket, now: float):
        self.number = number
        self.sock = sock
        self.born = now
        self.known = False
        self.holds = False
        self.outbox: deque[tuple[bytes, int | None]] = deque()
        self.waits = 0


class _Wait:
    """A client's wait for a run: until it ended, or differs from what the client has `seen`."""

    __slots__ = ("client", "deadline", "request", "seen", "serial")

    def __init__(self, client: _Client, request: Any, serial: int, seen: dict | None, deadline: float):
        self.client = client
        self.request = request
        self.serial = serial
        self.seen = seen
        self.deadline = deadline


class Door:
    """The server thread of an engine's control door.

    `directory` is the instance's 0700 runtime folder; `held`: a client had tied the engine's life to its own before
    this Conductor took over. `start()` makes the secret and the socket and begins to
    serve; `close()` ends both and removes them. `notify` may be called from any thread at any rate; `start` and
    `close` from one thread, once. A forked child calls `disown`.
    """

    def __init__(self, conductor: Conductor, directory: str | os.PathLike[str], *, held: bool = False):
        self.directory = Path(directory)
        self._awaited_holder = time.monotonic() + HOLDER_S if held else None
        self._conductor = conductor
        self._clients: dict[int, _Client] = {}
        self._waits: list[_Wait] = []
        self._moved: set[int] = set()
        self._moved_lock = threading.Lock()
        self._next_look = 0.0
        self._closing = False
        self._resume_accept: float | None = None
        self._numbers = 0
        self._wake_in = -1
        self._thread: threading.Thread | None = None
        self._operations: dict[str, Callable[[dict], Any]] = {
            "play": self._play,
            "run": lambda m: conductor.run(_serial(m)),
            "runs": lambda m: conductor.runs(),
            "status": lambda m: conductor.status(),
            "result": lambda m: _result(conductor.result(_serial(m))),
            "record": lambda m: conductor.record(_serial(m)),
            "cancel": lambda m: conductor.cancel(_serial(m)),
        }

    # -- life ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make secret and socket, start the thread. Raises OSError when the folder cannot hold them."""
        self._secret = secrets.token_bytes(wire.SECRET_BYTES)
        self._write_secret()
        self._listener = self._listen()
        self._wake_out, self._wake_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._selector.register(self._wake_out, selectors.EVENT_READ, self._woken)
        self._thread = threading.Thread(target=self._serve, name="symphony-door", daemon=True)
        self._thread.start()

    def notify(self, serial: int) -> None:
        """Say that a run moved: waits for it are looked at again. Thread-safe, never blocks, carries no fact."""
        with self._moved_lock:
            first = not self._moved
            self._moved.add(serial)
            if first:
                self._wake()

    def close(self, deadline_s: float = 5.0) -> None:
        """Stop serving: waiting clients are told, connections closed, socket and secret removed. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._closing = True
        with self._moved_lock:
            self._wake()
        if thread is not threading.current_thread():
            thread.join(deadline_s)
        for name in (wire.SOCKET_NAME, wire.SECRET_NAME):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.directory / name)

    def disown(self) -> None:
        """In a forked child, where its thread is not: nobody can come in by what the child has of it."""
        self._moved_lock = threading.Lock()
        self._thread, self._closing = None, True
        for client in self._clients.values():
            client.sock.close()
            wire.close_all([descriptor for _, descriptor in client.outbox if descriptor is not None])
        self._selector.close()
        self._listener.close()
        os.close(self._wake_out)
        os.close(self._wake_in)
        self._wake_in = -1

    def _write_secret(self) -> None:
        path = self.directory / wire.SECRET_NAME
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, self._secret)
        finally:
            os.close(descriptor)

    def _listen(self) -> socket.socket:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.directory / wire.SOCKET_NAME)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            with wire.folder_address(self.directory, wire.SOCKET_NAME) as address:
                listener.bind(address)
            os.chmod(self.directory / wire.SOCKET_NAME, 0o600)
            listener.listen(CLIENTS)
        except BaseException:
            listener.close()
            raise
        return listener

    def _wake(self) -> None:
        """Under the lock: the pipe's end is not closed, and its number not given to another file, meanwhile."""
        if self._wake_in >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_in, b"\0")

    # -- the loop -----------------------------------------------------------------------------------------

    def _serve(self) -> None:
        try:
            while not self._closing:
                for key, mask in self._selector.select(self._patience()):
                    key.data(mask)
                self._look_at_moved()
                self._expire(time.monotonic())
        except BaseException:
            log.exception("the control door ends by a fault of its own")
        finally:
            self._shut()

    def _patience(self) -> float | None:
        deadlines = [wait.deadline for wait in self._waits]
        if self._moved:
            deadlines.append(self._next_look)
        deadlines += [client.born + HELLO_S for client in self._clients.values() if not client.known]
        if self._resume_accept is not None:
            deadlines.append(self._resume_accept)
        if self._awaited_holder is not None:
            deadlines.append(self._awaited_holder)
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def _woken(self, mask: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_out, 4096)

    def _look_at_moved(self) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        with self._moved_lock:
            moved, self._moved = self._moved, set()
        waits = [wait for wait in self._waits if wait.serial in moved]
        if waits:
            self._settle(waits, final=False)
            ended = time.monotonic()
            self._next_look = ended + max(LOOK_S, LOOK_SHARE * (ended - now))

    def _expire(self, now: float) -> None:
        for client in [c for c in self._clients.values() if not c.known and now >= c.born + HELLO_S]:
            # It may have spoken while this thread did not run: the compiler can hold the interpreter for long.
            self._client_ready(client, selectors.EVENT_READ)
            if not client.known:
                self._drop(client, "it did not show the secret in time")
        if self._awaited_holder is not None and now >= self._awaited_holder:
            self._awaited_holder = None
            log.info("the client that this engine was started for has not come back: the engine ends")
            self._conductor.stop()
        self._settle([wait for wait in self._waits if now >= wait.deadline], final=True)
        if self._resume_accept is not None and now >= self._resume_accept:
            self._resume_accept = None
            self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _shut(self) -> None:
        for client in list(self._clients.values()):
            self._drop(client, "the engine ends")
        self._selector.close()
        self._listener.close()
        # Both ends at once: a caller that woke this thread between the two would write into a pipe without a reader.
        with self._moved_lock:
            os.close(self._wake_out)
            os.close(self._wake_in)
            self._wake_in = -1

    # -- connections --------------------------------------------------------------------------------------

    def _accept(self, mask: int) -> None:
        try:
            sock, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                self._selector.unregister(self._listener)
                self._resume_accept = time.monotonic() + ACCEPT_PAUSE_S
            return
        sock.setblocking(False)
        if not self._admit(sock):
            sock.close()
            return
        self._numbers += 1
        client = _Client(self._numbers, sock, time.monotonic())
        self._clients[client.number] = client
        self._selector.register(sock, selectors.EVENT_READ, lambda mask: self._client_ready(client, mask))

    def _admit(self, sock: socket.socket) -> bool:
        _, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid != os.getuid():
            log.warning("a process of uid %d came to the door: refused", uid)
            return False
        strangers = [client for client in self._clients.values() if not client.known]
        if len(strangers) >= STRANGERS:
            self._drop(strangers[0], "too many connections have not shown the secret")
        return True

    def _drop(self, client: _Client, reason: str) -> None:
        if self._clients.pop(client.number, None) is None:
            return
        log.debug("client %d leaves: %s", client.number, reason)
        self._selector.unregister(client.sock)
        client.sock.close()
        wire.close_all([descriptor for _, descriptor in client.outbox if descriptor is not None])
        client.outbox.clear()
        self._waits = [wait for wait in self._waits if wait.client is not client]
        if client.holds and not self._closing:
            log.info("the client that this engine was started for has gone: the engine ends")
            self._conductor.stop()

    def _client_ready(self, client: _Client, mask: int) -> None:
        if client.number not in self._clients:
            return
        try:
            if mask & selectors.EVENT_WRITE:
                self._flush(client)
            elif mask & selectors.EVENT_READ:
                self._read(client)
        except wire.Closed:
            self._drop(client, "it closed the connection")
        except (DoorError, OSError) as error:
            self._drop(client, str(error))

    def _read(self, client: _Client) -> None:
        for _ in range(PACKETS_A_TURN):
            limit = wire.PACKET_BYTES if client.known else wire.HELLO_BYTES
            try:
                packet, descriptors = wire.receive(client.sock, limit)
            except BlockingIOError:
                return
            message = wire.unpack(packet, descriptors, REQUEST_BYTES if client.known else wire.HELLO_BYTES)
            self._handle(client, message)
            if client.outbox or client.number not in self._clients:
                return

    def _send(self, client: _Client, answer: dict[str, Any]) -> None:
        """Send now, or when the client reads again; until then no further request of it is read."""
        if client.number not in self._clients:
            return
        client.outbox.append(_pack_answer(answer))
        if len(client.outbox) == 1:
            self._flush(client)

    def _flush(self, client: _Client) -> None:
        while client.outbox:
            packet, descriptor = client.outbox[0]
            try:
                wire.transmit(client.sock, packet, descriptor)
            except BlockingIOError:
                break
            client.outbox.popleft()
            if descriptor is not None:
                os.close(descriptor)
        interest = selectors.EVENT_WRITE if client.outbox else selectors.EVENT_READ
        key = self._selector.get_key(client.sock)
        if key.events != interest:
            self._selector.modify(client.sock, interest, key.data)

    # -- requests -----------------------------------------------------------------------------------------

    def _handle(self, client: _Client, message: dict[str, Any]) -> None:
        number, operation = message.get("id"), message.get("op")
        if not client.known:
            self._hello(client, number, message)
        elif operation == "wait":
            self._answer(client, number, lambda: self._begin_wait(client, number, message))
        elif operation == "hold":
            client.holds = True
            self._awaited_holder = None
            self._answer(client, number, self._conductor.hold)
        elif operation == "stop":
            self._answer(client, number, self._conductor.stop)
        elif operation in self._operations:
            self._answer(client, number, lambda: self._operations[operation](message))
        else:
            self._answer(client, number, lambda: _refuse(f"the control door knows no operation {operation!r}"))

    def _hello(self, client: _Client, number: Any, message: dict[str, Any]) -> None:
        shown = message.get("secret")
        right = isinstance(shown, bytes) and hmac.compare_digest(shown, self._secret)
        if message.get("op") != "hello" or not right:
            raise DoorError("it did not show the right secret")
        fault = self._unwelcome(message.get("version"))
        if fault is not None:
            self._send(client, {"id": number, "error": to_wire(UsageError(fault))})
            raise DoorError(fault)
        client.known = True
        self._send(client, {"id": number, "ok": {"version": wire.VERSION, "pid": os.getpid()}})

    def _unwelcome(self, version: Any) -> str | None:
        if version != wire.VERSION:
            return (
                f"this engine's control door speaks version {wire.VERSION}, not {version!r}; use the symphonyctl "
                "that belongs to the engine, or start the engine again"
            )
        if sum(client.known for client in self._clients.values()) >= CLIENTS:
            return f"{CLIENTS} clients are connected to this engine, the limit; close one and try again"
        return None

    def _answer(self, client: _Client, number: Any, call: Callable[[], Any]) -> None:
        try:
            value = call()
        except SymphonyError as error:
            self._send(client, {"id": number, "error": to_wire(error)})
        except Exception as error:
            log.exception("a request at the control door met a fault of the engine")
            self._send(client, {"id": number, "error": to_wire(error)})
        else:
            if value is not _LATER:
                self._send(client, {"id": number, "ok": value})

    def _play(self, message: dict[str, Any]) -> Any:
        score, inputs = message.get("score"), message.get("inputs", {})
        request_id, options = message.get("request_id"), message.get("options", {})
        _require(isinstance(score, bytes), "play: 'score' is not bytes")
        _require(isinstance(inputs, dict) and isinstance(options, dict), "play: 'inputs' or 'options' is not a map")
        _require(isinstance(request_id, bytes) and len(request_id) == 16, "play: 'request_id' is not 16 bytes")
        return self._conductor.play(score, inputs, request_id, options)

    # -- waits --------------------------------------------------------------------------------------------

    def _begin_wait(self, client: _Client, number: Any, message: dict[str, Any]) -> Any:
        serial, seen, timeout_s = _serial(message), message.get("seen"), message.get("timeout_s")
        _require(seen is None or isinstance(seen, dict), "wait: 'seen' is neither nil nor a map")
        _require(type(timeout_s) in (int, float) and timeout_s >= 0, "wait: 'timeout_s' is not a number of seconds")
        run = self._conductor.run(serial)
        if _moved_on(run, seen) or timeout_s == 0:
            return _brief(run)
        if len(self._waits) >= WAITS or client.waits >= WAITS_A_CLIENT:
            return _refuse(f"too many waits at once ({WAITS_A_CLIENT} a client, {WAITS} in all)")
        deadline = time.monotonic() + min(timeout_s, WAIT_S)
        self._waits.append(_Wait(client, number, serial, seen, deadline))
        client.waits += 1
        return _LATER

    def _settle(self, waits: list[_Wait], *, final: bool) -> None:
        """Look at the runs of `waits` again and answer those that moved on (`final`: all of them)."""
        runs: dict[int, Any] = {}
        for wait in waits:
            if wait.serial not in runs:
                runs[wait.serial] = self._look(wait.serial)
            answer = runs[wait.serial]
            if not final and "ok" in answer and not _moved_on(answer["ok"], wait.seen):
                continue
            if wait not in self._waits:
                continue
            self._waits.remove(wait)
            wait.client.waits -= 1
            try:
                self._send(wait.client, {"id": wait.request, **answer})
            except (DoorError, OSError) as error:
                self._drop(wait.client, str(error))

    def _look(self, serial: int) -> dict[str, Any]:
        try:
            return {"ok": _brief(self._conductor.run(serial))}
        except Exception as error:
            if not isinstance(error, SymphonyError):
                log.exception("a wait at the control door met a fault of the engine")
            return {"error": to_wire(error)}


_LATER = object()


def _moved_on(run: dict[str, Any], seen: dict[str, Any] | None) -> bool:
    if run.get("state") in ENDED:
        return True
    return seen is not None and any(run.get(key) != seen.get(key) for key in WATCHED)


def _brief(run: dict[str, Any]) -> dict[str, Any]:
    """The run as its watchers see it: of very many steps only the sums are told before its end."""
    if run.get("state") in ENDED or len(run.get("steps", ())) <= STEPS_WATCHED:
        return run
    return {**run, "steps": []}


def _pack_answer(answer: dict[str, Any]) -> tuple[bytes, int | None]:
    try:
        return wire.pack(answer)
    except (TypeError, ValueError, OverflowError, OSError) as error:
        log.exception("an answer at the control door could not be encoded")
        return wire.pack({"id": answer.get("id"), "error": to_wire(error)})


def _result(outputs: dict[str, tuple[int, Any]]) -> dict[str, list[Any]]:
    return {name: [int(kind), payload] for name, (kind, payload) in outputs.items()}


def _serial(message: dict[str, Any]) -> int:
    serial = message.get("run")
    _require(type(serial) is int and 0 <= serial < 1 << 63, "'run' is not the serial number of a run")
    return serial


def _require(condition: bool, text: str) -> None:
    if not condition:
        _refuse(text)


def _refuse(text: str) -> Any:
    raise UsageError(text)
