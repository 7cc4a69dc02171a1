"""Seats: who holds which. The truth is each seat's word, with what stands beside it once it is open.

The judge gives back what the killed process held (`give_back`) in every image too: no seat may then name it, every
seat of the instance is there again, and the counts are those of the words.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from symphony.native.kernels import loading
from symphony.native.layout import constants
from symphony.pit.pool.validate import validate
from symphony.pit.tables import INSTANCE, MODEL, SEAT
from symphony.shmem.segment import Region, Segment
from tools.stepping.calls import entry_call, kernel_call
from tools.stepping.core import Case, Operation

with loading():
    from symphony.pit.pool import machine
    from symphony.pit.pool.entry import allocate_seat, release_seat

SEATS = 6
OPEN = 4
"""Seats of the one ready instance; the last two are of one that is still cold."""
LOOP, MEMBER, OTHER = 1, 2, 3
READY = constants["SYM_MODEL_READY"]
REGIONS = [
    Region("engine", "sym_engine_t", 1), Region("owners", "sym_owner_t", 8), Region("models", "sym_model_t", 2),
    Region("instances", "sym_instance_t", 2), Region("seats", "sym_seat_t", SEATS),
]  # fmt: skip


class Tables:
    """The pool's tables in a segment, as the kernels see them and as `validate` does."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        for region in REGIONS:
            setattr(self, region.name, segment.table(region.name))
        self.signed_models = self.models.view(MODEL)
        self.signed_instances, self.signed_seats = self.instances.view(INSTANCE), self.seats.view(SEAT)

    def fill(self) -> None:
        """One model with a ready instance of four seats and a cold one of two; three owners live."""
        engine = self.engine[0]
        engine["models_used"], engine["instances_used"], engine["seats_used"] = 1, 2, SEATS
        for owner in (LOOP, MEMBER, OTHER):
            self.owners[owner]["word"] = constants["SYM_OWNER_LIVE"] << 60 | 1
        self.models[0]["seat_count"] = SEATS
        self.instances[0]["seat_count"], self.instances[0]["state"] = OPEN, READY
        self.instances[1]["seat_first"], self.instances[1]["seat_count"] = OPEN, SEATS - OPEN
        machine.open_seats(self.signed_seats, 0, OPEN, 0, 0)

    def violations(self) -> list[tuple[str, str, str]]:
        return validate(self.engine[0], self.models, self.instances, self.seats, self.owners)

    def seat(self, index: int) -> tuple[int, ...]:
        """A seat as anybody may believe it: the word, and, unless it is closed, whose it is."""
        word = int(self.seats[index]["word"])
        state, owner = word >> machine.STATE_SHIFT & 7, word >> machine.OWNER_SHIFT & machine.OWNER_MASK
        beside = (
            () if state == machine.CLOSED else (int(self.seats[index]["model"]), int(self.seats[index]["instance"]))
        )
        return (state, owner, word & machine.GENERATION_MASK, *beside)


class PoolCase(Case):
    """A pool with some seats held. `dead`: the owner that is killed in the middle."""

    def __init__(self, home: Any, held: int = 0, dead: int = MEMBER) -> None:
        self.segment = Segment.create(home.registry, home.name, "state", REGIONS)
        self.segments = [self.segment]
        self.dead = dead
        self.tables = Tables(self.segment)
        self.tables.fill()
        self.tokens = [
            machine.allocate(self.tables.signed_models, self.tables.signed_seats, 0, dead) for _ in range(held)
        ]

    def kernel(self, kernel: Any, *arguments: Any) -> "PoolCase":
        self.act = kernel_call(kernel, *arguments)
        return self

    def entry(self, entry: Any, *arguments: int) -> "PoolCase":
        address = self.segment.address
        self.act = entry_call(entry, address("models"), address("seats"), *arguments)
        return self

    def attach(self) -> Tables:
        return Tables(Segment.attach(self.segment.name, writable=True, kind="state"))

    def live(self, there: Tables) -> Iterable[Any]:
        return there.violations()

    def judge(self, there: Tables) -> tuple[Any, Iterable[Any]]:
        truth = tuple(there.seat(index) for index in range(SEATS))
        # While a loaded instance opens or an evicted one closes, its state says so: I2 is asked of the others.
        problems: list[Any] = [v for v in there.violations() if v[0] != "I2"]
        machine.rebuild(there.signed_instances, there.signed_seats, 2, LOOP)
        for instance, first, count in ((0, 0, OPEN), (1, OPEN, SEATS - OPEN)):
            mine = truth[first : first + count]
            held = sum(seat[0] == machine.HELD and seat[1] == LOOP for seat in mine)
            if int(there.instances[instance]["held"]) != held:
                problems.append(
                    f"instance {instance} counts {int(there.instances[instance]['held'])} seats, not {held}"
                )
        machine.give_back(there.signed_seats, SEATS, self.dead)
        for index in range(SEATS):
            state, owner = there.seat(index)[:2]
            if owner == self.dead:
                problems.append(f"seat {index} still names the dead owner")
            before = truth[index]
            if (before[0] == machine.CLOSED) != (state == machine.CLOSED) or (
                before[1] not in (0, self.dead) and owner != before[1]
            ):
                problems.append(f"seat {index} changed hands when the dead owner's were given back")
        return truth, problems + [v for v in there.violations() if v[0] != "I2"]

    def close(self) -> None:
        del self.tables
        self.act = None  # type: ignore[assignment]
        super().close()


class SeveralSeats(PoolCase):
    """An operation that commits one seat after the other."""

    def between(self, before: Any, after: Any) -> list[Any]:
        changed = [index for index in range(SEATS) if before[index] != after[index]]
        return [
            tuple(after[i] if i in changed[:done] else before[i] for i in range(SEATS))
            for done in range(len(changed) + 1)
        ]


def holding(effort: str) -> Iterator[dict[str, int]]:
    """None held, some, all but one, all."""
    yield from ({"held": held} for held in (0, 1, OPEN - 1, OPEN))


def allocate(home: Any, held: int) -> Case:
    case = PoolCase(home, held)
    case.unseen = held == OPEN
    return case.kernel(machine.allocate, case.tables.signed_models, case.tables.signed_seats, 0, MEMBER)


def allocate_by_entry(home: Any, held: int) -> Case:
    case = PoolCase(home, held)
    case.unseen = held == OPEN
    return case.entry(allocate_seat, MEMBER, 0)


def allocate_on(home: Any, held: int) -> Case:
    case = PoolCase(home, held, dead=LOOP)
    case.unseen = held == OPEN
    return case.kernel(machine.allocate_on, case.tables.signed_instances, case.tables.signed_seats, 0, LOOP)


def hold(home: Any, held: int) -> Case:
    case = PoolCase(home, held)
    case.unseen = held > 0
    return case.kernel(machine.hold, case.tables.signed_seats, 0, MEMBER)


def release(home: Any, waiters: int) -> Case:
    case = PoolCase(home, 2)
    case.tables.models[0]["waiters"] = waiters
    return case.kernel(machine.release, case.tables.signed_models, case.tables.signed_seats, case.tokens[1], MEMBER)


def waiting(effort: str) -> Iterator[dict[str, int]]:
    yield from ({"waiters": waiters} for waiters in (0, 1))


def release_stale(home: Any) -> Case:
    """A token whose holding is over: nothing changes."""
    case = PoolCase(home, 2)
    machine.release(case.tables.signed_models, case.tables.signed_seats, case.tokens[0], MEMBER)
    case.unseen = True
    return case.kernel(machine.release, case.tables.signed_models, case.tables.signed_seats, case.tokens[0], MEMBER)


def release_by_entry(home: Any) -> Case:
    case = PoolCase(home, 2)
    return case.entry(release_seat, MEMBER, case.tokens[0])


def release_row(home: Any) -> Case:
    case = PoolCase(home, 2, dead=LOOP)
    return case.kernel(machine.release_seat, case.tables.signed_seats, 1, LOOP)


def open_seats(home: Any) -> Case:
    case = SeveralSeats(home, 1)
    case.tables.instances[1]["state"] = constants["SYM_MODEL_LOADING"]
    return case.kernel(machine.open_seats, case.tables.signed_seats, OPEN, SEATS - OPEN, 0, 1)


def close_seats(home: Any, held: int) -> Case:
    """Eviction: what is free closes, what is held stays."""
    case = SeveralSeats(home, held)
    case.unseen = held == OPEN
    case.tables.instances[0]["state"] = 0 if held == OPEN else constants["SYM_MODEL_COOLING"]
    return case.kernel(machine.close_seats, case.tables.signed_seats, 0, OPEN)


def give_back(home: Any) -> Case:
    """Of a dead owner: seats it held and one it was offered, beside another's."""
    case = SeveralSeats(home, 2, dead=OTHER)
    tables = case.tables
    machine.allocate(tables.signed_models, tables.signed_seats, 0, MEMBER)
    word = machine.seat_word(machine.OFFERED, OTHER, 5)
    tables.signed_seats[3]["word"] = word
    return case.kernel(machine.give_back, tables.signed_seats, SEATS, OTHER)


def rebuild(home: Any) -> Case:
    case = PoolCase(home, 3, dead=LOOP)
    case.unseen = True
    case.tables.instances["held"] = 77
    case.least_changes = 2
    return case.kernel(machine.rebuild, case.tables.signed_instances, case.tables.signed_seats, 2, LOOP)


_M = "symphony.pit.pool.machine."
OPERATIONS = (
    Operation("pool.allocate", (_M + "allocate",), allocate, holding),
    Operation("pool.allocate_on", (_M + "allocate_on",), allocate_on, holding),
    Operation("pool.hold", (_M + "hold",), hold, lambda effort: ({"held": 0}, {"held": 1})),
    Operation("pool.allocate by address", ("symphony.pit.pool.entry.allocate_seat",), allocate_by_entry, holding),
    Operation("pool.release", (_M + "release",), release, waiting),
    Operation("pool.release, stale", (_M + "release",), release_stale),
    Operation("pool.release by address", ("symphony.pit.pool.entry.release_seat",), release_by_entry),
    Operation("pool.release_seat", (_M + "release_seat",), release_row),
    Operation("pool.open_seats", (_M + "open_seats",), open_seats),
    Operation("pool.close_seats", (_M + "close_seats",), close_seats, holding),
    Operation("pool.give_back", (_M + "give_back",), give_back),
    Operation("pool.rebuild", (_M + "rebuild",), rebuild),
)
