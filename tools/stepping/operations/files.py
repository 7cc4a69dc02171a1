"""What Python code makes and removes: segments, the registry, an engine's name, bare rings. Killed at system calls.

The judge is the next one who comes: it lists what is there, attaches, and then does what a next start does (`claim`,
`Ring.create`), after which nothing of the dead one may be left.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from symphony.bus.channel import Channel
from symphony.conductor.tables import Tables
from symphony.model.errors import NoSuchSegment, RingClosed, SegmentError, WaitTimeout
from symphony.pit.stale import sweep
from symphony.ring import Ring
from symphony.shmem import names
from symphony.shmem.registry import Registry
from symphony.shmem.segment import Region, Segment
from tools.stepping.core import Case, Operation
from tools.stepping.tracer import Scripted

INSTANCE = f"stepped-{os.getpid()}"
RING = INSTANCE
"""Of this process and its children alone: others may be stepping at the same time."""
REGIONS = [Region("nodes", "sym_node_t", 50), Region("data", "u8", 100)]
SPARSE = [Region("nodes", "sym_node_t", 5000, allocated=50), Region("data", "u8", 100)]
SHM = Path("/dev/shm")


def in_a_child(function: Callable[[], object]) -> None:
    """Done by a process that then is dead and cleans up nothing."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function()
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0


def in_shm(instance: str) -> list[str]:
    return sorted(name for name in os.listdir(SHM) if name.startswith(f"symphony.{os.getuid()}.{instance}."))


def tree(folder: Path) -> tuple[str, ...]:
    """Everything below a folder, random parts of names left out."""
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    return tuple(names._SEGMENT.sub("segment", path) for path in found)


class Place(Case):
    """A runtime folder of the case's own, and an engine's name in it whose owner is dead, if it had one."""

    segments: list[Segment] = []

    def __init__(self, home: Any, *, owned: bool = True) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="case-", dir=home.folder))
        self.kept = os.environ.get("SYMPHONY_RUNTIME_DIR")
        os.environ["SYMPHONY_RUNTIME_DIR"] = str(self.base)
        self.open: list[Any] = []
        if owned:
            in_a_child(lambda: sweep.claim(INSTANCE))

    def does(self, function: Callable[[], object]) -> "Place":
        self.act = Scripted(function)
        return self

    def attach(self) -> None:
        return None

    def judge(self, there: None) -> tuple[Any, Iterable[Any]]:
        problems = []
        there_now, listed = in_shm(INSTANCE), Registry(INSTANCE).names()
        problems += [f"{name} is in no registry" for name in there_now if "/" + name not in listed]
        found = [self._look_at("/" + name) for name in there_now]
        swept = sweep.claim(INSTANCE)
        if in_shm(INSTANCE) or (self.base / INSTANCE / "segments").exists():
            problems.append("the next start of that name leaves something of the dead one")
        swept.release()
        if self._left():
            problems.append(f"after the next one has ended there is {self._left()}")
        return tuple(sorted(one for one in found if one)), problems

    def _look_at(self, name: str) -> tuple[Any, ...]:
        """What of a segment can be used; nothing of one that cannot be attached."""
        try:
            with Segment.attach(name) as seen:
                return (name.split(".")[-2], tuple((key, place.count) for key, place in seen.regions.items()))
        except SegmentError as error:
            assert "is not whole yet, or is being removed" in str(error), error
            return ()

    def _left(self) -> tuple[str, ...]:
        return tree(self.base)

    def close(self) -> None:
        for held in self.open:
            with contextlib.suppress(Exception):
                held.close()
        for name in (*in_shm(INSTANCE), *in_shm(f"ring.{RING}")):
            (SHM / name).unlink(missing_ok=True)
        shutil.rmtree(self.base, ignore_errors=True)
        if self.kept is None:
            del os.environ["SYMPHONY_RUNTIME_DIR"]
        else:
            os.environ["SYMPHONY_RUNTIME_DIR"] = self.kept


# -- segments and registry --------------------------------------------------------------------------------


def create(home: Any, sparse: bool) -> Case:
    place = Place(home)
    return place.does(lambda: Segment.create(Registry(INSTANCE), INSTANCE, "run", SPARSE if sparse else REGIONS))


def create_memfd(home: Any) -> Case:
    """It has no name: with its maker it is gone."""
    place = Place(home)
    place.unseen = True
    return place.does(lambda: Segment.create_memfd(INSTANCE, "in", REGIONS))


def unlink(home: Any) -> Case:
    place = Place(home)
    segment = Segment.create(Registry(INSTANCE), INSTANCE, "run", REGIONS)
    place.open.append(segment)
    # Its maker's process has ended by now, as the judge finds it.
    _disown(segment)
    return place.does(segment.unlink)


def _disown(segment: Segment) -> None:
    from symphony.native import ffi

    stamp = ffi.cast("sym_stamp_t *", segment.address_of_stamp("magic"))
    stamp.owner_start -= 1


def discard(home: Any) -> Case:
    """What nobody has is taken away, whole or half made."""
    place = Place(home)
    in_a_child(lambda: Segment.create(Registry(INSTANCE), INSTANCE, "run", REGIONS))
    registry = Registry(INSTANCE)
    (name,) = registry.names()
    return place.does(lambda: Segment.discard(name, registry))


def make_tables(home: Any) -> Case:
    """The state segment of a fresh engine, whole or not there."""
    place = Place(home)
    return place.does(lambda: Tables.create(Registry(INSTANCE), INSTANCE, 1))


class GrownPlace(Place):
    """A region that grows: its rows can be touched, all that were asked for, or those from before."""

    def _look_at(self, name: str) -> tuple[Any, ...]:
        with Segment.attach(name) as seen:
            place = seen.regions["nodes"]
        # Pages that were taken and never written count here, though a search for data does not find them.
        held = (SHM / name.lstrip("/")).stat().st_blocks * 512
        return ("grown",) if held >= place.offset + 2000 * place.stride else ("as before",)


def grow(home: Any) -> Case:
    place = GrownPlace(home)
    segment = Segment.create(Registry(INSTANCE), INSTANCE, "run", SPARSE)
    place.open.append(segment)
    _disown(segment)
    return place.does(lambda: segment.grow("nodes", 2000))


class RegistryPlace(Place):
    """One name in a registry, entered or struck out."""

    def judge(self, there: None) -> tuple[Any, Iterable[Any]]:
        listed = tuple(Registry(INSTANCE).names())
        _, problems = super().judge(None)
        return listed, problems


NAME = f"/symphony.{os.getuid()}.{INSTANCE}.run.0123456789abcdef"


def enter(home: Any) -> Case:
    place = RegistryPlace(home)
    registry = Registry(INSTANCE)
    return place.does(lambda: registry.enter(NAME))


def leave(home: Any) -> Case:
    place = RegistryPlace(home)
    registry = Registry(INSTANCE)
    registry.enter(NAME)
    return place.does(lambda: registry.leave(NAME))


def make_registry(home: Any) -> Case:
    place = RegistryPlace(home)
    place.unseen = True
    return place.does(lambda: Registry(INSTANCE))


def channel(home: Any) -> Case:
    """A player's channel: what has a name is listed, what has none goes with its maker."""
    place = Place(home)
    sizes = {"dispatch_bytes": 4096, "command_bytes": 4096, "arena_bytes": 4096}
    return place.does(lambda: Channel.create(Registry(INSTANCE), INSTANCE, 1, **sizes))


def close_channel(home: Any) -> Case:
    place = Place(home)
    sizes = {"dispatch_bytes": 4096, "command_bytes": 4096, "arena_bytes": 4096}
    made = Channel.create(Registry(INSTANCE), INSTANCE, 1, **sizes)
    _disown(made.out)
    place.open.append(made)
    return place.does(made.close)


# -- an engine's name -------------------------------------------------------------------------------------


class NamePlace(Place):
    """An engine's name: taken by a process that is dead now, or by nobody. Either way the next one gets it at once."""

    def __init__(self, home: Any, *, owned: bool, leavings: bool = False) -> None:
        super().__init__(home, owned=owned)
        if leavings:
            in_a_child(lambda: Segment.create(Registry(INSTANCE), INSTANCE, "run", REGIONS))

    def judge(self, there: None) -> tuple[Any, Iterable[Any]]:
        owners = tuple(sorted(owner.judge() for owner in sweep.owners_of(INSTANCE)))
        _, problems = super().judge(None)
        return (self._standing(), owners), problems

    def _standing(self) -> str:
        planned = sweep.plan(self.base, INSTANCE)
        return planned.entries[0].state if planned.entries else "nothing"


def claim(home: Any, what: str) -> Case:
    """A fresh name, one with a dead engine's leavings, one in an empty base."""
    place = NamePlace(home, owned=what == "leavings", leavings=what == "leavings")
    return ClaimPlace.of(place).does(lambda: sweep.claim(INSTANCE))


class ClaimPlace(NamePlace):
    @classmethod
    def of(cls, place: NamePlace) -> "ClaimPlace":
        place.__class__ = cls
        return place  # type: ignore[return-value]

    def judge(self, there: None) -> tuple[Any, Iterable[Any]]:
        _, problems = Place.judge(self, None)
        return "free for the next one", problems

    unseen = True


def claims(effort: str) -> Iterator[dict[str, str]]:
    yield from ({"what": what} for what in ("fresh", "leavings"))


def own(home: Any) -> Case:
    """A second process is named: the file holds one owner, or both, never none."""
    place = NamePlace(home, owned=False)
    claimed: list[Any] = []
    in_a_child(lambda: sweep.claim(INSTANCE))
    held = sweep.Claim(INSTANCE, place.base / INSTANCE, sweep.Swept())
    claimed.append(held)
    return OwnPlace.of(place).does(lambda: held.own(1))


class OwnPlace(ClaimPlace):
    """The second owner is process 1, which lives as long as this machine does."""

    unseen = False

    def judge(self, there: None) -> tuple[Any, Iterable[Any]]:
        owners = tuple(owner.pid == 1 for owner in sweep.owners_of(INSTANCE))
        problems = [] if owners[:1] == (False,) else [f"the first owner is not named any more: {owners}"]
        return len(owners), problems


def release(home: Any) -> Case:
    place = NamePlace(home, owned=False)
    held = sweep.claim(INSTANCE)
    (held.directory / "logs").mkdir()
    (held.directory / "logs" / "one.log").write_text("words")
    Registry(INSTANCE)
    case = ClaimPlace.of(place)
    _forge_dead_owner(held)
    held._mine = sweep._read_owners(held.directory)[0]

    def give_back() -> None:
        held._mine = sweep.Process(os.getpid(), held._mine.start, held._mine.boot_id, held._mine.namespace)
        sweep._write_owners(held.directory, [held._mine])
        held.release()

    return case.does(give_back)


def _forge_dead_owner(held: Any) -> None:
    sweep._write_owners(held.directory, [sweep.Process(2**22 - 1, 1, sweep.boot_id(), sweep.pid_namespace())])


class SweepPlace(NamePlace):
    """A dead engine's leavings, half taken away perhaps. Truth: what a second sweep, right afterwards, leaves."""

    unseen = True

    def judge(self, there: None) -> tuple[Any, Iterable[Any]]:
        sweep.sweep(sweep.plan(self.base, INSTANCE))
        left = (*in_shm(INSTANCE), *self._left())
        return "swept", [f"a second sweep leaves {left}"] if left else []


def sweeping(home: Any) -> Case:
    place = NamePlace(home, owned=True, leavings=True)
    (place.base / INSTANCE / "logs").mkdir()
    (place.base / INSTANCE / "logs" / "one.log").write_text("words")
    place.__class__ = SweepPlace
    return place.does(lambda: sweep.sweep(sweep.plan(place.base, INSTANCE)))


class TakenOver(NamePlace):
    """A dead Conductor's name goes to the next one, whose Keeper (here this process's parent) lives."""

    def __init__(self, home: Any) -> None:
        super().__init__(home, owned=True)
        self.keeper = os.getpid()

    def judge(self, there: None) -> tuple[Any, Iterable[Any]]:
        owners = tuple(sorted(owner.judge() for owner in sweep.owners_of(INSTANCE)))
        taken = sweep.take_over(INSTANCE, self.keeper)
        again = [owner.pid for owner in sweep.owners_of(INSTANCE)]
        problems = [] if again == [os.getpid(), self.keeper] else [f"whoever takes over next finds {again}"]
        taken.leave()
        return owners, problems


def take_over(home: Any) -> Case:
    place = TakenOver(home)
    return place.does(lambda: sweep.take_over(INSTANCE, place.keeper))


def make_folder(home: Any) -> Case:
    place = ClaimPlace.of(NamePlace(home, owned=False))
    return place.does(lambda: names.runtime_directory(INSTANCE))


# -- the bare ring ----------------------------------------------------------------------------------------


class RingPlace(Place):
    """A bare ring of a dead maker, or of none. Truth: can it be attached, and what is received."""

    def __init__(self, home: Any) -> None:
        super().__init__(home, owned=False)

    def judge(self, there: None) -> tuple[Any, Iterable[Any]]:
        problems = []
        truth = self._received()
        with Ring.create(RING, 4096) as ring, Ring.attach(RING) as other:
            ring.send(b"after it")
            if other.receive(timeout=5) != b"after it":
                problems.append("the next ring of that name does not carry a record")
        left = (*in_shm(f"ring.{RING}"), *self._left())
        if left:
            problems.append(f"the next ring of that name leaves {left}")
        return truth, problems

    def _received(self) -> Any:
        try:
            with Ring.attach(RING) as ring:
                found = []
                with contextlib.suppress(WaitTimeout, RingClosed):
                    while True:
                        found.append(ring.receive(timeout=0))
                return tuple(found)
        except (NoSuchSegment, SegmentError) as error:
            del error
            return "none"


class ReplacedRing(RingPlace):
    """A dead maker's ring is removed first, then the new one is made: between the two there is none."""

    def between(self, before: Any, after: Any) -> list[Any]:
        return [before, "none", after]


def ring_create(home: Any, left: bool) -> Case:
    place = RingPlace(home)
    if left:
        in_a_child(lambda: _send(Ring.create(RING, 4096)))
        place.__class__ = ReplacedRing
    return place.does(lambda: _kept.append(Ring.create(RING, 4096)))


_kept: list[Any] = []


def ring_attach(home: Any) -> Case:
    place = RingPlace(home)
    in_a_child(lambda: _send(Ring.create(RING, 4096)))
    place.unseen = True
    return place.does(lambda: Ring.attach(RING))


def _send(ring: Ring) -> None:
    ring.send(b"one")


def ring_close(home: Any) -> Case:
    place = RingPlace(home)
    ring = Ring.create(RING, 4096)
    ring.send(b"one")
    assert ring._segment is not None
    _disown(ring._segment)
    place.open.append(ring)

    def close() -> None:
        ring._pid = os.getpid()
        ring.close()

    return place.does(close)


_S = "symphony.shmem."
_W = "symphony.pit.stale.sweep."
OPERATIONS = (
    Operation("registry.make", (_S + "registry.Registry", _S + "names.runtime_directory"), make_registry, syscalls=True),
    Operation("registry.enter", (_S + "registry.Registry.enter",), enter, syscalls=True),
    Operation("registry.leave", (_S + "registry.Registry.leave",), leave, syscalls=True),
    Operation("segment.create", (_S + "segment.Segment.create",), create,
              lambda effort: [{"sparse": sparse} for sparse in (False, True)], syscalls=True),
    Operation("segment.create_memfd", (_S + "segment.Segment.create_memfd",), create_memfd, syscalls=True),
    Operation("segment.unlink", (_S + "segment.Segment.unlink",), unlink, syscalls=True),
    Operation("segment.grow", (_S + "segment.Segment.grow",), grow, syscalls=True),
    Operation("segment.discard", (_S + "segment.Segment.discard",), discard, syscalls=True),
    Operation("tables.create", ("symphony.conductor.tables.Tables.create",), make_tables, syscalls=True),
    Operation("channel.create", ("symphony.bus.channel.Channel.create",), channel, syscalls=True),
    Operation("channel.close", ("symphony.bus.channel.Channel.close",), close_channel, syscalls=True),
    Operation("stale.folder", (_S + "names.runtime_directory", _S + "names.runtime_base"), make_folder, syscalls=True),
    Operation("stale.claim", (_W + "claim",), claim, claims, syscalls=True),
    Operation("stale.own", (_W + "Claim.own",), own, syscalls=True),
    Operation("stale.take_over", (_W + "take_over",), take_over, syscalls=True),
    Operation("stale.release", (_W + "Claim.release",), release, syscalls=True),
    Operation("stale.sweep", (_W + "sweep",), sweeping, syscalls=True),
    Operation("bare ring.create", ("symphony.ring.Ring.create",), ring_create,
              lambda effort: [{"left": left} for left in (False, True)], syscalls=True),
    Operation("bare ring.attach", ("symphony.ring.Ring.attach",), ring_attach, syscalls=True),
    Operation("bare ring.close", ("symphony.ring.Ring.close",), ring_close, syscalls=True),
)  # fmt: skip
