"""Real segments: made, described, attached, refused, grown, ended."""

import fcntl
import gc
import mmap
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from symphony.model.errors import (
    AbiMismatch,
    NoSpace,
    NoSuchSegment,
    NotAllowed,
    SegmentError,
    SegmentExists,
    UsageError,
)
from symphony.native import ffi, lib
from symphony.native.layout import layout_text, names, size_of
from symphony.shmem import segment as module
from symphony.shmem import space
from symphony.shmem.counters import Counters
from symphony.shmem.describe import layout_of
from symphony.shmem.names import check_instance_name, segment_name
from symphony.shmem.segment import Region, Segment

ROOT = Path(__file__).resolve().parents[2]
REGIONS = [Region("nodes", "sym_node_t", 10), Region("steps", "sym_step_t", 2), Region("data", "u8", 5000)]


@pytest.fixture
def segment(registry, instance):
    with Segment.create(registry, instance, "run", REGIONS, generation=7) as made:
        yield made
        made.unlink()


def rewrite(segment, field, value):
    """Change a field of the stamp as another build or a vandal would."""
    pointer = ffi.cast("sym_stamp_t *", segment.address_of_stamp("magic"))
    setattr(pointer, field, value)


def allocated(name):
    return os.stat(space.path_of(name)).st_blocks * 512


# -- making ------------------------------------------------------------------------------------------------


def test_a_segment_is_the_owners_alone_and_says_whose_it_is(segment, instance):
    uid, owner, kind = segment.name.split(".")[1:4]
    assert (int(uid), owner, kind) == (os.getuid(), instance, "run")
    assert stat.S_IMODE(os.stat(space.path_of(segment.name)).st_mode) == 0o600
    stamp = ffi.cast("sym_stamp_t *", segment.address_of_stamp("magic"))
    assert (stamp.owner_pid, stamp.owner_start) == (os.getpid(), lib.sym_process_start(os.getpid()))
    assert ffi.string(ffi.cast("char *", stamp.instance)).decode() == instance
    assert (segment.generation, stamp.size_bytes) == (7, segment.size)
    assert names("sym_segment_state")[stamp.state] == "live"
    with open("/proc/sys/kernel/random/boot_id") as file:
        assert bytes(stamp.boot_id).hex() == file.read().strip().replace("-", "")


def test_the_directory_follows_the_stamp_and_regions_stand_on_lines(segment):
    places = segment.regions
    assert list(places) == ["nodes", "steps", "data", "layout"]
    assert all(place.offset % 128 == 0 for place in places.values())
    ends = [256 + 4 * size_of("sym_region_t"), *(p.offset + p.count * p.stride for p in places.values())]
    assert all(end <= place.offset for end, place in zip(ends, places.values(), strict=False))
    assert ends[-1] <= segment.size
    assert segment.address("steps") - segment.address("nodes") == segment.offset("steps") - segment.offset("nodes")


def test_the_layout_holds_the_structs_used_those_inside_them_and_their_states(segment):
    place = segment.regions["layout"]
    text = segment.buffer[place.offset : place.offset + place.count].decode()
    titles = [line.split()[1] for line in text.splitlines() if not line.startswith(" ")]
    assert {"sym_stamp_t", "sym_region_t", "sym_node_t", "sym_step_t", "sym_ref_t", "sym_node_state"} <= set(titles)
    assert not {"sym_seat_t", "sym_run_t", "sym_limit"} & set(titles)
    assert set(text.splitlines()) <= set(layout_text().splitlines())
    assert layout_of(("u8",)).decode().count("\nstruct ") == 1, "the stamp is first, the directory follows"


def test_memory_begins_as_zero_and_all_of_it_is_there(segment):
    assert not segment.table("nodes")["word"].any()
    assert not segment.table("data").any()
    assert allocated(segment.name) == segment.size


def test_every_kind_of_the_abi_can_be_made(registry, instance):
    for kind in names("sym_segment_kind").values():
        with Segment.create(registry, instance, kind, [Region("data", "u64", 3)]) as made:
            with Segment.attach(made.name, kind=kind) as seen:
                assert seen.table("data").tolist() == [0, 0, 0]
            made.unlink()
    assert registry.names() == []


@pytest.mark.parametrize(
    ("kind", "regions"),
    [
        ("house", REGIONS),
        ("run", [Region("a", "sym_nothing_t", 1)]),
        ("run", [Region("a", "u8", 1), Region("a", "u8", 1)]),
        ("run", [Region("a" * 32, "u8", 1)]),
        ("run", [Region("", "u8", 1)]),
        ("run", [Region("a", "u8", -1)]),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(registry, instance, kind, regions):
    with pytest.raises(UsageError):
        Segment.create(registry, instance, kind, regions)
    assert registry.names() == []


def test_a_name_in_use_is_an_error_and_its_segment_stays(registry, instance, segment, monkeypatch):
    monkeypatch.setattr(module, "segment_name", lambda *_: segment.name)
    with pytest.raises(SegmentExists, match=segment.name.rsplit(".", 1)[1]):
        Segment.create(registry, instance, "run", REGIONS)
    assert registry.names() == [segment.name]
    registry.leave(segment.name)
    with pytest.raises(SegmentExists):
        Segment.create(registry, instance, "run", REGIONS)
    registry.enter(segment.name)
    Segment.attach(segment.name).close()


def test_a_squatted_link_is_not_followed(registry, instance, monkeypatch, tmp_path):
    name = segment_name(instance, "run")
    os.symlink(tmp_path / "target", space.path_of(name))
    try:
        monkeypatch.setattr(module, "segment_name", lambda *_: name)
        with pytest.raises(SegmentExists):
            Segment.create(registry, instance, "run", REGIONS)
        with pytest.raises(NotAllowed):
            Segment.attach(name)
        assert not (tmp_path / "target").exists()
    finally:
        os.unlink(space.path_of(name))


def test_without_posix_ipc_the_file_system_does_the_same(registry, instance, monkeypatch):
    monkeypatch.setattr(space, "posix_ipc", None)
    with Segment.create(registry, instance, "run", REGIONS) as made:
        assert stat.S_IMODE(os.stat(space.path_of(made.name)).st_mode) == 0o600
        with pytest.raises(SegmentExists):
            space.make(made.name)
        made.unlink()


# -- attaching ---------------------------------------------------------------------------------------------


def test_what_one_process_writes_another_reads(segment):
    segment.table("nodes")["word"] = range(10)
    program = (
        "import sys; from symphony.shmem.segment import Segment\n"
        "with Segment.attach(sys.argv[1], writable=True) as s:\n"
        "    t = s.table('nodes'); t['position'] = t['word'] * 2; del t"
    )
    subprocess.run([sys.executable, "-c", program, segment.name], cwd=ROOT, check=True, timeout=60)
    assert segment.table("nodes")["position"].tolist() == list(range(0, 20, 2))


def test_attach_imports_no_numpy(segment):
    program = (
        "import sys; from symphony.shmem.segment import Segment\n"
        "with Segment.attach(sys.argv[1]) as s: assert s.regions['nodes'].count == 10\n"
        "sys.exit('numpy' in sys.modules or 'numba' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, segment.name], cwd=ROOT, check=True, timeout=60)


def test_a_read_only_map_cannot_be_written(segment):
    with Segment.attach(segment.name) as seen:
        table = seen.table("nodes")
        with pytest.raises(ValueError, match="read-only"):
            table["word"] = 1
        with pytest.raises(TypeError):
            seen.buffer[0] = 1
        del table


def test_no_such_segment(instance):
    with pytest.raises(NoSuchSegment):
        Segment.attach(segment_name(instance, "run"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may open anything")
def test_no_right_to_open(segment):
    os.chmod(space.path_of(segment.name), 0)
    with pytest.raises(NotAllowed):
        Segment.attach(segment.name)


@pytest.mark.parametrize(
    ("field", "value", "error", "says"),
    [
        ("magic", 0, SegmentError, "not whole yet"),
        ("magic", 12345, SegmentError, "not a segment of Symphony"),
        ("abi", 99, AbiMismatch, "ABI version 99"),
        ("fingerprint", 5, AbiMismatch, "another build"),
        ("size_bytes", 4096, SegmentError, "stamp says 4096"),
        ("kind", 4, SegmentError, "kind out, not run"),
        ("boot_id", [1] * 16, SegmentError, "last start"),
        ("region_count", 2**31, SegmentError, "damaged"),
    ],
)
def test_a_stamp_that_does_not_match_is_refused(segment, field, value, error, says):
    rewrite(segment, field, value)
    with pytest.raises(SegmentError, match=says) as caught:
        Segment.attach(segment.name, kind="run")
    assert type(caught.value) is error


def test_another_layout_is_refused_by_the_name_of_its_first_field_that_differs(segment):
    place = segment.regions["layout"]
    text = segment.buffer[place.offset : place.offset + place.count]
    moved = text.replace(b"  position uint64_t 8 8 1", b"  position uint64_t 9 8 1")
    assert moved != text
    segment.buffer[place.offset : place.offset + place.count] = moved
    rewrite(segment, "fingerprint", 1)
    with pytest.raises(AbiMismatch, match=r"sym_node_t: it has 'position uint64_t 9 .* where .* 'position uint64_t 8 "):
        Segment.attach(segment.name)


@pytest.mark.parametrize(
    ("field", "value"), [("offset_bytes", 2**40), ("offset_bytes", 257), ("count", 2**60), ("stride_bytes", 31)]
)
def test_a_damaged_directory_is_refused(segment, field, value):
    rows = ffi.cast("sym_region_t *", segment.address_of_stamp("magic") + 256)
    setattr(rows[0], field, value)
    with pytest.raises(SegmentError, match="damaged"):
        Segment.attach(segment.name)


def test_random_bytes_as_stamp_and_directory_are_refused_or_read_but_never_crash(segment, seed):
    import random

    chance = random.Random(seed)
    good = segment.buffer[:1024]
    for _ in range(300):
        for _ in range(chance.choice([1, 2, 8])):
            segment.buffer[chance.randrange(8, 700)] = chance.randrange(256)
        try:
            with Segment.attach(segment.name) as seen:
                for name in seen.regions:
                    seen.table(name)
        except (SegmentError, UsageError):
            pass
        segment.buffer[:1024] = good


def test_a_file_that_was_cut_short_is_refused_without_a_fault(segment):
    os.truncate(space.path_of(segment.name), 4096)
    with pytest.raises(SegmentError, match="4096 bytes"):
        Segment.attach(segment.name)
    os.truncate(space.path_of(segment.name), 100)
    with pytest.raises(SegmentError, match="not whole"):
        Segment.attach(segment.name)


# -- ending ------------------------------------------------------------------------------------------------


def test_unlink_clears_the_stamp_first_and_leaves_the_registry(registry, segment):
    with Segment.attach(segment.name) as seen:
        segment.unlink()
        assert seen.buffer[:8] == bytes(8)
        assert not os.path.exists(space.path_of(segment.name))
        assert registry.names() == []
        segment.unlink()


def test_close_twice_and_use_after_close(segment):
    segment.unlink()
    segment.close()
    segment.close()
    segment.unlink()
    for use in (lambda: segment.buffer, lambda: segment.address("nodes"), lambda: segment.table("nodes")):
        with pytest.raises(SegmentError, match="closed"):
            use()


def test_a_view_that_outlives_close_keeps_its_memory(registry, instance):
    made = Segment.create(registry, instance, "run", REGIONS)
    table, view = made.table("nodes"), memoryview(made.buffer)[made.offset("data") :]
    table["word"] = 3
    made.unlink()
    made.close()
    assert table["word"].tolist() == [3] * 10
    view[0] = 9
    assert view[0] == 9
    assert maps(made.name) == 1
    del table, view
    gc.collect()
    assert maps(made.name) == 0


def maps(name):
    return sum(name in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_a_forked_child_shares_the_memory_and_its_close_is_its_own(segment):
    pid = os.fork()
    if pid == 0:
        segment.table("nodes")["seat"][4] = 77
        segment.close()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert segment.table("nodes")["seat"][4] == 77


# -- sparse regions ----------------------------------------------------------------------------------------


def test_a_sparse_region_takes_memory_only_for_its_allocated_rows(registry, instance):
    regions = [Region("nodes", "sym_node_t", 1 << 20, allocated=1000), Region("marks", "u8", 1 << 20, allocated=0)]
    with Segment.create(registry, instance, "run", regions) as made:
        begin = allocated(made.name)
        assert made.size > 33 << 20
        assert begin < 96 << 10
        made.table("nodes")["word"][:1000] = 5
        assert allocated(made.name) == begin
        made.grow("nodes", 10_000)
        grown = allocated(made.name)
        assert 9000 * 32 - mmap.PAGESIZE <= grown - begin <= 9000 * 32 + mmap.PAGESIZE
        made.grow("nodes", 10_000)
        made.grow("nodes", 10)
        assert allocated(made.name) == grown
        table = made.table("nodes")
        assert table["word"][:1001].tolist() == [5] * 1000 + [0]
        table["word"][:10_000] = 6
        assert allocated(made.name) == grown
        with pytest.raises(NoSpace, match="ends at"):
            made.grow("nodes", (1 << 20) + 1)
        with Segment.attach(made.name) as seen:
            assert seen.regions == made.regions
        del table
        made.unlink()


# -- memfd -------------------------------------------------------------------------------------------------


def test_a_memfd_is_sealed_against_shrink_and_grow_and_read_only_to_its_maker(instance):
    with Segment.create_memfd(instance, "in", REGIONS, generation=3) as made:
        seals = fcntl.fcntl(made.descriptor, fcntl.F_GET_SEALS)
        assert seals == fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        for size in (0, made.size + 1):
            with pytest.raises(PermissionError):
                os.ftruncate(made.descriptor, size)
        with Segment.attach_fd(made.descriptor, writable=True, kind="in") as theirs:
            theirs.table("nodes")["word"] = 4
            assert made.table("nodes")["word"].tolist() == [4] * 10
        assert made.table("nodes").flags.writeable is False
        made.unlink()


# -- counters ----------------------------------------------------------------------------------------------


def test_counters_count_wrap_and_are_read_by_name(registry, instance):
    with Segment.create(registry, instance, "state", [Region("counters", "sym_counter_t", 3)]) as made:
        counters = Counters(made)
        counters.name(["loops", "parks"])
        counters.add(0)
        counters.add(0, 4)
        counters.add(1, 2**64 - 1)
        counters.add(1, 2)
        assert counters.read() == {"loops": 5, "parks": 1}
        assert counters.value(1) == 1
        with Segment.attach(made.name) as seen:
            assert Counters(seen).read() == {"loops": 5, "parks": 1}
        with pytest.raises(IndexError):
            counters.add(3)
        with pytest.raises(UsageError):
            counters.name(["x" * 40])
        with pytest.raises(UsageError):
            counters.name("abcd")
        made.unlink()


# -- names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "-a", "A", "a/b", "a" * 32, "a\n", ".."])
def test_engine_names_that_cannot_be(name):
    with pytest.raises(UsageError):
        check_instance_name(name)


def test_runtime_folders_are_private_and_another_users_is_refused(monkeypatch, tmp_path):
    from symphony.shmem.names import runtime_directory

    monkeypatch.setenv("SYMPHONY_RUNTIME_DIR", str(tmp_path / "base"))
    (tmp_path / "base").mkdir(mode=0o755)
    found = runtime_directory("one")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (found, found.parent)] == [0o700, 0o700]
    (tmp_path / "base" / "two").symlink_to(tmp_path)
    with pytest.raises(NotAllowed):
        runtime_directory("two")
    if os.geteuid() == 0:
        os.chown(found, 12345, 12345)
        with pytest.raises(NotAllowed):
            runtime_directory("one")
