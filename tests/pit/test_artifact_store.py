"""The Artifact Store over real segments: blocks, handles, ids, and readers in other processes. Numbers: its README."""

import itertools
import json
import random
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from blake3 import blake3

from symphony.model import value
from symphony.model.errors import NoSpace, RoomError, StaleHandle, ValueRefused
from symphony.native.layout import constants
from symphony.pit.artifact import store as stores
from symphony.pit.artifact.store import Store, size_class
from symphony.shmem.segment import Region, Segment

ROOT = Path(__file__).resolve().parents[2]
RUN = 5
READER = """
import json, sys
import numpy as np
from symphony.model import value
from symphony.shmem.segment import Segment

state = Segment.attach(sys.argv[1])
row = state.table("artifacts")[int(sys.argv[2])]
place = state.table("segments")[int(row["segment"]) % len(state.table("segments"))]
segment = Segment.attach(bytes(place["name"]).split(b"\\0")[0].decode())
at, size = int(row["offset_bytes"]), int(row["size_bytes"])
payload = memoryview(segment.buffer)[at : at + size]
seen = value.decode(int(row["kind"]), payload)
told = {"state": int(row["word"]) >> 60, "sum": float(seen.sum()), "writeable": seen.flags.writeable,
        "readonly": payload.readonly, "inside": False}
begin = np.frombuffer(segment.buffer, np.uint8).__array_interface__["data"][0]
told["inside"] = begin <= seen.__array_interface__["data"][0] < begin + segment.size
try:
    memoryview(segment.buffer)[at : at + 1] = b"x"
except TypeError as error:
    told["written"] = str(error)
print(json.dumps(told))
"""


class Stage:
    """A store with few rows, over segments that the fixture takes away."""

    def __init__(self, registry, rows=8, segments=16):
        regions = [
            Region("artifacts", "sym_artifact_t", rows), Region("segments", "sym_segment_t", segments),
            Region("engine", "sym_engine_t", 1),
        ]  # fmt: skip
        self.state = Segment.create(registry, "pit-test", "state", regions)
        self.made = []
        self.full_after = None
        self.registry = registry
        self.store = Store(self.make, *(self.state.table(name) for name in ("segments", "artifacts", "engine")))

    def make(self, kind, regions):
        if self.full_after is not None and len(self.made) >= self.full_after:
            raise NoSpace("shared memory is full")
        self.made.append(Segment.create(self.registry, "pit-test", kind, regions))
        return self.made[-1]

    def row(self, ref):
        return self.state.table("artifacts")[ref.row]

    def close(self):
        self.store.close()
        self.store = None
        self.state.unlink()
        self.state.close()


@pytest.fixture
def stage(registry):
    opened = Stage(registry)
    yield opened
    opened.close()


@pytest.fixture
def store(stage):
    return stage.store


def overlapping(blocks):
    """Whether two of (segment, begin, size) share a byte."""
    ordered = sorted(blocks)
    return any(a[0] == b[0] and a[1] + a[2] > b[1] for a, b in itertools.pairwise(ordered))


def test_size_classes():
    smallest, largest = stores.SMALLEST_BYTES, stores.LARGEST_CLASS_BYTES
    assert size_class(0) == size_class(1) == size_class(smallest) == smallest
    assert size_class(smallest + 1) == 4 * smallest
    assert size_class(largest) == largest and size_class(largest + 1) == 2 * largest
    assert all(size_class(size) >= size for size in range(0, 3 * largest, 1_000_003))


def test_blocks_of_an_arena_are_aligned_and_never_overlap(store, seed):
    """I5."""
    rng = random.Random(seed)
    arena = store.arena(200_000, RUN)
    blocks = []
    while (at := arena.take(size := rng.randrange(1, 9_000))) is not None:
        blocks.append((arena.id, at, size))
    assert not overlapping(blocks)
    assert all(at % 64 == 0 and arena.begin <= at and at + size <= arena.size for _, at, size in blocks)
    assert arena.take(arena.size) is None and arena.take(0) is not None


def test_large_outputs_of_a_run_take_blocks_that_never_overlap(store, seed):
    rng = random.Random(seed)
    blocks = []
    for _ in range(40):
        size = rng.choice((1, 5_000, 1 << 20, 3 << 20))
        arena, at = store.block(size, rng.choice((RUN, RUN + 1)))
        blocks.append((arena.id, at, size))
    assert not overlapping(blocks)


def test_an_arena_is_used_again_whole_and_only_after_its_run(store):
    """I2: what a run made stays as it is until the run is forgotten."""
    first = store.arena(1000, RUN)
    at = store.write(first, value.encode(b"of the first run"))
    other = store.arena(1000, RUN + 1)
    assert other.id != first.id
    store.release_run(RUN + 1)
    assert bytes(store.bytes_at(first.id, at, 16)) == b"of the first run"
    store.release_run(RUN)
    taken = {store.arena(1000, RUN + 2).id, store.arena(1000, RUN + 3).id}
    assert taken == {first.id, other.id}
    assert store.totals()["segments"] == 2


def test_more_than_is_kept_is_given_back(stage, store, monkeypatch):
    monkeypatch.setattr(stores, "KEPT_FREE_BYTES", 2 * size_class(1 << 20))
    forgotten = []
    store.forgotten.append(forgotten.append)
    ids = [store.arena(1000, RUN).id for _ in range(12)]
    store.release_run(RUN)
    kept = store.totals()
    assert kept["kept_bytes"] == kept["bytes"] <= stores.KEPT_FREE_BYTES
    assert len(forgotten) == 12 - kept["segments"] and set(forgotten) < set(ids)
    with pytest.raises(StaleHandle, match="released"):
        store.bytes_at(forgotten[0], 4096, 1)


def test_what_is_kept_gives_way_when_memory_is_short(stage, store):
    store.arena(1000, RUN)
    store.arena(1 << 20, RUN)
    store.release_run(RUN)
    stage.full_after = 3
    assert store.totals()["segments"] == 2
    store.arena(8 << 20, RUN)
    stage.full_after = 2
    store.release_run(RUN)
    with pytest.raises(NoSpace):
        store.arena(32 << 20, RUN)
    assert store.totals()["segments"] == 0 and store.totals()["kept_bytes"] == 0
    stage.full_after = None
    assert store.arena(1000, RUN).take(10) is not None


def test_a_segments_id_is_never_given_again(stage, store):
    """I7: also once the table has gone round."""
    seen = set()
    for _ in range(50):
        arena = store.arena(1000, RUN)
        assert arena.id not in seen and arena.id % 16
        seen.add(arena.id)
        store.release_run(RUN)
        for kept in store._free.pop(arena.fit, []):
            store._drop(kept)
        store._free_bytes = 0
    assert max(seen) > 16


def test_too_many_segments_are_refused_by_name(stage, store):
    for _ in range(15):
        store.arena(1000, RUN)
    with pytest.raises(RoomError, match="15 segments at once are the limit"):
        store.arena(1000, RUN)
    # What was made and found no row must not stay behind.
    assert len(stage.registry.names()) == 1 + 15
    store.release_run(RUN)
    assert store.arena(1000, RUN)


def test_players_hear_of_every_segment_and_of_its_end(store):
    """I6."""
    granted, forgotten = {}, []
    store.granted.append(lambda number, segment: granted.update({number: segment.name}))
    store.forgotten.append(forgotten.append)
    arena = store.arena(1000, RUN)
    ref = store.put(b"x" * 100)
    live = {number: segment.name for number, segment in store.live()}
    assert granted == live and len(live) == 2 and arena.id in live
    assert bytes(store.payload(ref)) == b"x" * 100


def test_a_handle_at_once_and_an_id_once_hashed(stage, store):
    """I4."""
    ref = store.put(b"abc")
    row = stage.row(ref)
    assert int(row["word"]) >> 60 == stores.PUBLISHED and int(row["hashed"]) == 0 and not row["id"].any()
    assert ref.id == "b3:" + blake3(b"abc").hexdigest()
    assert int(row["hashed"]) == 1 and bytes(row["id"]) == blake3(b"abc").digest()
    assert store.put(b"abc").id == ref.id


def test_kinds_never_merge(stage, registry):
    """I4: the same bytes as bytes, text, data and a list's item are different things."""
    store = stage.store
    array = np.frombuffer(b"a", np.uint8)
    ids = [store.put(what).id for what in (b"a", "a", {"a": 1}, array, [b"a"], ["a"], None)]
    assert len(set(ids)) == len(ids)
    same = value.encode({"a": 1})
    assert store.put(value.payload_of(same)).id != ids[2], "bytes that look like data are bytes"


@pytest.mark.parametrize("what", [b"", "", b"x", "ä" * 1000, {"k": [1, 2.5, None]}, [b"1", "2"], [], 7, None], ids=repr)
def test_what_is_put_is_there(store, what):
    seen = store.put(what).view()
    assert (list(seen) if isinstance(what, list) else bytes(seen) if isinstance(what, bytes) else seen) == what


def test_an_array_is_seen_where_it_lies(stage, store):
    array = np.arange(50_000, dtype=np.float32).reshape(100, 500)
    ref = store.put(array)
    view = ref.view()
    arena = store._arenas[int(stage.row(ref)["segment"])]
    where = view.__array_interface__["data"][0]
    assert np.array_equal(view, array) and where % 64 == 0
    assert arena.address <= where < arena.address + arena.size, "a view of the store's own memory, not a copy"
    assert not view.flags.writeable
    array[:] = 0
    assert ref.view()[99, 499] == 49_999, "what was published does not change with what it was made from"


def test_a_handle_of_an_earlier_life_is_refused(store):
    """I3."""
    ref = store.put(b"first")
    store.release(ref)
    for use in (ref.view, lambda: ref.id, lambda: store.payload(ref), lambda: store.release(ref)):
        with pytest.raises(StaleHandle, match="was released"):
            use()
    seen = set()
    for number in range(20):
        again = store.put(b"%d" % number)
        seen.add(again.row)
        with pytest.raises(StaleHandle):
            ref.view()
        assert bytes(again.view()) == b"%d" % number
        store.release(again)
    assert ref.row in seen, "the row was used again"


def test_rows_that_run_out_are_refused_and_come_back(store):
    refs = [store.put(b"x") for _ in range(8)]
    with pytest.raises(RoomError, match="8 artifacts are the limit"):
        store.put(b"one more")
    store.release(refs[3])
    assert store.put(b"again").row == 3


def test_what_cannot_travel_takes_no_row(store):
    with pytest.raises(ValueRefused):
        store.put(object())
    assert [store.put(b"x").row for _ in range(8)] == list(range(8))


def test_a_put_that_finds_no_memory_takes_no_row(stage, store):
    stage.full_after = 0
    for _ in range(20):
        with pytest.raises(NoSpace):
            store.put(b"x")
    stage.full_after = None
    assert len([store.put(b"x") for _ in range(8)]) == 8


def test_threads_that_put_at_once_never_share_a_byte(registry, seed):
    stage = Stage(registry, rows=4096)
    faults, refs = [], []

    def work(number):
        rng = random.Random(seed + number)
        mine = [bytes([number]) * rng.randrange(1, 3000) for _ in range(300)]
        try:
            found = [(stage.store.put(data), data) for data in mine]
            faults.extend(ref for ref, data in found if bytes(ref.view()) != data)
            refs.extend(found)
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not faults and len({ref.row for ref, _ in refs}) == 1200
    blocks = [(int(stage.row(ref)["segment"]), int(stage.row(ref)["offset_bytes"]), ref.size_bytes) for ref, _ in refs]
    assert not overlapping(blocks)
    assert all(bytes(ref.view()) == data for ref, data in refs)
    stage.close()


def test_another_process_reads_it_where_it_lies(stage, store):
    array = np.arange(1000, dtype=np.float64)
    ref = store.put(array)
    command = [sys.executable, "-c", READER, stage.state.name, str(ref.row)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["sum"] == float(array.sum()) and told["state"] == constants["SYM_ARTIFACT_PUBLISHED"]
    assert told["inside"] and not told["writeable"] and told["readonly"] and "read-only" in told["written"]
