"""Seats: one holder a word, whoever races; stale tokens never hurt the next holder."""

import os
import random
import subprocess
import sys
import threading

import numpy as np
import pytest

from symphony.native.kernels import loading
from symphony.native.layout import constants
from symphony.pit.pool.validate import validate
from symphony.pit.tables import MODEL, SEAT
from symphony.shmem.registry import Registry
from symphony.shmem.segment import Region, Segment

with loading():
    from symphony.pit.pool import machine

SEATS = 8


@pytest.fixture
def pool(tmp_path, monkeypatch):
    monkeypatch.setenv("SYMPHONY_RUNTIME_DIR", str(tmp_path / "runtime"))
    regions = [
        Region("models", "sym_model_t", 4), Region("instances", "sym_instance_t", 4), Region("seats", "sym_seat_t", SEATS),
        Region("owners", "sym_owner_t", 8), Region("engine", "sym_engine_t", 1),
    ]  # fmt: skip
    segment = Segment.create(Registry("pool-test"), "pool-test", "state", regions)
    segment.table("models")[1]["seat_count"] = SEATS
    segment.table("instances")[0]["model"] = 1
    segment.table("instances")[0]["seat_count"] = SEATS
    segment.table("instances")[0]["state"] = constants["SYM_MODEL_READY"]
    segment.table("engine")[0]["instances_used"] = 1
    segment.table("engine")[0]["seats_used"] = SEATS
    segment.table("owners")["word"][1:4] = 1 << 60
    models, seats = segment.table("models").view(MODEL), segment.table("seats").view(SEAT)
    machine.open_seats(seats, 0, SEATS, 1, 0)
    yield segment, models, seats
    del models, seats
    segment.unlink()
    segment.close()


def check(segment):
    tables = [segment.table(name) for name in ("models", "instances", "seats", "owners")]
    return validate(segment.table("engine")[0], *tables)


def test_every_seat_is_held_once_and_then_refused(pool):
    segment, models, seats = pool
    tokens = [machine.allocate(models, seats, 1, 1) for _ in range(SEATS)]
    assert len(set(tokens)) == SEATS and min(tokens) > 0
    assert machine.allocate(models, seats, 1, 2) == machine.NOTHING_FREE
    assert check(segment) == []
    assert all(machine.release(models, seats, token, 1) == 1 for token in tokens)
    assert check(segment) == []


def test_a_stale_token_is_an_error_never_anothers_seat(pool):
    _, models, seats = pool
    token = machine.allocate(models, seats, 1, 1)
    assert machine.release(models, seats, token, 2) == machine.STALE
    assert machine.release(models, seats, token, 1) == 1
    again = machine.allocate(models, seats, 1, 2)
    assert again & 0x3FFF == token & 0x3FFF
    assert machine.release(models, seats, token, 1) == machine.STALE
    assert machine.release(models, seats, token, 2) == machine.STALE
    for nonsense in (0, -1, 1 << 62, SEATS, 0x3FFF):
        assert machine.release(models, seats, nonsense, 1) == machine.STALE
    assert machine.release(models, seats, again, 2) == 1


def test_a_model_without_instances_and_one_with_waiters_refuse(pool):
    _, models, seats = pool
    assert machine.allocate(models, seats, 2, 1) == machine.NO_SEATS
    models[1]["waiters"] = 1
    assert machine.allocate(models, seats, 1, 1) == machine.WAITERS_FIRST
    models[1]["waiters"] = 0


def test_closing_takes_free_seats_and_counts_held_ones(pool):
    segment, models, seats = pool
    token = machine.allocate(models, seats, 1, 1)
    assert machine.close_seats(seats, 0, SEATS) == 1
    assert machine.allocate(models, seats, 1, 1) == machine.NOTHING_FREE
    assert machine.release(models, seats, token, 1) == 1
    assert machine.close_seats(seats, 0, SEATS) == 0
    segment.table("instances")[0]["state"] = 0
    assert check(segment) == []


def test_what_a_dead_owner_held_comes_back_and_nothing_else(pool):
    segment, models, seats = pool
    mine = [machine.allocate(models, seats, 1, 1) for _ in range(3)]
    for _ in range(2):
        machine.allocate(models, seats, 1, 2)
    assert machine.give_back(seats, SEATS, 2) == 2
    assert check(segment) == []
    assert all(machine.release(models, seats, token, 1) == 1 for token in mine)


def hammer(name, owner, rounds, seed):
    """Hold and release; a held seat's own mark must be untouched by others while it is held."""
    segment = Segment.attach(name, writable=True)
    models, seats = segment.table("models").view(MODEL), segment.table("seats").view(SEAT)
    rng = random.Random(seed)
    held = []
    wrong = 0
    for _ in range(rounds):
        if held and rng.random() < 0.5:
            token = held.pop(rng.randrange(len(held)))
            wrong += int(segment.table("owners")[4]["pad0"][token & 7]) != owner
            wrong += machine.release(models, seats, token, owner) != 1
        else:
            token = machine.allocate(models, seats, 1, owner)
            if token > 0:
                segment.table("owners")[4]["pad0"][token & 7] = owner
                held.append(token)
    for token in held:
        wrong += machine.release(models, seats, token, owner) != 1
    del models, seats
    segment.close()
    os._exit(1 if wrong else 0)


def test_processes_that_race_never_hold_one_seat_together(pool):
    segment, _, _ = pool
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    command = [sys.executable, "-m", "tests.pit.test_pool_machine", segment.name]
    processes = [subprocess.Popen([*command, str(owner), "20000", str(seed + owner)], cwd=root) for owner in (1, 2, 3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert check(segment) == []
    assert (segment.table("seats")["word"] >> 61 == machine.FREE).all()


def test_threads_without_the_gil_never_hold_one_seat_together(pool):
    _, models, seats = pool
    counts = np.zeros(4, np.int64)

    def work(owner):
        for _ in range(5_000):
            token = machine.allocate(models, seats, 1, owner)
            if token > 0:
                counts[owner] += machine.release(models, seats, token, owner) == 1
                counts[0] -= machine.release(models, seats, token, owner) == 1

    threads = [threading.Thread(target=work, args=(owner,)) for owner in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counts[0] == 0 and (counts[1:] == 5_000).all()


if __name__ == "__main__":
    hammer(sys.argv[1], *(int(word) for word in sys.argv[2:5]))
