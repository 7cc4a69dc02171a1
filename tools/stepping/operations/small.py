"""What Python does with a few words: counters, a stamp's owners, a bare ring's two sides."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

from symphony.native import ffi
from symphony.pit.stale.sweep import Process
from symphony.ring import _PLACES, Ring
from symphony.shmem.counters import Counters
from symphony.shmem.segment import Region, Segment
from tools.stepping.core import Case, Operation
from tools.stepping.operations.files import in_a_child
from tools.stepping.operations.ring import RingCase
from tools.stepping.tracer import Scripted


class CountersCase(Case):
    def __init__(self, home: Any) -> None:
        self.segment = Segment.create(home.registry, home.name, "state", [Region("counters", "sym_counter_t", 4)])
        self.segments = [self.segment]
        self.counters = Counters(self.segment)
        self.counters.name(["first", "second"])
        self.counters.add(1, (1 << 40) - 1)

    def attach(self) -> Counters:
        self.there = Segment.attach(self.segment.name)
        return Counters(self.there)

    def judge(self, there: Counters) -> tuple[Any, Iterable[Any]]:
        return tuple(there.read().items()), ()


def add(home: Any) -> Case:
    """Past a carry through many bytes: the number is the one or the other."""
    case = CountersCase(home)
    case.act = Scripted(lambda: case.counters.add(1, 1))
    return case


class OwnersCase(Case):
    """A state segment whose owners are named anew. Truth: which of them a sweep finds alive."""

    def __init__(self, home: Any) -> None:
        self.segment = Segment.create(home.registry, home.name, "state", [Region("data", "u8", 8)])
        self.segments = [self.segment]
        # Those that it names are dead: the maker, as the judge sees him, and the Keeper of an earlier life.
        in_a_child(lambda: self.segment.tell_owners(os.getpid(), False))
        self.act = Scripted(lambda: self.segment.tell_owners(os.getppid(), True))

    def attach(self) -> Any:
        self.there = Segment.attach(self.segment.name)
        return ffi.cast("sym_stamp_t *", self.there.address_of_stamp("magic"))

    def judge(self, there: Any) -> tuple[Any, Iterable[Any]]:
        boot = bytes(there.boot_id).hex()
        owner = Process(int(there.owner_pid), int(there.owner_start), boot).judge()
        keeper = Process(int(there.keeper_pid), int(there.keeper_start), boot).judge() if there.keeper_pid else "none"
        return keeper, [] if owner == "dead" else [f"the owner is said to be {owner}, and was killed"]


class SideCase(RingCase):
    """One side of a bare ring, by the fast door."""

    def __init__(self, home: Any, side: str, records: int) -> None:
        super().__init__(home, 8, records)
        self.ring = Ring("stepped", self.segment, owned=False)
        self.side = self.ring._take(side)
        assert side in _PLACES

    def does(self, function: Any) -> "SideCase":
        self.act = Scripted(function)
        return self

    def close(self) -> None:
        for descriptor in self.ring._locks:
            os.close(descriptor)
        del self.side, self.ring, self.ends
        self.act = None  # type: ignore[assignment]
        super().close()


def send(home: Any) -> Case:
    case = SideCase(home, "sender", 3)
    return case.does(lambda: case.side.send(b"a record of some length", 16, 0))


class SentMany(SideCase):
    """Several records, shown together as far as they fit; here they all do."""


def send_many(home: Any) -> Case:
    case = SentMany(home, "sender", 3)
    return case.does(lambda: case.side.send_many([b"one", b"two", b"three"], 16, 0))


def receive(home: Any) -> Case:
    case = SideCase(home, "receiver", 3)
    return case.does(lambda: case.side.receive(0))


def receive_many(home: Any) -> Case:
    case = SideCase(home, "receiver", 3)
    return case.does(lambda: case.side.receive_many(2, 0))


def receive_view(home: Any) -> Case:
    """Nothing is given back while it is looked at."""
    case = SideCase(home, "receiver", 3)
    case.unseen = True
    return case.does(lambda: case.side.receive_view(0))


def release(home: Any) -> Case:
    case = SideCase(home, "receiver", 3)
    case.side.receive_view(0)
    return case.does(lambda: case.side.release())


def close(home: Any, side: str) -> Case:
    case = SideCase(home, side, 3)
    return case.does(lambda: case.side.close())


def sides(effort: str) -> Iterator[dict[str, str]]:
    yield from ({"side": side} for side in _PLACES)


_R = "symphony.ring.Ring."
OPERATIONS = (
    Operation("counters.add", ("symphony.shmem.counters.Counters.add",), add),
    Operation("stamp.tell_owners", ("symphony.shmem.segment.Segment.tell_owners",), OwnersCase),
    Operation("bare ring.send", (_R + "send",), send),
    Operation("bare ring.send_many", (_R + "send_many",), send_many),
    Operation("bare ring.receive", (_R + "receive",), receive),
    Operation("bare ring.receive_many", (_R + "receive_many",), receive_many),
    Operation("bare ring.receive_view", (_R + "receive_view",), receive_view),
    Operation("bare ring.release", (_R + "release",), release),
    Operation("bare ring.close, a side", (_R + "close",), close, sides),
)
