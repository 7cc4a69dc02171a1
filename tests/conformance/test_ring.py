"""One suite for the ring, over the oracle, the C, and each side of the one against the other side of the other."""

import os

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from symphony.native import ffi, lib
from tests.conformance.rings import NativeConsumer, NativeProducer
from tests.oracle.ring import ALL, HEADER, PAD, USER, Consumer, Corrupt, Memory, Producer, record_size

PAIRS = {
    "oracle": (Producer, Consumer),
    "c": (NativeProducer, NativeConsumer),
    "c to oracle": (NativeProducer, Consumer),
    "oracle to c": (Producer, NativeConsumer),
}
STARTS = [0, 8, 2**32 - 8, 2**32 - 256, 2**63 - 64, 2**63 - 8, ALL - 8, ALL - 256, ALL - 520]


@pytest.fixture(params=PAIRS, ids=str)
def pair(request):
    return PAIRS[request.param]


@pytest.fixture(params=PAIRS, ids=str)
def ring(request):
    memory = Memory(256)
    producer, consumer = PAIRS[request.param]
    return memory, producer(memory), consumer(memory)


def payloads(polled):
    return [payload for payload, _, _ in polled]


def test_an_empty_ring_gives_nothing(ring):
    _, _, consumer = ring
    assert consumer.poll(8) == []


def test_records_arrive_whole_in_order_with_their_kind(ring):
    _, producer, consumer = ring
    sent = [(b"", 16), (b"a", 17), (b"seven b", 200), (b"8 bytes.", 65535), (b"nine byte", 16)]
    for payload, kind in sent:
        assert producer.commit(payload, kind)
    assert [(payload, kind) for payload, kind, _ in consumer.poll(99)] == sent
    assert consumer.poll(99) == []


def test_kinds_of_the_ring_itself_cannot_be_sent(ring):
    _, producer, consumer = ring
    for kind in (0, PAD, USER - 1):
        assert not producer.commit(b"x", kind)
    assert consumer.poll(1) == []


def test_a_record_is_at_most_half_the_ring(ring):
    _, producer, consumer = ring
    assert producer.fits(120)
    assert not producer.fits(121)
    assert not producer.fits(2**32 - 1)
    assert not producer.commit(bytes(121))
    assert producer.commit(bytes(120))
    assert payloads(consumer.poll(1)) == [bytes(120)]


def test_the_largest_record_always_fits_into_an_empty_ring_wherever_it_stands(ring):
    _, producer, consumer = ring
    for step in range(64):
        assert producer.commit(bytes([step]) * (step % 9))
        assert producer.commit(bytes([step]) * 120)
        polled = consumer.poll(2)
        assert payloads(polled) == [bytes([step]) * (step % 9), bytes([step]) * 120]
        consumer.release(polled[-1][2])


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 24, 56, 120])
def test_a_full_ring_refuses_and_takes_again_after_a_release(ring, length):
    _, producer, consumer = ring
    count = 0
    while producer.commit(bytes([count]) * length):
        count += 1
    assert count == 256 // record_size(length)
    polled = consumer.poll(999)
    assert payloads(polled) == [bytes([i]) * length for i in range(count)]
    assert not producer.commit(bytes(length)), "polled is not released"
    consumer.release(polled[0][2])
    assert producer.commit(b"\xff" * length)
    assert payloads(consumer.poll(9)) == [b"\xff" * length]


def test_an_abort_shows_nothing_and_its_room_is_used_again(ring):
    memory, producer, consumer = ring
    for _ in range(10):
        assert producer.abort(bytes(120))
    assert memory.tail == 0
    assert producer.commit(b"after")
    assert payloads(consumer.poll(2)) == [b"after"]


def test_an_aborted_pad_leaves_the_end_of_the_ring_usable(ring):
    _, producer, consumer = ring
    assert producer.commit(bytes(120))
    assert producer.commit(bytes(64))
    consumer.release(consumer.poll(2)[-1][2])
    assert producer.abort(bytes(112)), "needs a pad and the start of the ring"
    assert producer.commit(bytes(40)), "fits before the end"
    assert payloads(consumer.poll(2)) == [bytes(40)]


def test_staged_records_are_seen_together_when_published(ring):
    memory, producer, consumer = ring
    for text in (b"one", b"two", b"three"):
        assert producer.stage(text)
    assert consumer.poll(9) == []
    assert memory.tail == 0
    producer.publish()
    assert payloads(consumer.poll(9)) == [b"one", b"two", b"three"]


def test_polling_twice_gives_the_following_records_and_rewind_goes_back_to_the_released(ring):
    _, producer, consumer = ring
    for i in range(6):
        assert producer.commit(bytes([i]))
    first = consumer.poll(2)
    assert payloads(first) == [b"\0", b"\1"]
    assert payloads(consumer.poll(3)) == [b"\2", b"\3", b"\4"]
    consumer.release(first[0][2])
    consumer.rewind()
    assert payloads(consumer.poll(9)) == [bytes([i]) for i in range(1, 6)]


def test_a_release_frees_a_prefix_and_ignores_what_was_not_polled_or_is_freed(ring):
    memory, producer, consumer = ring
    for i in range(4):
        assert producer.commit(bytes([i]))
    polled = consumer.poll(2)
    consumer.release(polled[1][2])
    assert memory.head == 32
    for end in (16, 32, 48, 64, 2**40, ALL - 8):
        consumer.release(end)
        assert memory.head == 32
    assert payloads(consumer.poll(9)) == [b"\2", b"\3"]


@pytest.mark.parametrize("start", STARTS)
def test_positions_may_stand_anywhere_and_pass_the_largest_word(pair, start):
    memory = Memory(256, start)
    producer, consumer = pair[0](memory), pair[1](memory)
    for i in range(200):
        message = bytes([i]) * (i % 121)
        assert producer.commit(message)
        polled = consumer.poll(2)
        assert payloads(polled) == [message]
        consumer.release(polled[0][2])
    assert memory.head == memory.tail


@pytest.mark.parametrize("start", STARTS)
def test_both_sides_go_on_from_their_words_after_a_restart(pair, start):
    memory = Memory(256, start)
    producer, consumer = pair[0](memory), pair[1](memory)
    assert producer.commit(b"one") and producer.commit(b"two") and producer.stage(b"lost with its producer")
    consumer.release(consumer.poll(1)[0][2])
    consumer.poll(1)
    producer, consumer = pair[0](memory), pair[1](memory)
    assert payloads(consumer.poll(9)) == [b"two"], "polled and not released: it comes again"
    assert producer.commit(b"three")
    assert payloads(consumer.poll(9)) == [b"three"]


@pytest.mark.parametrize("tail", [1, 4, 264, 2**32, 2**63, ALL - 8])
def test_a_tail_out_of_bounds_is_refused(ring, tail):
    memory, _, consumer = ring
    memory.tail = tail
    for _ in range(2):
        with pytest.raises(Corrupt):
            consumer.poll(4)
    assert memory.head == 0


def test_a_tail_that_goes_back_is_refused(ring):
    memory, producer, consumer = ring
    assert producer.commit(b"one") and producer.commit(b"two")
    assert len(consumer.poll(4)) == 2
    memory.tail = 16
    with pytest.raises(Corrupt):
        consumer.poll(4)


@pytest.mark.parametrize("head", [8, 1, 264, 2**32, 2**63, ALL - 8])
def test_a_head_beyond_the_tail_is_refused(ring, head):
    memory, producer, _ = ring
    while producer.stage(bytes(24)):
        pass
    memory.head = head
    with pytest.raises(Corrupt):
        producer.stage(bytes(24))


@pytest.mark.parametrize(
    ("length", "kind"),
    [
        (121, USER),  # more than half the ring
        (2**32 - 1, USER),  # wraps if added carelessly
        (2**32 - 8, USER),
        (9, USER),  # further than the tail
        (0, 0),  # kinds that the ring never writes
        (0, 2),
        (0, 15),
        (0, PAD),  # a pad that does not end the ring
        (8, PAD),
    ],
)
def test_a_header_that_cannot_be_is_refused_and_nothing_is_released(ring, length, kind):
    memory, producer, consumer = ring
    assert producer.commit(bytes(8))
    HEADER.pack_into(memory.data, 0, length, kind, 0)
    for _ in range(2):
        with pytest.raises(Corrupt):
            consumer.poll(4)
    assert memory.head == 0


def test_good_records_before_a_damaged_one_are_given_first(ring):
    memory, producer, consumer = ring
    assert producer.commit(b"good") and producer.commit(b"bad!")
    HEADER.pack_into(memory.data, 16, 4, 3, 0)
    assert payloads(consumer.poll(9)) == [b"good"]
    with pytest.raises(Corrupt):
        consumer.poll(9)


def test_a_record_that_would_run_over_the_end_is_refused(ring):
    memory, producer, consumer = ring
    assert producer.commit(bytes(120)) and producer.commit(bytes(88))
    consumer.release(consumer.poll(2)[-1][2])
    assert producer.commit(bytes(16))
    assert producer.commit(bytes(40))
    HEADER.pack_into(memory.data, 224, 40, USER, 0)
    with pytest.raises(Corrupt):
        consumer.poll(9)


@pytest.mark.parametrize(
    ("size", "code"), [(0, "SIZE"), (128, "SIZE"), (255, "SIZE"), (384, "SIZE"), (2**63 + 2**62, "SIZE"), (256, None)]
)
def test_the_constructors_refuse_sizes_and_addresses(size, code):
    memory = Memory(512)
    data = ffi.from_buffer("uint8_t[]", memory.data)
    producer, consumer = ffi.new("sym_ring_producer_t *"), ffi.new("sym_ring_consumer_t *")
    p, c = ffi.new("sym_producer_t *"), ffi.new("sym_consumer_t *")
    expected = getattr(lib, f"SYM_E_{code}") if code else 0
    for operation, side in (
        (lib.sym_ring_producer_init_spsc, p),
        (lib.sym_ring_producer_attach_spsc, p),
        (lib.sym_ring_consumer_init_spsc, c),
        (lib.sym_ring_consumer_attach_spsc, c),
    ):
        assert operation(side, data, size, producer, consumer) == expected
        for place in range(1, 4):
            arguments = [side, data, 256, producer, consumer]
            arguments[place if place == 1 else place + 1] = ffi.NULL
            assert operation(*arguments) == lib.SYM_E_ALIGN
        assert operation(ffi.NULL, data, 256, producer, consumer) == lib.SYM_E_ALIGN
        assert operation(side, data + 4, 256, producer, consumer) == lib.SYM_E_ALIGN


@pytest.mark.parametrize(("tail", "head"), [(8, 16), (4, 0), (0, 4), (264, 0), (0, ALL - 512)])
def test_a_producer_does_not_go_on_over_words_that_cannot_be(tail, head):
    memory = Memory(256)
    memory.tail, memory.head = tail, head
    with pytest.raises(AssertionError):
        NativeProducer(memory)


class Both(RuleBasedStateMachine):
    """The C ring and the oracle get the same operations and must answer alike, down to the bytes of their memory."""

    start = 0

    def __init__(self):
        super().__init__()
        self.memories = [Memory(256, self.start), Memory(256, self.start)]
        self.producers = [Producer(self.memories[0]), NativeProducer(self.memories[1])]
        self.consumers = [Consumer(self.memories[0]), NativeConsumer(self.memories[1])]
        self.sent: list[bytes] = []
        self.staged: list[bytes] = []
        self.ends: list[int] = []
        self.number = 0

    def both(self, sides, name, *arguments):
        ours, theirs = (getattr(side, name)(*arguments) for side in sides)
        assert ours == theirs
        return ours

    def message(self, length):
        self.number += 1
        return bytes([self.number % 256]) * length

    @rule(length=st.integers(0, 130), kind=st.integers(14, 20))
    def stage(self, length, kind):
        message = self.message(length)
        if self.both(self.producers, "stage", message, kind):
            self.staged.append(message)

    @rule(length=st.integers(0, 130))
    def abort(self, length):
        self.both(self.producers, "abort", self.message(length), USER)

    @rule()
    def publish(self):
        self.both(self.producers, "publish")
        self.sent += self.staged
        self.staged = []

    @rule(n=st.integers(0, 40))
    def poll(self, n):
        polled = self.both(self.consumers, "poll", n)
        expected = self.sent[len(self.ends) : len(self.ends) + n]
        assert payloads(polled) == expected
        self.ends += [end for _, _, end in polled]

    @precondition(lambda self: self.ends)
    @rule(data=st.data())
    def release(self, data):
        count = data.draw(st.integers(1, len(self.ends)))
        self.both(self.consumers, "release", self.ends[count - 1])
        del self.ends[:count]
        del self.sent[:count]

    @rule()
    def rewind(self):
        self.both(self.consumers, "rewind")
        self.ends = []

    @rule()
    def consumer_starts_again(self):
        self.consumers = [Consumer(self.memories[0]), NativeConsumer(self.memories[1])]
        self.ends = []

    @rule()
    def producer_starts_again(self):
        self.producers = [Producer(self.memories[0]), NativeProducer(self.memories[1])]
        self.staged = []

    @invariant()
    def words_and_bytes_agree(self):
        ours, theirs = self.memories
        assert (ours.tail, ours.head) == (theirs.tail, theirs.head)
        assert ours.data == theirs.data


@pytest.mark.parametrize("start", STARTS)
def test_c_and_oracle_answer_alike_over_random_operations(start, seed):
    machine = hypothesis.seed(seed)(type("Both", (Both,), {"start": start}))
    steps = int(os.environ.get("SYMPHONY_RING_EXAMPLES", "40"))
    quick = settings(
        max_examples=steps,
        stateful_step_count=60,
        deadline=None,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
    run_state_machine_as_test(machine, settings=quick)
