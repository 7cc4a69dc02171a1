"""symphony.Ring: made, found, used and removed by name."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import symphony
from symphony.model.errors import (
    NoSuchSegment,
    NotAllowed,
    RingClosed,
    RingError,
    RingFull,
    SegmentExists,
    UsageError,
    WaitTimeout,
)
from symphony.ring import Ring
from symphony.shmem.names import runtime_base

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 60


def other_process(program):
    prelude = f"from symphony.ring import Ring\nDEADLINE_S = {DEADLINE_S}\n"
    return subprocess.Popen([sys.executable, "-c", prelude + program], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def ended(process):
    output, _ = process.communicate(timeout=DEADLINE_S)
    return process.returncode, output


def test_messages_go_both_ways_between_processes():
    with Ring.create("there", 4096) as there, Ring.create("back", 4096) as back:
        echo = other_process(
            "there, back = Ring.attach('there'), Ring.attach('back')\n"
            "while (message := there.receive(DEADLINE_S)) != b'end':\n"
            "    back.send(message.upper(), there.kind, DEADLINE_S)\n"
            "there.close(); back.close()\n"
        )
        for i in range(200):
            there.send(b"message %d" % i, 16 + i, timeout=DEADLINE_S)
            assert back.receive(DEADLINE_S) == b"MESSAGE %d" % i
            assert back.kind == 16 + i
        there.send_many([b"many", b"more", b"end"])
        assert ended(echo) == (0, "")
        assert back.receive_many(9, 0) == [b"MANY", b"MORE"]
        with pytest.raises(RingClosed):
            back.receive()
        with pytest.raises(RingClosed):
            there.send(b"to nobody")


def test_public_name_and_views():
    with symphony.Ring.create("views") as ring:
        assert ring.size == 65536
        ring.send(memoryview(b"looked at"))
        with ring.receive_view() as view:
            assert bytes(view) == b"looked at"
            with pytest.raises(BufferError):
                ring.close()
        ring.release()
        with pytest.raises(WaitTimeout):
            ring.receive(timeout=0)
        with pytest.raises(RingFull):
            ring.send_many((bytes(1000) for _ in range(100)), timeout=0)


def test_a_second_sender_or_receiver_is_refused_until_the_first_closes():
    with Ring.create("one") as ring, Ring.attach("one") as second:
        ring.send(b"x")
        with pytest.raises(RingError, match="sender already"):
            second.send(b"y")
        assert second.receive(0) == b"x"
        with pytest.raises(RingError, match="receiver already"):
            ring.receive(0)


def test_the_place_of_a_killed_sender_is_free_and_what_it_sent_arrives():
    with Ring.create("killed") as ring:
        killed = other_process("import os\nRing.attach('killed').send(b'before')\nos.kill(os.getpid(), 9)\n")
        assert ended(killed)[0] == -9
        with Ring.attach("killed") as second:
            second.send(b"after")
        assert ring.receive_many(9, 0) == [b"before", b"after"]


def test_a_name_is_taken_while_its_maker_lives():
    with Ring.create("taken"), pytest.raises(SegmentExists, match=str(os.getpid())):
        Ring.create("taken")
    Ring.create("taken").close()


def test_what_a_killed_maker_left_is_removed_by_the_next():
    killed = other_process("import os\nring = Ring.create('left')\nring.send(b'old')\nos.kill(os.getpid(), 9)\n")
    assert ended(killed)[0] == -9
    with Ring.create("left") as ring, pytest.raises(WaitTimeout):
        ring.receive(0)


def test_those_attached_go_on_after_the_maker_closed_but_nobody_joins():
    ring = Ring.create("going")
    other = Ring.attach("going")
    ring.send_many([b"one", b"two"])
    ring.close()
    ring.close()
    with pytest.raises(RingClosed):
        other.receive_many(9, 0) and other.receive(0)
    with pytest.raises(NoSuchSegment):
        Ring.attach("going")
    with pytest.raises(RingClosed):
        ring.send(b"x")
    other.close()


def test_names_and_sizes_that_cannot_be():
    for size in (0, 128, 1000, 2**16 + 1):
        with pytest.raises(UsageError):
            Ring.create("size", size)
    for name in ("", "Upper", "a/b", "x" * 40):
        with pytest.raises(UsageError):
            Ring.create(name)
    with pytest.raises(NoSuchSegment, match=r"Ring\.create"):
        Ring.attach("never-made")


def test_leaves_no_folder_behind():
    Ring.create("folder").close()
    assert not [entry for entry in os.listdir(runtime_base()) if entry.startswith("ring.")]


def test_a_runtime_folder_that_is_not_ours_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SYMPHONY_RUNTIME_DIR", str(tmp_path / "file" / "inside"))
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(NotAllowed):
        Ring.create("nowhere")
