"""Ended runs: what is kept of them, for how long, and that it is not for ever."""

import os
import resource
import threading
import time

import pytest

from symphony.conductor import kept
from symphony.conductor.kept import LEAST, TAKEN, Kept
from symphony.conductor.run import Run
from symphony.engine import Engine
from symphony.model.errors import RunFailed, RunNotFound
from tests.conductor.conftest import START_S, TIMEOUT_S, melody

WORDS = ("words", "trial.words", {"count": 2})


def run_of(serial, taken=False):
    return Run(serial, serial, None, None, {}, b"", taken=taken)


def serials(runs):
    return [run.serial for run in runs]


def test_of_those_that_were_taken_the_last_stay():
    held = Kept()
    gone = []
    for serial in range(40):
        held.add(run_of(serial, taken=True), 1)
        gone += serials(held.surplus())
    assert gone == list(range(40 - TAKEN))


def test_taken_ones_that_are_large_go_but_for_the_last(monkeypatch):
    monkeypatch.setattr(kept, "budget", lambda: 1000)
    held = Kept()
    for serial in range(5):
        held.add(run_of(serial, taken=True), 600)
        assert serials(held.surplus()) == ([serial - 1] if serial else [])


def test_those_that_nobody_has_taken_stay_while_they_are_few_and_small(monkeypatch):
    monkeypatch.setattr(kept, "most", lambda: 100)
    monkeypatch.setattr(kept, "budget", lambda: 1000)
    held = Kept()
    gone = []
    for serial in range(150):
        held.add(run_of(serial), 1)
        gone += serials(held.surplus())
    assert gone == list(range(50))


def test_large_ones_go_earlier_but_never_the_last_few(monkeypatch):
    monkeypatch.setattr(kept, "budget", lambda: 1000)
    held = Kept()
    gone = []
    for serial in range(LEAST + 10):
        held.add(run_of(serial), 500)
        gone += serials(held.surplus())
    assert gone == list(range(10))


def test_a_taken_one_goes_before_one_that_was_not():
    held = Kept()
    runs = [run_of(serial) for serial in range(30)]
    for run in runs:
        held.add(run, 1)
    assert held.surplus() == []
    for run in runs[: TAKEN + 4]:
        run.taken = True
    assert serials(held.surplus()) == [0, 1, 2, 3]
    assert held.oldest().serial == 4 and held.surplus() == []


def test_bounds_follow_the_machine():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
        assert kept.most() == 128
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert kept.most() == LEAST
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert 0 < kept.budget() <= kept.BYTES


@pytest.mark.timeout(START_S)
def test_many_are_played_and_collected_afterwards(own_runtime_directory, extensions):
    with Engine(players=2) as engine:
        runs = [engine.play(melody(WORDS)) for _ in range(120)]
        runs[-1].wait(TIMEOUT_S)
        for run in runs:
            run.wait(TIMEOUT_S)
        assert all(list(run.result(TIMEOUT_S)["words"]) == ["w0", "w1"] for run in runs)
        assert engine.play(melody(WORDS)).result(TIMEOUT_S)
        deadline = time.monotonic() + TIMEOUT_S
        while len(engine._conductor.runs()) > TAKEN + 1:  # the clerk lets go once it has told that a run ended
            assert time.monotonic() < deadline
            os.sched_yield()
        with pytest.raises(RunNotFound):
            runs[0].result()
        assert runs[-1].record()


@pytest.mark.timeout(START_S)
def test_a_failed_ones_record_is_there_after_its_error(own_runtime_directory, extensions, tmp_path):
    with Engine(players=1) as engine:
        wrong = []

        def work():
            for _ in range(TAKEN // 4):
                run = engine.play(melody(("bad", "trial.sized", {"size": "{x}"}), x="data"), x=["no number"])
                try:
                    run.result(TIMEOUT_S)
                    wrong.append(run)
                except RunFailed:
                    wrong.extend(line for line in run.record() if line["state"] != "failed")

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_S)
        assert not wrong
