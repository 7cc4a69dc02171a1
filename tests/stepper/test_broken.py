"""What is broken is caught: operations that are wrong on purpose, each in a way that the stepper is there to find."""

import contextlib
import os
from pathlib import Path

import pytest

from symphony.native.kernels import loading
from symphony.shmem.registry import Registry
from symphony.shmem.segment import Region, Segment
from tools.stepping.calls import kernel_call
from tools.stepping.core import ALL, Case, Operation, examine
from tools.stepping.tracer import Scripted

with loading():
    from symphony.pit.pool import machine

from symphony.pit.tables import MODEL, SEAT

pytestmark = pytest.mark.slow


class Home:
    def __init__(self, folder):
        self.folder, self.name = str(folder), f"broken-{os.getpid()}"
        self.registry = Registry(self.name)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SYMPHONY_RUNTIME_DIR", str(tmp_path))
    return Home(tmp_path)


class Words(Case):
    """Eight words; the truth is all of them."""

    def __init__(self, home, write=None):
        self.segment = Segment.create(home.registry, home.name, "run", [Region("words", "u64", 8)])
        self.segments = [self.segment]
        self.words = self.segment.table("words")
        if write:
            self.act = Scripted(lambda: write(self.words))

    def attach(self):
        return Segment.attach(self.segment.name, writable=True)

    def judge(self, there):
        return tuple(int(word) for word in there.table("words")), ()

    def close(self):
        del self.words, self.act
        super().close()


def examined(home, prepare, **options):
    return examine(Operation("broken", (), prepare, **options), home, ALL, seed=1)


def test_two_words_where_one_has_to_say_it(home):
    def write(words):
        words[0] = 1
        words[1] = 1

    row = examined(home, lambda home: Words(home, write))
    assert any("neither before nor after" in wrong for wrong in row.wrong)
    assert any("really killed" in wrong for wrong in row.wrong), "the real kill finds the same"


def test_one_word_is_right(home):
    def write(words):
        words[0] = 1

    row = examined(home, lambda home: Words(home, write))
    assert row.wrong == []
    assert (row.writes, row.images) == (1, 2)


def test_something_done_is_undone(home):
    def write(words):
        words[0] = 1
        words[0] = 0
        words[0] = 1

    row = examined(home, lambda home: Words(home, write))
    assert any("what was done is undone" in wrong for wrong in row.wrong)


def test_nothing_is_done(home):
    row = examined(home, lambda home: Words(home, lambda words: None))
    assert any("cannot be told from what was before" in wrong for wrong in row.wrong)


class Seats(Words):
    """Compiled: a kernel that makes several commits, called one."""

    def __init__(self, home):
        self.segment = Segment.create(
            home.registry, home.name, "run", [Region("models", "sym_model_t", 1), Region("seats", "sym_seat_t", 4)]
        )
        self.segments = [self.segment]
        self.words = self.segment.table("seats").view(SEAT)
        self.models = self.segment.table("models").view(MODEL)
        self.act = kernel_call(machine.open_seats, self.words, 0, 4, 0, 0)

    def judge(self, there):
        return tuple(int(word) for word in there.table("seats")["word"]), ()

    def close(self):
        del self.models
        super().close()


def test_compiled_code_is_stepped_by_instructions(home):
    row = examined(home, Seats)
    assert row.instructions > 50
    assert any("after instruction" in wrong and "neither before nor after" in wrong for wrong in row.wrong)
    assert any("really killed after instruction" in wrong for wrong in row.wrong)


class Lost(Words):
    """The recovery itself ends badly: it never comes back, or it dies."""

    def __init__(self, home, ending):
        super().__init__(home, lambda words: words.__setitem__(0, 1))
        self.ending = ending

    def judge(self, there):
        if there.table("words")[0] == 1:
            self.ending()
        return super().judge(there)


def test_a_recovery_that_dies_is_said_to(home):
    row = examined(home, lambda home: Lost(home, lambda: os._exit(9)))
    assert any("the judge has ended" in wrong for wrong in row.wrong)


def test_a_recovery_that_does_not_end_is_said_to(home, monkeypatch):
    import time

    monkeypatch.setattr("tools.stepping.judge.DEADLINE_S", 0.5)
    row = examined(home, lambda home: Lost(home, lambda: time.sleep(600)))
    assert any("the recovery has not ended" in wrong for wrong in row.wrong)


class Files(Case):
    """A file and its entry, made in the wrong order."""

    segments = []

    def __init__(self, home):
        self.folder = Path(home.folder) / "case"
        self.folder.mkdir()
        self.act = Scripted(self.make)

    def make(self):
        (self.folder / "thing").write_text("")
        (self.folder / "entry").write_text("")

    def attach(self):
        return None

    def judge(self, there):
        found = sorted(os.listdir(self.folder))
        return tuple(found), ["it is in no list"] if found == ["thing"] else []

    def close(self):
        for name in ("thing", "entry"):
            with contextlib.suppress(FileNotFoundError):
                (self.folder / name).unlink()
        self.folder.rmdir()


def test_a_kill_between_two_system_calls_is_found(home):
    row = examined(home, Files, syscalls=True)
    assert any("it is in no list" in wrong for wrong in row.wrong)
    assert row.stops == row.kills > 4


def test_an_operation_that_meets_a_fault_says_nothing_of_before_and_after(home):
    def write(words):
        os.kill(os.getpid(), 11)

    row = examined(home, lambda home: Words(home, write))
    assert any("ended with wait status" in wrong for wrong in row.wrong)
