"""The control door over its real socket: what it answers, and that a hostile client hurts nobody else."""

import array
import fcntl
import os
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time

import msgspec
import pytest

from symphony.bus import door_wire as wire
from symphony.bus.door_wire import directory_of
from symphony.client import Client, connect
from symphony.conductor import door as door_module
from symphony.model import value
from symphony.model.errors import (
    DoorError,
    EngineLost,
    EngineNotFound,
    ExtensionError,
    RunCancelled,
    RunFailed,
    RunNotFound,
    SymphonyError,
    UsageError,
    ValueRefused,
    WaitTimeout,
)
from tests.door.stage import open_door, small_score

NAME = "doortest"
DEADLINE_S = 20.0


@pytest.fixture
def stage():
    conductor, _ = open_door(NAME)
    yield conductor
    conductor.door.close()
    os.rmdir(directory_of(NAME))


@pytest.fixture
def client(stage):
    with connect(NAME) as client:
        yield client


def knock() -> socket.socket:
    """A connection that has not shown the secret."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(DEADLINE_S)
    with wire.folder_address(directory_of(NAME), wire.SOCKET_NAME) as address:
        sock.connect(address)
    return sock


def secret() -> bytes:
    return (directory_of(NAME) / wire.SECRET_NAME).read_bytes()


def enter() -> socket.socket:
    """A connection that has."""
    sock = knock()
    assert ask(sock, {"op": "hello", "id": 0, "secret": secret(), "version": wire.VERSION})["ok"]["pid"] == os.getpid()
    return sock


def ask(sock, message):
    packet, descriptor = wire.pack(message)
    wire.transmit(sock, packet, descriptor)
    if descriptor is not None:
        os.close(descriptor)
    return wire.unpack(*wire.receive(sock), 1 << 30, mapped=True)


def assert_closed(sock):
    with pytest.raises(wire.Closed):
        wire.receive(sock)
    sock.close()


def in_process(code: str, *arguments: str) -> subprocess.CompletedProcess:
    """Run a client's program in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# -- what it answers --------------------------------------------------------------------------------------


def test_a_run_from_another_process(stage):
    stage.on_play = lambda conductor, serial: conductor.finish(
        serial, {"text": (value.TEXT, b"found"), "list": (value.LIST, value.payload_of(value.encode(["a", "b"])))}
    )
    program = """
        import sys
        from symphony.client import connect
        from tests.door.stage import small_score
        with connect(sys.argv[1]) as client:
            run = client.play(small_score(), {"path": "src"})
            result = run.result(timeout=20)
            print(result["text"], list(result["list"]), run.serial, "numba" in sys.modules)
    """
    done = in_process(program, NAME)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["found", "['a',", "'b']", "1", "False"]
    assert stage.inputs[1]["path"] == os.path.abspath("src")


def test_files_are_the_users_alone(stage):
    folder = directory_of(NAME)
    assert stat.S_IMODE(os.stat(folder / wire.SECRET_NAME).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(folder / wire.SOCKET_NAME).st_mode) == 0o600


def test_no_engine_of_that_name():
    with pytest.raises(EngineNotFound) as told:
        connect("nobody")
    assert told.value.exit_code == 3
    assert not directory_of("nobody").exists()


def test_a_socket_that_nobody_serves(stage):
    stage.door.close()
    folder = directory_of(NAME)
    dead = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    dead.bind(str(folder / wire.SOCKET_NAME))
    dead.close()
    (folder / wire.SECRET_NAME).write_bytes(b"x" * 32)
    with pytest.raises(EngineNotFound):
        connect(NAME)
    (folder / wire.SOCKET_NAME).unlink()
    (folder / wire.SECRET_NAME).unlink()


def test_the_same_request_gives_the_same_run(stage, client):
    first = client.play(small_score(), {"path": "/"}, request_id=b"0123456789abcdef")
    again = client.play(small_score(), {"path": "/"}, request_id=b"0123456789abcdef")
    other = client.play(small_score(), {"path": "/"})
    assert (first.serial, again.serial, other.serial) == (1, 1, 2)


def test_typed_errors_cross_with_their_facts(client):
    with pytest.raises(ExtensionError) as told:
        client.play(small_score(), {"path": "/", "break": "typed"})
    assert told.value.facts["extension"] == "nowhere"
    with pytest.raises(SymphonyError, match="ZeroDivisionError: by a mistake of ours"):
        client.play(small_score(), {"path": "/", "break": "bug"})
    with pytest.raises(RunNotFound):
        client.run(99)
    assert client.status()["state"] == "ready"


def test_an_input_that_cannot_travel(client):
    with pytest.raises(UsageError, match="path"):
        client.play(small_score(), {"path": object()})
    with pytest.raises(ValueRefused):
        client.play(small_score(), {"path": "/"}, {"odd": object()})


def test_outcomes(stage, client):
    failed, cancelled = (client.play(small_score(), {"path": "/"}) for _ in range(2))
    stage.finish(failed.serial, {}, "failed", "OSError: it is gone")
    cancelled.cancel()
    with pytest.raises(RunFailed, match="OSError: it is gone") as told:
        failed.result(timeout=DEADLINE_S)
    assert told.value.facts["step"] == "walk"
    with pytest.raises(RunCancelled):
        cancelled.result(timeout=DEADLINE_S)


def test_a_wait_ends_by_its_notice(stage, client):
    run = client.play(small_score(), {"path": "/"})
    mover = threading.Thread(target=stage.finish, args=(run.serial, {"n": (value.DATA, msgspec.msgpack.encode(7))}))
    mover.start()
    assert run.result(timeout=DEADLINE_S) == {"n": 7}
    mover.join()


def test_a_wait_ends_by_its_deadline(client):
    run = client.play(small_score(), {"path": "/"})
    with pytest.raises(WaitTimeout):
        run.wait(timeout=0.05)
    assert run.state == "queued"


def test_watch_tells_every_change(stage, client):
    run = client.play(small_score(), {"path": "/"})
    seen = []
    for state in run.events(timeout=DEADLINE_S):
        seen.append((state["state"], state["done"]))
        if state["state"] == "queued":
            stage.move(run.serial, state="running")
        elif state["done"] == 0:
            stage.move(run.serial, done=1)
        elif state["done"] == 1:
            stage.finish(run.serial, {})
    assert seen == [("queued", 0), ("running", 0), ("running", 1), ("completed", 2)]


def test_large_messages_go_beside_the_packet(stage, client):
    blob = os.urandom(3 << 20)
    stage.on_play = lambda conductor, serial: conductor.finish(
        serial, {"back": (value.BYTES, conductor.inputs[serial]["blob"])}
    )
    run = client.play(small_score(), {"path": "/", "blob": blob})
    assert stage.inputs[run.serial]["blob"] == blob
    assert run.result(timeout=DEADLINE_S)["back"] == blob


def test_threads_share_a_client(stage, client):
    runs = [client.play(small_score(), {"path": "/"}) for _ in range(8)]
    results = {}
    waiting = [threading.Thread(target=lambda r=run: results.update({r.serial: r.result(DEADLINE_S)})) for run in runs]
    for thread in waiting:
        thread.start()
    for run in reversed(runs):
        stage.finish(run.serial, {"n": (value.DATA, msgspec.msgpack.encode(run.serial))})
    for thread in waiting:
        thread.join(DEADLINE_S)
    assert results == {run.serial: {"n": run.serial} for run in runs}


def test_a_door_closes_while_its_runs_move():
    """Who wakes the door's thread just as it ends finds both ends of its pipe, or none."""
    faults = []
    for _ in range(100):
        _, door = open_door(NAME)
        over = threading.Event()

        def move(door=door, over=over):
            try:
                while not over.is_set():
                    door.notify(1)
            except OSError as error:
                faults.append(error)

        mover = threading.Thread(target=move)
        mover.start()
        try:
            door.close()
        finally:
            over.set()
            mover.join()
            os.rmdir(directory_of(NAME))
    assert not faults


def test_stop_is_answered_and_a_close_tells_those_who_wait(stage, client):
    run = client.play(small_score(), {"path": "/"})
    errors = []

    def wait():
        try:
            run.wait(timeout=DEADLINE_S)
        except SymphonyError as error:
            errors.append(type(error))

    thread = threading.Thread(target=wait)
    thread.start()
    await_until(lambda: stage.door._waits)
    client.stop()
    assert stage.stopped.wait(DEADLINE_S)
    stage.door.close()
    thread.join(DEADLINE_S)
    assert errors == [EngineLost]
    assert os.listdir(directory_of(NAME)) == []


def test_an_engine_ends_with_the_client_that_holds_it(stage):
    program = f"""
        import os, signal
        from symphony.client import connect
        connect({NAME!r}).hold()
        os.kill(os.getpid(), signal.SIGKILL)
    """
    with connect(NAME):
        pass
    assert not stage.stopped.is_set()
    assert in_process(program).returncode == -9
    assert stage.stopped.wait(DEADLINE_S)


# -- who may come in --------------------------------------------------------------------------------------


def test_nothing_is_answered_before_the_secret(stage):
    for first in (
        {"op": "status", "id": 1},
        {"op": "hello", "id": 1, "secret": b"0" * 32, "version": wire.VERSION},
        {"op": "hello", "id": 1, "secret": "text", "version": wire.VERSION},
        {"op": "hello", "id": 1},
    ):
        sock = knock()
        wire.transmit(sock, wire.pack(first)[0], None)
        assert_closed(sock)


def test_a_wrong_secret_is_told_as_such(stage):
    (directory_of(NAME) / wire.SECRET_NAME).write_bytes(b"y" * 32)
    with pytest.raises(DoorError, match="secret"):
        connect(NAME)


def test_another_version_is_told(stage):
    sock = knock()
    answer = ask(sock, {"op": "hello", "id": 5, "secret": secret(), "version": 999})
    assert answer["id"] == 5 and "version" in answer["error"]["message"]
    assert_closed(sock)


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_another_user_is_refused(stage):
    folder = directory_of(NAME)
    hello = wire.pack({"op": "hello", "id": 0, "secret": secret(), "version": wire.VERSION})[0]
    os.chmod(folder, 0o777)
    os.chmod(folder.parent, 0o777)
    os.chmod(folder / wire.SOCKET_NAME, 0o666)
    program = """
        import os, socket, sys
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(20)
        os.setuid(65534)
        sock.connect(sys.argv[1])
        try:
            sock.send(bytes.fromhex(sys.argv[2]))
            print(sock.recv(100))
        except (BrokenPipeError, ConnectionResetError):
            print(b"")
    """
    done = in_process(program, str(folder / wire.SOCKET_NAME), hello.hex())
    os.chmod(folder, 0o700)
    os.chmod(folder.parent, 0o700)
    assert done.stdout.strip() == "b''", done.stderr


# -- hostile clients --------------------------------------------------------------------------------------


@pytest.mark.parametrize("packet", [b"\xc1", b"\x93\x01\x02\x03", b"garbage" * 100, b"\x81" * 5000, b"\x00"])
def test_garbage_ends_its_own_connection_only(stage, client, packet):
    sock = enter()
    sock.send(packet)
    assert_closed(sock)
    assert client.status()["state"] == "ready"


def test_random_packets(stage, client, seed):
    import random

    chance = random.Random(seed)
    for _ in range(100):
        sock = enter()
        try:
            sock.send(chance.randbytes(chance.choice([1, 7, 64, 1000, 40000])))
            sock.send(
                wire.pack(
                    {"op": chance.choice(["play", "wait", "run", 7, None]), "id": chance.choice([1, [], {}]), "run": -1}
                )[0]
            )
        except (BrokenPipeError, ConnectionResetError):
            pass
        sock.close()
    assert client.status()["state"] == "ready"


@pytest.mark.parametrize(
    "message",
    [
        {"op": "run", "run": "one"},
        {"op": "run", "run": -1},
        {"op": "run", "run": True},
        {"op": "wait", "run": 1, "timeout_s": "x"},
        {"op": "wait", "run": 1, "timeout_s": float("nan")},
        {"op": "wait", "run": 1, "timeout_s": 1, "seen": 5},
        {"op": "play", "score": "text"},
        {"op": "play", "score": b"", "request_id": b"short"},
        {"op": "play"},
        {"op": "dance"},
        {},
    ],
)
def test_wrong_fields_are_a_usage_error(stage, client, message):
    client.play(small_score(), {"path": "/"})
    sock = enter()
    answer = ask(sock, {**message, "id": 3})
    assert (answer["id"], answer["error"]["error"]) == (3, "UsageError")
    sock.close()


def test_a_packet_over_the_limit(stage, client):
    sock = enter()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 18)
    sock.send(b"\xda" + bytes(wire.PACKET_BYTES))
    assert_closed(sock)
    stranger = knock()
    stranger.send(bytes(wire.HELLO_BYTES + 1))
    assert_closed(stranger)
    assert client.status()["state"] == "ready"


def memfd(size, seals):
    descriptor = os.memfd_create("hostile", os.MFD_ALLOW_SEALING)
    os.truncate(descriptor, size)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


@pytest.mark.parametrize(
    ("told", "real", "seals"),
    [
        (100, 100, 0),
        (100, 100, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW),
        (100, 50, wire.SEALS),
        (100, 200, wire.SEALS),
        (door_module.REQUEST_BYTES + 1, door_module.REQUEST_BYTES + 1, wire.SEALS),
        (-1, 10, wire.SEALS),
        ("many", 10, wire.SEALS),
    ],
)
def test_a_memfd_that_is_not_as_announced(stage, client, told, real, seals):
    sock, descriptor = enter(), memfd(real, seals)
    socket.send_fds(sock, [msgspec.msgpack.encode({"memfd": told})], [descriptor])
    os.close(descriptor)
    assert_closed(sock)
    assert client.status()["state"] == "ready"


def test_a_descriptor_that_is_no_memfd_or_unasked_or_missing(stage, client):
    reader, writer = os.pipe()
    for packet, descriptors in (
        ({"memfd": 5}, [reader]),
        ({"op": "status", "id": 1}, [reader]),
        ({"memfd": 5}, []),
        ({"memfd": 5}, [reader, writer]),
    ):
        sock = enter()
        socket.send_fds(sock, [msgspec.msgpack.encode(packet)], descriptors)
        assert_closed(sock)
    os.close(reader)
    os.close(writer)
    assert client.status()["state"] == "ready"


def test_a_crowd_of_descriptors_is_closed(stage, client):
    before = len(os.listdir("/proc/self/fd"))
    sock = enter()
    rights = array.array("i", [sock.fileno()] * 200)
    sock.sendmsg([msgspec.msgpack.encode({"op": "status", "id": 1})], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    assert_closed(sock)
    assert client.status()["state"] == "ready"
    await_until(lambda: len(os.listdir("/proc/self/fd")) <= before)


def await_until(condition):
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def test_half_open_connections_do_not_keep_others_out(stage):
    strangers = [knock() for _ in range(3 * door_module.STRANGERS)]
    with connect(NAME) as client:
        assert client.status()["state"] == "ready"
    for sock in strangers:
        sock.close()


def test_a_silent_stranger_is_put_out(stage, monkeypatch):
    monkeypatch.setattr(door_module, "HELLO_S", 0.05)
    assert_closed(knock())


def test_the_number_of_clients_is_bounded(stage):
    inside = [enter() for _ in range(door_module.CLIENTS)]
    with pytest.raises(UsageError, match="limit"):
        connect(NAME)
    inside.pop().close()
    await_until(lambda: len(stage.door._clients) < door_module.CLIENTS)
    with connect(NAME) as client:
        assert client.status()["state"] == "ready"
    for sock in inside:
        sock.close()


def test_the_number_of_waits_is_bounded(stage, client):
    run = client.play(small_score(), {"path": "/"})
    sock = enter()
    for number in range(door_module.WAITS_A_CLIENT):
        wire.transmit(sock, wire.pack({"op": "wait", "id": number, "run": run.serial, "timeout_s": 1000.0})[0], None)
    answer = ask(sock, {"op": "wait", "id": "last", "run": run.serial, "timeout_s": 1000.0})
    assert answer["id"] == "last" and answer["error"]["error"] == "UsageError"
    sock.close()
    await_until(lambda: not stage.door._waits)


def test_a_client_that_does_not_read_costs_only_itself(stage, client):
    """It asks without end and reads nothing: its requests stay in the kernel, others are served."""
    sock = enter()
    sock.settimeout(0.2)
    status = wire.pack({"op": "status", "id": 1})[0]
    with pytest.raises(TimeoutError):
        while True:
            sock.send(status)
    assert client.status()["state"] == "ready"
    assert all(len(c.outbox) <= 2 for c in stage.door._clients.values())
    sock.close()
    await_until(lambda: len(stage.door._clients) == 1)


def test_a_client_killed_in_the_middle_of_a_wait(stage, client):
    run = client.play(small_score(), {"path": "/"})
    program = f"""
        from symphony.client import connect
        client = connect({NAME!r})
        print("in", flush=True)
        client.wait({run.serial})
    """
    with subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"in\n"
        await_until(lambda: stage.door._waits)
        process.kill()
    await_until(lambda: not stage.door._waits)
    stage.finish(run.serial, {})
    assert run.wait(DEADLINE_S)["state"] == "completed"


def test_a_storm_of_notices(stage, client):
    run = client.play(small_score(), {"path": "/"})

    def storm():
        for _ in range(20000):
            stage.door.notify(run.serial)

    threads = [threading.Thread(target=storm) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stage.finish(run.serial, {})
    assert run.wait(DEADLINE_S)["state"] == "completed"


def test_the_engine_comes_back_between_two_calls(stage):
    client = Client(NAME)
    run = client.play(small_score(), {"path": "/"})
    stage.door.close()
    successor = door_module.Door(stage, directory_of(NAME))
    stage.door = successor
    successor.start()
    assert client.run(run.serial)["state"] == "queued"
    client.close()


def test_the_door_needs_no_numba_and_no_numpy():
    done = in_process("""
        import sys
        import symphony.conductor.door, symphony.client
        print([name for name in ("numba", "numpy") if name in sys.modules])
    """)
    assert done.stdout.strip() == "[]", done.stderr
