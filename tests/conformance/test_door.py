"""The fast door: both sides of a ring between two processes, and bound kernels."""

import mmap
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from symphony.model.errors import RecordTooLong, RingClosed, RingCorrupt, RingError, RingFull, WaitTimeout
from symphony.native import ffi, lib
from symphony.native._door import Receiver, Sender, bind, set_thread_slot, thread_slot
from tests.conformance.duplex import BYTES, DEADLINE_S, SIZE, Duplex, message

PEER = Path(__file__).with_name("peer.py")


@pytest.fixture
def memory():
    """(mapping, descriptor) of fresh zeroed memory that another process can map."""
    fd = os.memfd_create("duplex")
    os.ftruncate(fd, BYTES)
    with mmap.mmap(fd, BYTES) as mapped:
        yield mapped, fd
    os.close(fd)


@pytest.fixture
def duplex(memory):
    both = Duplex(memory[0])
    yield both
    both.close()


@contextmanager
def peer(role, memory, *arguments):
    command = [sys.executable, str(PEER), role, str(memory[1]), *map(str, arguments)]
    process = subprocess.Popen(command, pass_fds=[memory[1]], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def until(condition, what):
    """Waits for something that another process does, with a deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: did not happen within {DEADLINE_S} s"
        os.sched_yield()


def flag(part):
    """Loads the sleeping flag, the fourth 32-bit word, of a side's words."""
    return lambda: ffi.from_buffer("uint32_t[]", part)[3] == 1


def test_messages_go_round_between_two_processes(memory, duplex, seed):
    dice = random.Random(seed)
    with peer("echo", memory) as process:
        sender, receiver = duplex.sender("there"), duplex.receiver("back")
        number = 0
        while number < 5000:
            batch = [message(number + i) for i in range(dice.randrange(1, 4))]
            kind = dice.randrange(16, 65536)
            assert sender.send_many(batch, kind, DEADLINE_S) == len(batch)
            assert [receiver.receive(DEADLINE_S) for _ in batch] == batch
            assert receiver.kind == kind
            number += len(batch)
        sender.close()
        assert process.stdout.readline() == "RingClosed\n"


def test_a_message_crosses_while_both_sides_sleep_again_and_again(memory, duplex):
    with peer("echo", memory):
        sender, receiver = duplex.sender("there"), duplex.receiver("back")
        their_flag = flag(duplex.parts("there")[2])
        for number in range(200):
            until(their_flag, "the other process goes to sleep")
            sender.send(message(number))
            assert receiver.receive(DEADLINE_S) == message(number)


def test_a_sender_sleeps_while_the_ring_is_full_and_is_woken_by_a_release(memory, duplex):
    sender = duplex.sender("there")
    filled = 0
    with pytest.raises(RingFull):
        while True:
            sender.send(bytes(1000), timeout=0)
            filled += 1
    assert filled == SIZE // 1008
    blocked = threading.Thread(target=lambda: sender.send(bytes(1000), timeout=DEADLINE_S))
    blocked.start()
    until(flag(duplex.parts("there")[1]), "the sender goes to sleep")
    with peer("take", memory, filled + 1) as process:
        assert [process.stdout.readline() for _ in range(filled + 1)] == ["1000\n"] * (filled + 1)
        blocked.join(DEADLINE_S)
    assert not blocked.is_alive()


def test_what_was_sent_before_a_kill_arrives_once_and_a_new_process_goes_on(memory, duplex, seed):
    dice = random.Random(seed)
    receiver = duplex.receiver("there")
    number = 0
    for _ in range(5):
        with peer("count_up", memory, number) as process:
            for _ in range(dice.randrange(1, 400)):
                assert receiver.receive(DEADLINE_S) == message(number)
                number += 1
            process.kill()
            process.wait()
        for payload in receiver.receive_many(10**6, 0):
            assert payload == message(number)
            number += 1


def test_ctrl_c_ends_a_wait_that_has_no_deadline(memory, duplex):
    with peer("wait_for_ever", memory) as process:
        until(flag(duplex.parts("there")[2]), "the other process goes to sleep")
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"


def test_a_wait_ends_at_its_deadline_and_not_before(duplex):
    sender, receiver = duplex.sender("there"), duplex.receiver("there")
    for timeout in (0, 1e-6, 0.03):
        start = time.monotonic()
        with pytest.raises(WaitTimeout):
            receiver.receive(timeout)
        with pytest.raises(WaitTimeout):
            receiver.receive_view(timeout=timeout)
        assert receiver.receive_many(5, timeout=timeout) == []
        assert time.monotonic() - start >= 3 * timeout
    start = time.monotonic()
    with pytest.raises(RingFull) as caught:
        sender.send_many([bytes(1000)] * 9, timeout=0.03)
    assert caught.value.facts == {"sent": 4}
    assert time.monotonic() - start >= 0.03
    assert len(receiver.receive_many(99, 0)) == 4
    for bad in (-1, float("nan"), "soon"):
        with pytest.raises((ValueError, TypeError)):
            receiver.receive(bad)


def test_a_closed_sender_is_seen_after_the_last_record(duplex):
    sender, receiver = duplex.sender("there"), duplex.receiver("there")
    sender.send(b"last")
    sender.close()
    sender.close()
    assert sender.closed
    assert receiver.receive() == b"last"
    for operation in (receiver.receive, receiver.receive_view, lambda: receiver.receive_many(3)):
        with pytest.raises(RingClosed):
            operation()
    with pytest.raises(RingClosed):
        sender.send(b"x")


def test_a_closed_receiver_is_seen_by_the_sender_also_while_it_waits(duplex):
    sender, receiver = duplex.sender("there"), duplex.receiver("there")
    caught = []

    def send():
        try:
            sender.send_many(bytes(1000) for _ in range(99))
        except RingClosed as error:
            caught.append(error)

    sending = threading.Thread(target=send)
    sending.start()
    until(flag(duplex.parts("there")[1]), "the sender goes to sleep")
    receiver.close()
    sending.join(DEADLINE_S)
    assert len(caught) == 1
    with pytest.raises(RingClosed):
        sender.send(b"x")


def test_a_side_that_is_forgotten_is_closed_but_not_by_a_fork(duplex):
    sender, receiver = duplex.sender("there"), duplex.receiver("there")
    child = os.fork()
    if child == 0:
        duplex.sides.clear()
        del sender
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    sender.send(b"still open")
    assert receiver.receive() == b"still open"
    duplex.sides.remove(sender)
    del sender
    with pytest.raises(RingClosed):
        receiver.receive()


def test_views_look_into_the_ring_until_they_are_released(duplex):
    sender, receiver = duplex.sender("there"), duplex.receiver("there")
    sender.send_many([b"first", b"second", b"third"])
    with receiver.receive_view() as first, receiver.receive_view() as second:
        assert (bytes(first), bytes(second)) == (b"first", b"second")
        assert first.readonly
        for refused in (receiver.release, receiver.close, receiver.receive, lambda: receiver.receive_many(1)):
            with pytest.raises(BufferError):
                refused()
        duplex.parts("there")[0][8:13] = b"FIRST"
        assert bytes(first) == b"FIRST", "no copy"
    receiver.release()
    assert receiver.receive() == b"third"


def test_a_view_keeps_its_receiver_alive(duplex):
    duplex.sender("there").send(b"kept")
    view = duplex.receiver("there").receive_view()
    duplex.sides.pop()
    assert bytes(view) == b"kept"
    view.release()


def test_a_side_holds_its_memory(memory):
    duplex = Duplex(memory[0])
    duplex.sender("there")
    with pytest.raises(BufferError):
        memory[0].close()
    duplex.close()


def test_only_what_a_side_writes_must_be_writable(memory):
    data, producer, consumer, consumer_bell, producer_bell = Duplex(memory[0]).parts("there")
    with mmap.mmap(memory[1], BYTES, prot=mmap.PROT_READ) as mapped:
        r_data, r_producer, r_consumer, r_consumer_bell, r_producer_bell = Duplex(mapped).parts("there")
        sender = Sender(data, producer, r_consumer, consumer_bell, r_producer_bell)
        receiver = Receiver(r_data, r_producer, consumer, producer_bell, r_consumer_bell)
        sender.send(b"over memory that the reader cannot change")
        assert receiver.receive() == b"over memory that the reader cannot change"
        with pytest.raises(WaitTimeout):
            receiver.receive(0.01)
        with pytest.raises(BufferError):
            Sender(r_data, producer, consumer, consumer_bell, producer_bell)
        with pytest.raises(BufferError):
            Receiver(data, producer, r_consumer, producer_bell, consumer_bell)
        sender.close()
        receiver.close()
        for part in (r_data, r_producer, r_consumer, r_consumer_bell, r_producer_bell):
            part.release()


def test_a_pipe_is_rung_only_for_a_sleeper(duplex):
    data, producer, consumer, _, producer_bell = duplex.parts("there")
    read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    sleeping = bytearray(4)
    sender = duplex.keep(Sender(data, producer, consumer, write_end, producer_bell, peer_sleeping=sleeping))
    sender.send(b"awake")
    with pytest.raises(BlockingIOError):
        os.read(read_end, 9)
    sleeping[0] = 1
    sender.send(b"asleep")
    assert len(os.read(read_end, 9)) == 1
    duplex.close()
    os.close(read_end)
    os.close(write_end)


def test_refuses_memory_that_cannot_be_a_ring(duplex):
    data, producer, consumer, consumer_bell, producer_bell = duplex.parts("there")
    for wrong in (data[:128], data[:4088], data[:0], data[4:260]):
        with pytest.raises(ValueError):
            Sender(wrong, producer, consumer, consumer_bell, producer_bell)
        with pytest.raises(ValueError):
            Receiver(wrong, producer, consumer, producer_bell, consumer_bell)
    with pytest.raises(ValueError):
        Sender(data, producer[:64], consumer, consumer_bell, producer_bell)
    with pytest.raises(ValueError):
        Sender(data, producer, consumer, consumer_bell[:3], producer_bell)
    with pytest.raises(ValueError):
        Sender(data, producer, consumer, -1, producer_bell)
    with pytest.raises(TypeError):
        Sender(data, producer, consumer, consumer_bell)
    with pytest.raises(TypeError):
        Sender(data, producer, consumer, object(), producer_bell)


def test_refuses_records_that_cannot_be(duplex):
    sender = duplex.sender("there")
    with pytest.raises(RecordTooLong, match="4096"):
        sender.send(bytes(SIZE // 2))
    for kind in (0, 1, 15, -1, 65536):
        with pytest.raises(ValueError):
            sender.send(b"x", kind)
    for wrong in ("text", 5, None):
        with pytest.raises(TypeError):
            sender.send(wrong)
    for call in (lambda: sender.send(), lambda: sender.send(b"", 16, 0, 0), lambda: sender.send(b"", king=16)):
        with pytest.raises(TypeError):
            call()
    sender.send(buffer=bytearray(b"by name"), kind=20, timeout=0)
    sender.send(memoryview(b"x"), 20, timeout=None)
    receiver = duplex.receiver("there")
    assert receiver.receive_many(n=9) == [b"by name", b"x"]
    assert receiver.kind == 20


def test_an_iterable_that_raises_or_closes_leaves_what_was_sent(duplex):
    sender, receiver = duplex.sender("there"), duplex.receiver("there")

    def raising():
        yield b"one"
        raise KeyError("from inside")

    def closing():
        yield b"two"
        sender.close()
        yield b"three"

    with pytest.raises(KeyError):
        sender.send_many(raising())
    with pytest.raises(RingClosed):
        sender.send_many(closing())
    assert receiver.receive_many(9) == [b"one"], "what was not shown before the close is not sent"


def test_a_lying_peer_is_an_error_and_not_a_fault(duplex):
    sender, receiver = duplex.sender("there"), duplex.receiver("there")
    data, producer, consumer, _, _ = duplex.parts("there")
    ffi.from_buffer("uint64_t[]", producer)[0] = 2**40
    with pytest.raises(RingCorrupt):
        receiver.receive(0)
    ffi.from_buffer("uint64_t[]", producer)[0] = 16
    ffi.from_buffer("uint32_t[]", data)[0] = 2**31
    with pytest.raises(RingCorrupt):
        receiver.receive_many(4, 0)
    ffi.from_buffer("uint64_t[]", consumer)[0] = 2**50
    with pytest.raises(RingCorrupt):
        while True:
            sender.send(bytes(1000), timeout=0)


def test_other_threads_run_while_one_waits_and_a_second_waiter_is_refused(duplex):
    sender, receiver = duplex.sender("there"), duplex.receiver("there")
    got = []
    waiting = threading.Thread(target=lambda: got.append(receiver.receive(DEADLINE_S)))
    waiting.start()
    until(flag(duplex.parts("there")[2]), "the thread goes to sleep")
    with pytest.raises(RingError, match="another thread"):
        receiver.receive(1)
    with pytest.raises(RingError, match="another thread"):
        receiver.close()
    sender.send(b"for the first")
    waiting.join(DEADLINE_S)
    assert got == [b"for the first"]


@pytest.fixture
def alarm():
    """Call something from a signal's handler, in this thread, while it waits."""
    before = signal.getsignal(signal.SIGALRM)

    def begin(handler, seconds=0.05):
        signal.signal(signal.SIGALRM, lambda *_: handler())
        signal.setitimer(signal.ITIMER_REAL, seconds)

    yield begin
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("call", ["receive", "receive_view", "receive_many"])
def test_a_handler_may_close_the_side_that_its_thread_waits_in(duplex, alarm, call):
    """The memory is gone then: nothing of it is looked at again."""
    receiver = duplex.receiver("there")
    alarm(receiver.close)
    with pytest.raises(RingClosed, match=call):
        getattr(receiver, call)(*((4, DEADLINE_S) if call == "receive_many" else (DEADLINE_S,)))


@pytest.mark.parametrize("call", ["send", "send_many"])
def test_a_handler_may_close_the_side_that_waits_for_room(duplex, alarm, call):
    sender, receiver = duplex.sender("there"), duplex.receiver("there")
    with pytest.raises(RingFull):
        while True:
            sender.send(bytes(500), timeout=0)
    alarm(sender.close)
    with pytest.raises(RingClosed):
        getattr(sender, call)(bytes(500) if call == "send" else [bytes(500)], timeout=DEADLINE_S)
    assert len(receiver.receive_many(99, 0)) > 1


def test_a_handler_that_closes_a_ring_does_not_take_the_process_with_it():
    """As a whole, since the ring unmaps the memory that its sides let go of."""
    program = (
        "import signal\nfrom symphony.ring import Ring\nfrom symphony.model.errors import RingClosed\n"
        "ring = Ring.create('closed-by-a-handler', 4096)\n"
        "signal.signal(signal.SIGALRM, lambda *_: ring.close())\nsignal.setitimer(signal.ITIMER_REAL, 0.2)\n"
        f"try:\n    ring.receive({DEADLINE_S})\nexcept RingClosed:\n    print('closed')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=2 * DEADLINE_S)
    assert (done.returncode, done.stdout) == (0, "closed\n"), done.stderr


def test_a_handler_that_receives_leaves_the_wait_going(duplex, alarm):
    sender, receiver = duplex.sender("there"), duplex.receiver("there")
    got = []

    def handle():
        sender.send_many([b"for the handler", b"for who waits"])
        got.append(receiver.receive(0))

    alarm(handle)
    assert receiver.receive(DEADLINE_S) == b"for who waits" and got == [b"for the handler"]


def test_views_that_come_while_it_waits_are_not_written_over(duplex, alarm):
    sender, receiver = duplex.sender("there"), duplex.receiver("there")
    views = []

    def handle():
        sender.send_many([b"looked at", b"next"])
        views.append(receiver.receive_view(0))

    alarm(handle)
    with pytest.raises(BufferError):
        receiver.receive(DEADLINE_S)
    with pytest.raises(BufferError):
        receiver.receive_many(4, DEADLINE_S)
    assert views.pop() == b"looked at"
    assert receiver.receive_many(4, 0) == [b"next"]


class Closing:
    """A number that closes a side when it is looked at."""

    def __init__(self, side):
        self.side = side

    def __float__(self):
        self.side.close()
        return 0.0


def test_an_argument_that_closes_the_side_finds_it_closed(duplex):
    sender, receiver = duplex.sender("there"), duplex.receiver("there")
    sender.send(b"one")
    with pytest.raises(RingClosed):
        receiver.receive(Closing(receiver))
    with pytest.raises(RingClosed):
        sender.send(b"two", timeout=Closing(sender))
    sender, receiver = duplex.sender("back"), duplex.receiver("back")
    with pytest.raises(RingClosed):
        receiver.receive_many(2, Closing(receiver))
    with pytest.raises(RingClosed):
        sender.send_many([b"two"], timeout=Closing(sender))


@pytest.mark.skipif(sys.version_info < (3, 12), reason="no Python runs when a buffer is taken")
def test_a_buffer_that_closes_the_side_when_it_is_taken_is_not_sent(duplex):
    class Buffer:
        def __buffer__(self, flags):
            sender.close()
            return memoryview(b"bytes")

    sender, receiver = duplex.sender("there"), duplex.receiver("there")
    with pytest.raises(RingClosed):
        sender.send(Buffer())
    with pytest.raises(RingClosed):
        receiver.receive(0)


def address_of(name):
    return int(ffi.cast("intptr_t", ffi.addressof(lib, name)))


def test_a_bound_kernel_gets_base_fixed_and_call_arguments_in_order():
    word = ffi.new("uint64_t *", 5)
    base = int(ffi.cast("intptr_t", word))
    add = bind(address_of("sym_fetch_add_u64"), base)
    assert (add(3), add(-1), word[0]) == (5, 8, 7)
    swap = bind(address_of("sym_compare_exchange_u64"), base, 7)
    assert (swap(9) & 0xFFFFFFFF, word[0]) == (1, 9)
    assert swap(9) & 0xFFFFFFFF == 0
    bind(address_of("sym_store_release_u64"), base, 2**63 - 1)()
    assert word[0] == 2**63 - 1


def test_the_slot_is_the_calling_thread_s():
    word = ffi.new("uint64_t *")
    store = bind(address_of("sym_store_relaxed_u64"), int(ffi.cast("intptr_t", word)), slot=True)
    assert thread_slot() == -1
    set_thread_slot(17)
    try:
        store()
        assert (thread_slot(), word[0]) == (17, 17)
        seen = []
        other = threading.Thread(target=lambda: (seen.append(thread_slot()), set_thread_slot(3), store()))
        other.start()
        other.join()
        assert (seen, word[0], thread_slot()) == ([-1], 3, 17)
    finally:
        set_thread_slot(-1)


def test_bind_refuses_what_it_cannot_pass():
    address = address_of("sym_fetch_add_u64")
    for arguments in ((), (address,), (0, 1), (address, *range(9))):
        with pytest.raises((TypeError, ValueError)):
            bind(*arguments)
    with pytest.raises(TypeError):
        bind(address, 0, slots=True)
    with pytest.raises(TypeError):
        bind(address, "base")
    bound = bind(address, 0)
    with pytest.raises(TypeError):
        bound(1, 2, 3, 4, 5)
    with pytest.raises(TypeError):
        bound("1")
    with pytest.raises(OverflowError):
        bound(2**63)
