"""Segments taken apart: whole ones, damaged ones, ones of another build; and what it costs them."""

import os
import random
import struct
import subprocess
import sys

import pytest

from symphony.inspect import dump, show, verify
from symphony.inspect.decode import REGION, STAMP_BYTES, View
from symphony.inspect.memory import open_file, open_segment
from symphony.model.errors import NoSuchSegment, SegmentError, SymphonyError, UsageError
from symphony.native import ffi, lib
from symphony.native.layout import FINGERPRINT
from symphony.shmem.segment import Region, Segment


@pytest.fixture
def dumped(tmp_path):
    """Copy a segment to a file."""

    def copy(segment, name="dump"):
        with open_segment(segment.name) as memory:
            dump.dump(memory, tmp_path / name)
        return tmp_path / name

    return copy


def patch(path, offset, data):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


# -- whole ------------------------------------------------------------------------------------------------


def test_a_segment_says_what_it_is(state, look, engine_name):
    view = look(state.name)
    told = show.summary(view)
    assert (told["kind"], told["engine"], told["state"], told["alive"]) == ("state", engine_name, "live", True)
    assert told["owner_pid"] == os.getpid() and told["problems"] == []
    assert told["stamp"]["fingerprint"] == FINGERPRINT
    places = {region["region"]: region for region in told["regions"]}
    for name, place in state.segment.regions.items():
        found = places[name]
        assert (found["offset_bytes"], found["rows"], found["stride_bytes"]) == (
            place.offset,
            place.count,
            place.stride,
        )
        assert found["described"]


def test_rows_in_use_with_their_names(state, look):
    view = look(state.name)
    [run] = list(view.rows("runs"))
    assert (run["row"], run["serial"], run["word"]["state"]) == (0, 4, "running")
    held, free = view.rows("seats")
    assert held["word"] == {"state": "held", "owner": 1, "generation": 5} and free["word"]["state"] == "free"
    assert [row["row"] for row in view.rows("segments")] == [1, 2]


def test_a_runs_nodes_as_far_as_they_are_used(run, look):
    view = look(run.name)
    nodes = list(view.rows("nodes"))
    assert [node["word"]["state"] for node in nodes] == ["done", "done", "pending", "done", "dispatched"]
    assert nodes[2]["word"]["flags"] == ["group"] and nodes[0]["group"] is None
    assert [row["row"] for row in view.rows("outputs")] == [0, 1, 2]


def test_rows_by_span_and_by_what_they_read(run, look):
    view = look(run.name)
    assert [row["row"] for row in show.rows(view, "nodes", begin=1, end=3)["rows"]] == [1, 2]
    assert [row["row"] for row in show.rows(view, "nodes", where={"word.state": "done"})["rows"]] == [0, 1, 3]
    assert [row["row"] for row in show.rows(view, "nodes", where={"word.flags": "group"})["rows"]] == [2]
    assert [row["row"] for row in show.rows(view, "nodes", where={"group": "none"})["rows"]] == [0, 1]
    cut = show.rows(view, "nodes", limit=2)
    assert len(cut["rows"]) == 2 and cut["more"]
    assert not show.rows(view, "nodes", limit=5)["more"]
    raw = show.rows(view, "nodes", end=1, raw=True)["rows"][0]
    assert raw["word"] == int(run.table.nodes[0]["word"])


def test_a_runs_own_transitions_are_told_in_states_of_runs(run, look):
    rows = show.rows(look(run.name), "story")["rows"]
    own = next(row for row in rows if row["node"] is None)
    assert (own["before"], own["after"]) == ("queued", "running")


def test_a_record_that_the_next_one_is_written_over_is_not_shown(run, look):
    """Ten of eight: the next is written over number 2, which keeps its number until the last."""
    shown = {row["sequence"] for row in show.rows(look(run.name), "story")["rows"]}
    assert shown == {4, 5, 6, 7, 8, 9, 10}
    run.table.story[2]["sequence"] = 11  # written, and its writer killed before he counted it
    view = look(run.name)
    assert {row["sequence"] for row in show.rows(view, "story")["rows"]} == shown | {11}
    assert not [check for check in verify.verify(view)["checks"] if check["check"] == "story" and not check["ok"]]
    assert {row["row"] for row in show.rows(view, "story", raw=True)["rows"]} == set(range(8))


def test_fields_tell_who_writes_them_in_which_order(run, look):
    word = show.fields(look(run.name), "nodes")[0]
    assert (word["field"], word["writer"], word["writes"]) == ("word", "any", "compare-and-swap")
    assert (word["reader"], word["reads"]) == ("any", "load, acquire")
    sequence = show.fields(look(run.name), "story")[-1]
    assert (sequence["writer"], sequence["writes"]) == ("driver", "store, release")


def test_bytes_come_in_lines_and_text_whole(make, look):
    segment = make("arena", [Region("bytes", "u8", 1 << 20)])
    at = segment.offset("bytes")
    segment.buffer[at + 70000 : at + 70005] = b"hello"
    view = look(segment.name)
    [line] = show.rows(view, "bytes")["rows"]
    assert (line["row"], line["text"][:5]) == (70000, "hello")
    assert show.text(view).startswith("struct sym_stamp_t 256")


def test_a_memfd_reads_like_a_segment(look, engine_name):
    segment = Segment.create_memfd(engine_name, "in", [Region("channel", "sym_channel_in_t", 1)])
    try:
        view = look(f"/proc/{os.getpid()}/fd/{segment.descriptor}")
        assert view.kind == "in" and view.row("channel", 0)["working"] == 0
    finally:
        segment.close()


def test_what_is_not_there_is_said(run, look):
    view = look(run.name)
    with pytest.raises(UsageError, match=r"no region 'knots'.*nodes"):
        show.rows(view, "knots")
    with pytest.raises(UsageError, match=r"no field 'colour'.*position"):
        show.rows(view, "nodes", where={"colour": "red"})
    with pytest.raises(NoSuchSegment):
        look("/symphony.0.nobody.state.0123456789abcdef")
    with pytest.raises(SegmentError, match="not a regular file"):
        look("/dev/null")


# -- cost -------------------------------------------------------------------------------------------------


def test_looking_takes_no_memory_and_writes_nothing(run, look, tmp_path):
    """The segment has address space for a hundred thousand nodes and memory for a hundred."""
    path = f"/dev/shm{run.name}"
    before = os.stat(path)
    assert before.st_size > 16 << 20 > 1 << 20 > before.st_blocks * 512
    view = look(run.name)
    show.summary(view)
    for region in view.places:
        show.rows(view, region)
    assert len(show.rows(view, "nodes", begin=90_000, end=90_100, idle=True)["rows"]) == 100
    assert verify.verify(view)["ok"]
    dump.dump(view.memory, tmp_path / "dump")
    after = os.stat(path)
    assert (after.st_blocks, after.st_mtime_ns) == (before.st_blocks, before.st_mtime_ns)
    assert os.stat(tmp_path / "dump").st_blocks * 512 < 1 << 20


def test_rows_that_were_reserved_and_never_written_are_not_touched(make, look):
    """posix_fallocate takes pages that nobody has written: reading one by a map would fill it."""
    segment = make("state", [Region("runs", "sym_run_t", 4096)])
    segment.table("runs")[4095]["serial"] = 9
    written = look(segment.name).memory.extents
    view = look(segment.name)
    assert [row["row"] for row in view.rows("runs")] == [4095]
    assert sum(end - begin for begin, end in written) < 4 * 4096 + 16384
    assert look(segment.name).memory.extents == written


def test_the_map_is_read_only(run, look):
    look(run.name)
    with open("/proc/self/maps") as file:
        lines = [line.split() for line in file if run.name in line]
    assert sorted(line[1] for line in lines) == ["r--s", "rw-s"], "ours and the maker's"


def test_neither_numpy_nor_numba_nor_our_c(run):
    program = (
        "import sys\n"
        "from symphony.inspect import dump, ls, show, verify\n"
        "from symphony.inspect.decode import View\n"
        "from symphony.inspect.memory import open_segment\n"
        "with open_segment(sys.argv[1]) as memory:\n"
        "    view = View(memory)\n"
        "    show.summary(view), show.rows(view, 'nodes'), ls.segments()\n"
        "    assert not {'numpy', 'numba', 'symphony.native._csym'} & set(sys.modules)\n"
        "    assert verify.verify(view)['ok']\n"
        "    assert not {'numpy', 'numba'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, run.name], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# -- damaged ----------------------------------------------------------------------------------------------


def look_at_everything(path):
    """Everything that the inspector can do; only errors of our own may come of it."""
    try:
        memory = open_file(path)
    except SymphonyError:
        return None
    with memory:
        view = View(memory)
        show.summary(view)
        for region in view.places:
            show.fields(view, region)
            show.rows(view, region, limit=20)
            show.rows(view, region, limit=20, begin=3, end=30, idle=True, raw=True)
        return verify.verify(view)


def test_a_stamp_that_was_cleared(run, dumped, look):
    path = dumped(run.segment)
    patch(path, 0, bytes(8))
    view = look(path)
    assert show.summary(view)["state"] == "half-made"
    assert len(list(view.rows("nodes"))) == 5
    found = {check["check"]: check["problems"] for check in verify.verify(view)["checks"]}
    assert "not whole yet" in found["stamp"][0]


def test_a_segment_that_is_being_removed(run, look):
    stamp = ffi.cast("sym_stamp_t *", run.segment.address_of_stamp("magic"))
    lib.sym_stamp_clear(stamp)
    view = look(run.name)
    assert show.summary(view)["state"] == "closing" and len(list(view.rows("nodes"))) == 5


def test_a_directory_that_claims_too_much(run, dumped, look):
    path = dumped(run.segment)
    index = list(run.segment.regions).index("steps")
    at = STAMP_BYTES + index * REGION.size
    row = list(REGION.unpack(path.read_bytes()[at : at + REGION.size]))
    row[3] = 1 << 60
    patch(path, at, REGION.pack(*row))
    view = look(path)
    assert any("region steps" in problem for problem in view.problems)
    assert view.places["steps"].present < 1 << 30
    assert len(list(view.rows("nodes"))) == 5, "the rest is decoded"
    assert [row["name"] for row in show.rows(view, "steps", limit=3)["rows"]] == ["inputs", "walk", "read"]
    found = {check["check"]: check["problems"] for check in verify.verify(view)["checks"]}
    assert any("claimed" in text for text in found["directory"]) and any("overlaps" in t for t in found["directory"])


def test_a_layout_is_found_without_the_directorys_help(run, dumped, look):
    path = dumped(run.segment)
    at = STAMP_BYTES + list(run.segment.regions).index("layout") * REGION.size
    patch(path, at, b"\xff" * REGION.size)
    view = look(path)
    assert any("found by looking for it" in problem for problem in view.problems)
    assert next(view.rows("nodes"))["word"]["state"] == "done"


def test_without_any_layout_rows_are_shown_as_bytes(run, dumped, look):
    path = dumped(run.segment)
    place = run.segment.regions["layout"]
    patch(path, place.offset, b"x" * place.count)
    view = look(path)
    assert view.stamp["owner_pid"] == os.getpid()
    first = show.rows(view, "nodes", limit=1)["rows"][0]
    assert bytes.fromhex(first["bytes"])[:8] == struct.pack("<Q", int(run.table.nodes[0]["word"]))
    assert not verify.verify(view)["ok"]


def test_another_builds_segment_is_read_by_its_own_layout(run, dumped, look):
    """In that build `seat` and `step` of a node have changed places."""
    path = dumped(run.segment)
    place = run.segment.regions["layout"]
    text = show.text(look(path)).rstrip("\0")
    swapped = text.replace("  step uint32_t 16 4", "  seat uint32_t 16 4", 1)
    swapped = swapped.replace(
        "  seat uint32_t 28 4 1 driver any | seat held", "  step uint32_t 28 4 1 driver any | ", 1
    )
    assert swapped != text and len(swapped) <= place.count
    patch(path, place.offset, swapped.encode().ljust(place.count, b"\0"))
    patch(path, 16, struct.pack("<Q", 12345))
    view = look(path)
    node = view.row("nodes", 1)
    assert (node["seat"], node["step"]) == (1, 0xFFFFFFFF)
    assert verify.verify(view)["build"] == "another"


@pytest.mark.parametrize("kept", [0, 1, 100, 255, 256, 300, 2000, 6000, 100_000])
def test_a_file_that_was_cut_off(run, dumped, kept):
    path = dumped(run.segment)
    os.truncate(path, kept)
    found = look_at_everything(path)
    assert found is not None and not found["ok"]


def test_no_damage_ends_the_inspector(run, state, dumped, seed):
    """Bytes of the stamp, the directory and the layout, and of what they speak of, changed at random."""
    chosen = random.Random(seed)
    for kind in (run, state):
        whole = dumped(kind.segment, kind.segment.name.rsplit(".", 1)[1])
        heads = {name: kind.segment.regions[name].offset for name in ("layout", "graph", "engine", "nodes", "seats")
                 if name in kind.segment.regions}  # fmt: skip
        for _ in range(60):
            undo = []
            with open(whole, "r+b") as file:
                for _ in range(chosen.choice([1, 1, 3, 30])):
                    at = chosen.choice([0, 0, *heads.values()]) + chosen.randrange(2200)
                    file.seek(at)
                    undo.append((at, file.read(1)))
                    file.seek(at)
                    file.write(chosen.choice([b"\0", b"\xff", bytes([chosen.randrange(256)])]))
            look_at_everything(whole)
            for at, byte in reversed(undo):
                patch(whole, at, byte)
        assert look_at_everything(whole)["ok"], "the file is as it was"
