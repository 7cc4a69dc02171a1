"""The ring, producer's and consumer's side, at every fill and at the wrap; the bare words beside it.

The judge is both sides attached anew over what lies there: the records from the head on are what was there before or
after, room is what head and tail say, and a record sent afterwards arrives.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from symphony.native import check, ffi, lib
from symphony.native.layout import constants
from symphony.shmem.segment import Region, Segment
from tools.stepping.calls import c_call
from tools.stepping.core import ALL, Case, Operation

SIZE = 256
KIND = constants["SYM_RECORD_USER"]
WAIT_NS = 100_000_000
"""Long enough that the stepped process, some thousand times slower than a free one, comes to sleep at all."""
RECORD = 16
"""Bytes of a record of eight bytes."""
REGIONS = [
    Region("producer", "sym_ring_producer_t", 1),
    Region("consumer", "sym_ring_consumer_t", 1),
    Region("bells", "sym_ring_bells_t", 1),
    Region("data", "u8", SIZE),
]


class Ends:
    """Both sides of one ring in this process: their private structs and the shared words that they work on."""

    def __init__(self, segment: Segment) -> None:
        self.data = ffi.cast("uint8_t *", segment.address("data"))
        self.words = ffi.cast("sym_ring_producer_t *", segment.address("producer"))
        self.other = ffi.cast("sym_ring_consumer_t *", segment.address("consumer"))
        self.bells = ffi.cast("sym_ring_bells_t *", segment.address("bells"))
        self.producer, self.consumer = ffi.new("sym_producer_t *"), ffi.new("sym_consumer_t *")
        self.views = ffi.new("sym_view_t[64]")

    @property
    def place(self) -> tuple[Any, ...]:
        return self.data, SIZE, self.words, self.other

    def begin(self) -> None:
        check(lib.sym_ring_producer_init_spsc(self.producer, *self.place), "producer")
        check(lib.sym_ring_consumer_init_spsc(self.consumer, *self.place), "consumer")

    def attach(self) -> None:
        check(lib.sym_ring_producer_attach_spsc(self.producer, *self.place), "producer")
        check(lib.sym_ring_consumer_attach_spsc(self.consumer, *self.place), "consumer")

    def stage(self, payload: bytes) -> bool:
        to = lib.sym_ring_claim_spsc(self.producer, KIND, len(payload))
        if to == ffi.NULL:
            return False
        ffi.memmove(to, payload, len(payload))
        lib.sym_ring_stage_spsc(self.producer)
        return True

    def send(self, payload: bytes) -> bool:
        sent = self.stage(payload)
        lib.sym_ring_publish_spsc(self.producer)
        return sent

    def poll(self) -> list[tuple[int, bytes]]:
        count = check(lib.sym_ring_poll_spsc(self.consumer, self.views, 64), "poll")
        return [
            (int(view.kind), bytes(ffi.buffer(ffi.cast("char *", view.address), view.length)))
            for view in self.views[0:count]
        ]

    def release(self, count: int) -> None:
        lib.sym_ring_release_spsc(self.consumer, self.views[count - 1].end)

    def stand_at(self, offset: int, records: int) -> None:
        """Bring an empty ring so far that its positions lie at `offset`, then publish so many records."""
        self.begin()
        for _ in range(offset // 8):
            assert self.send(b"")
            self.poll()
            self.release(1)
        for number in range(records):
            assert self.send(number.to_bytes(8, "little"))


def address(struct: Any) -> int:
    return int(ffi.cast("intptr_t", struct))


class RingCase(Case):
    """A ring at an offset with so many records in it, and one call of the ring's."""

    def __init__(self, home: Any, offset: int, records: int) -> None:
        self.segment = Segment.create(home.registry, home.name, "ring", REGIONS)
        self.segments = [self.segment]
        self.ends = Ends(self.segment)
        self.ends.stand_at(offset, records)

    def call(self, name: str, side: Any, *arguments: int) -> "RingCase":
        self.act = c_call(name, address(side), *arguments)
        return self

    def attach(self) -> Segment:
        return Segment.attach(self.segment.name, writable=True, kind="ring")

    def judge(self, there: Segment) -> tuple[Any, Iterable[Any]]:
        ends = Ends(there)
        closed = (int(ends.words.closed), int(ends.other.closed))
        ends.attach()
        tail, head = int(ends.words.tail), int(ends.other.head)
        problems = []
        if lib.sym_ring_space_spsc(ends.producer) != SIZE - (tail - head):
            problems.append(f"room is {lib.sym_ring_space_spsc(ends.producer)} with head {head} and tail {tail}")
        records = ends.poll()
        if records:
            ends.release(len(records))
        if not ends.send(b"after it") or ends.poll() != [(KIND, b"after it")]:
            problems.append("a record sent afterwards does not arrive")
        if ends.words.closed or ends.other.closed or ends.words.sleeping or ends.other.sleeping:
            problems.append("a side that attached anew is still said to be closed or to sleep")
        return (tuple(records), closed), problems


def states(effort: str) -> Iterator[dict[str, int]]:
    """Where a ring stands: every fill at every offset, or those where something can happen."""
    most = SIZE // RECORD
    if effort == ALL:
        for offset in range(0, SIZE, 8):
            # A record of 16 bytes that would cross the end costs a pad of 8.
            for records in range(most if offset % RECORD else most + 1):
                yield {"offset": offset, "records": records}
        return
    for offset, records in (
        (0, 0),
        (0, most),
        (SIZE - 8, 0),
        (SIZE - 8, most - 1),
        (SIZE - RECORD, 1),
        (128, 8),
        (8, 15),
    ):
        yield {"offset": offset, "records": records}


def _unseen(case: RingCase) -> RingCase:
    case.unseen = True
    return case


def claim(home: Any, offset: int, records: int) -> Case:
    case = RingCase(home, offset, records)
    return _unseen(case.call("sym_ring_claim_spsc", case.ends.producer, KIND, 40))


def stage(home: Any, offset: int, records: int) -> Case:
    case = RingCase(home, offset, records)
    lib.sym_ring_claim_spsc(case.ends.producer, KIND, 8)
    return _unseen(case.call("sym_ring_stage_spsc", case.ends.producer))


def abort(home: Any, offset: int, records: int) -> Case:
    case = RingCase(home, offset, records)
    lib.sym_ring_claim_spsc(case.ends.producer, KIND, 8)
    return _unseen(case.call("sym_ring_abort_spsc", case.ends.producer))


def publish(home: Any, offset: int, records: int, batch: int) -> Case:
    """So many records staged, as far as they fit, shown by one store."""
    case = RingCase(home, offset, records)
    staged = [case.ends.stage(bytes([number]) * 8) for number in range(batch)]
    case.unseen = not any(staged)
    return case.call("sym_ring_publish_spsc", case.ends.producer)


def publishing(effort: str) -> Iterator[dict[str, int]]:
    for state in states(effort):
        yield from ({**state, "batch": batch} for batch in (1, 3))


def commit(home: Any, offset: int, records: int) -> Case:
    case = RingCase(home, offset, records)
    to = lib.sym_ring_claim_spsc(case.ends.producer, KIND, 8)
    if to != ffi.NULL:
        ffi.memmove(to, b"commited", 8)
    case.unseen = to == ffi.NULL
    return case.call("sym_ring_commit_spsc", case.ends.producer)


def poll(home: Any, offset: int, records: int) -> Case:
    case = RingCase(home, offset, records)
    return _unseen(case.call("sym_ring_poll_spsc", case.ends.consumer, address(case.ends.views), 64))


def release(home: Any, offset: int, records: int, prefix: int) -> Case:
    """Of what was polled a prefix is released: one record, or all."""
    case = RingCase(home, offset, records)
    polled = len(case.ends.poll())
    case.unseen = polled == 0
    end = int(case.ends.views[min(prefix, polled) - 1].end) if polled else 0
    return case.call("sym_ring_release_spsc", case.ends.consumer, end)


def releasing(effort: str) -> Iterator[dict[str, int]]:
    for state in states(effort):
        yield from ({**state, "prefix": prefix} for prefix in (1, 64))


def rewind(home: Any, offset: int, records: int) -> Case:
    case = RingCase(home, offset, records)
    case.ends.poll()
    return _unseen(case.call("sym_ring_rewind_spsc", case.ends.consumer))


def close_producer(home: Any) -> Case:
    case = RingCase(home, 8, 3)
    return case.call("sym_ring_producer_close_spsc", case.ends.producer)


def close_consumer(home: Any) -> Case:
    case = RingCase(home, 8, 3)
    return case.call("sym_ring_consumer_close_spsc", case.ends.consumer)


def attach_producer(home: Any) -> Case:
    """After a producer that slept, or closed, and had records staged."""
    case = RingCase(home, 8, 3)
    case.ends.stage(b"not seen")
    lib.sym_ring_producer_close_spsc(case.ends.producer)
    case.ends.words.sleeping = 1
    place = [address(part) for part in (case.ends.data, case.ends.words, case.ends.other)]
    case.act = c_call("sym_ring_producer_attach_spsc", address(case.ends.producer), place[0], SIZE, *place[1:])
    return case


def attach_consumer(home: Any) -> Case:
    case = RingCase(home, 8, 3)
    lib.sym_ring_consumer_close_spsc(case.ends.consumer)
    case.ends.other.sleeping = 1
    place = [address(part) for part in (case.ends.data, case.ends.words, case.ends.other)]
    case.act = c_call("sym_ring_consumer_attach_spsc", address(case.ends.consumer), place[0], SIZE, *place[1:])
    return case


def begin_producer(home: Any) -> Case:
    """On the zeros of a fresh segment."""
    case = RingCase(home, 0, 0)
    place = [address(part) for part in (case.ends.data, case.ends.words, case.ends.other)]
    case.act = c_call("sym_ring_producer_init_spsc", address(case.ends.producer), place[0], SIZE, *place[1:])
    return _unseen(case)


def begin_consumer(home: Any) -> Case:
    case = RingCase(home, 0, 0)
    place = [address(part) for part in (case.ends.data, case.ends.words, case.ends.other)]
    case.act = c_call("sym_ring_consumer_init_spsc", address(case.ends.consumer), place[0], SIZE, *place[1:])
    return _unseen(case)


def wait(home: Any) -> Case:
    """For records that do not come: the flag goes up, the process sleeps on the bell, the flag goes down."""
    case = RingCase(home, 8, 0)
    case.least_changes = 2
    flag, bell = ffi.addressof(case.ends.other, "sleeping"), ffi.addressof(case.ends.bells, "consumer_bell")
    return _unseen(case.call("sym_ring_wait_spsc", case.ends.consumer, address(flag), address(bell), 0, WAIT_NS))


def wait_space(home: Any) -> Case:
    case = RingCase(home, 0, SIZE // RECORD)
    case.least_changes = 2
    flag, bell = ffi.addressof(case.ends.words, "sleeping"), ffi.addressof(case.ends.bells, "producer_bell")
    flags = (address(flag), address(bell), 0, WAIT_NS)
    return _unseen(case.call("sym_ring_wait_space_spsc", case.ends.producer, 8, *flags))


OPERATIONS = (
    Operation("ring.init.producer", ("sym_ring_producer_init_spsc",), begin_producer),
    Operation("ring.init.consumer", ("sym_ring_consumer_init_spsc",), begin_consumer),
    Operation("ring.attach.producer", ("sym_ring_producer_attach_spsc",), attach_producer),
    Operation("ring.attach.consumer", ("sym_ring_consumer_attach_spsc",), attach_consumer),
    Operation("ring.claim", ("sym_ring_claim_spsc",), claim, states),
    Operation("ring.stage", ("sym_ring_stage_spsc",), stage, states),
    Operation("ring.abort", ("sym_ring_abort_spsc",), abort, states),
    Operation("ring.publish", ("sym_ring_publish_spsc",), publish, publishing),
    Operation("ring.commit", ("sym_ring_commit_spsc",), commit, states),
    Operation("ring.poll", ("sym_ring_poll_spsc",), poll, states),
    Operation("ring.release", ("sym_ring_release_spsc",), release, releasing),
    Operation("ring.rewind", ("sym_ring_rewind_spsc",), rewind, states),
    Operation("ring.close.producer", ("sym_ring_producer_close_spsc",), close_producer),
    Operation("ring.close.consumer", ("sym_ring_consumer_close_spsc",), close_consumer),
    Operation("ring.wait", ("sym_ring_wait_spsc",), wait),
    Operation("ring.wait_space", ("sym_ring_wait_space_spsc",), wait_space),
)  # fmt: skip
