"""Which segments there are, and of which nobody lives any more; copies of them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from symphony.inspect import dump, ls, show
from symphony.inspect.decode import View
from symphony.inspect.memory import open_file, open_segment
from symphony.model.errors import NotAllowed, UsageError
from symphony.native import ffi
from symphony.shmem import names
from symphony.shmem.segment import Region, Segment

ROOT = Path(__file__).resolve().parents[2]

MAKER = """
import sys
from symphony.shmem.registry import Registry
from symphony.shmem.segment import Region, Segment
made = Segment.create(Registry(sys.argv[1]), sys.argv[1], "arena", [Region("bytes", "u8", 5000)])
made.buffer[made.offset("bytes")] = 65
print(made.name, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def killed(registry, engine_name):
    """The name of a segment whose maker was killed."""
    command = [sys.executable, "-c", MAKER, engine_name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        name = process.stdout.readline().strip()
        process.send_signal(signal.SIGKILL)
        process.communicate()
    return name


def only(engine_name):
    [item] = ls.segments(engine_name)
    return item


def test_a_living_makers_segment(state, engine_name):
    item = only(engine_name)
    assert (item["name"], item["engine"], item["kind"], item["state"]) == (state.name, engine_name, "state", "live")
    assert (item["owner_pid"], item["alive"], item["listed"], item["generation"]) == (os.getpid(), True, True, 1)
    assert item["size_bytes"] == state.segment.size and 0 < item["allocated_bytes"] <= item["size_bytes"]
    assert item["age_s"] >= 0 and item["heartbeat_age_s"] is None and item["problems"] == []
    assert any(other["name"] == state.name for other in ls.segments())
    assert ls.segments("nobody-of-that-name") == []


def test_a_heartbeat_has_an_age(state, engine_name):
    beat = ffi.cast("uint64_t *", state.segment.address_of_stamp("heartbeat_ns"))
    beat[0] = time.monotonic_ns() - 5_000_000_000
    assert 5 <= only(engine_name)["heartbeat_age_s"] < 60
    beat[0] = time.monotonic_ns() + 10**12
    assert only(engine_name)["heartbeat_age_s"] == 0


def test_a_killed_makers_segment_is_read_all_the_same(killed, engine_name):
    item = only(engine_name)
    assert (item["name"], item["alive"], item["state"], item["listed"]) == (killed, False, "live", True)
    with open_segment(killed) as memory:
        [line] = show.rows(View(memory), "bytes")["rows"]
        assert line["text"].startswith("A")


@pytest.mark.parametrize("field", ["owner_pid", "owner_start", "boot_id"])
def test_a_maker_is_known_by_pid_start_and_boot(state, engine_name, field):
    """Another process of the same pid, or the same numbers after a boot, is not the maker."""
    # The highest byte: a pid that no process can have, a start and a boot far away.
    size = 16 if field == "boot_id" else 4
    ffi.cast("uint8_t *", state.segment.address_of_stamp(field))[size - 1] ^= 0x40
    assert not only(engine_name)["alive"]


def test_a_name_without_a_segment_and_a_segment_without_a_name(state, registry, engine_name):
    missing = names.segment_name(engine_name, "run")
    registry.enter(missing)
    registry.leave(state.name)
    found = {item["name"]: item for item in ls.segments(engine_name)}
    assert (found[missing]["state"], found[missing]["listed"], found[missing]["kind"]) == ("missing", True, "run")
    assert (found[state.name]["state"], found[state.name]["listed"]) == ("live", False)
    registry.leave(missing)


def test_a_segment_that_is_not_whole_yet(registry, engine_name):
    name = names.segment_name(engine_name, "run")
    registry.enter(name)
    path = Path(f"/dev/shm{name}")
    path.touch(mode=0o600)
    for size in (0, 100, 8192):
        os.truncate(path, size)
        item = only(engine_name)
        assert (item["state"], item["engine"], item["kind"], item["alive"]) == ("half-made", engine_name, "run", False)
        assert item["size_bytes"] == size


def test_what_others_leave_in_shared_memory_is_not_ours(engine_name):
    path = Path(f"/dev/shm/symphony-{engine_name}-else")
    path.write_bytes(b"x")
    try:
        assert str(path) not in str(ls.segments())
    finally:
        path.unlink()


def test_nameless_segments_stand_under_their_maker(state, engine_name):
    nameless = Segment.create_memfd(engine_name, "in", [Region("channel", "sym_channel_in_t", 1)], generation=3)
    again = os.dup(nameless.descriptor)
    try:
        found = [item for item in ls.segments(engine_name) if item["name"].startswith("/proc/")]
        assert [(item["kind"], item["generation"], item["alive"]) for item in found] == [("in", 3, True)]
        with open_file(found[0]["name"]) as memory:
            assert View(memory).stamp["instance"] == engine_name
    finally:
        os.close(again)
        nameless.close()


def test_looking_makes_no_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SYMPHONY_RUNTIME_DIR", str(tmp_path / "nothing"))
    ls.segments("nobody")
    assert not (tmp_path / "nothing").exists()


# -- copies -----------------------------------------------------------------------------------------------


def test_a_copy_is_the_segment_and_as_sparse(run, tmp_path):
    with open_segment(run.name) as memory:
        told = dump.dump(memory, tmp_path / "copy")
    assert told["size_bytes"] == os.stat(tmp_path / "copy").st_size == run.segment.size
    assert os.stat(tmp_path / "copy").st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["copy"]
    with open(f"/dev/shm{run.name}", "rb") as segment, open(tmp_path / "copy", "rb") as copy:
        while piece := segment.read(1 << 20):
            assert copy.read(1 << 20) == piece


def test_a_copy_replaces_nothing(state, tmp_path):
    target = tmp_path / "kept"
    target.write_text("kept")
    with open_segment(state.name) as memory:
        with pytest.raises(UsageError, match="there already"):
            dump.dump(memory, target)
        with pytest.raises(NotAllowed, match="cannot be written"):
            dump.dump(memory, tmp_path / "no folder" / "copy")
    assert target.read_text() == "kept" and os.listdir(tmp_path) == ["kept"]
