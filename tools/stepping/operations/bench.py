"""The Conductor's loop on a bench: its kernels over real segments and a real channel, without threads and processes.

One run, one player, one capacity. The player's side is done by hand (`Extension`). What a Conductor that comes back
does is done by the same kernels as in `conductor/resume.py`, in the same order.
"""

import os
import select
from dataclasses import dataclass
from typing import Any

import numpy as np

from symphony.bus.channel import Channel
from symphony.conductor import state
from symphony.conductor.mailbox import PrivateRing
from symphony.conductor.tables import OWNER_SELF
from symphony.model.score import Score
from symphony.native import check, ffi, lib
from symphony.native.kernels import loading
from symphony.native.layout import constants
from symphony.pit.pool.validate import validate as validate_pool
from symphony.pit.tables import RESOURCE, SEAT
from symphony.shmem.segment import Region, Segment
from tools.stepping.operations.run import NOW, Run

with loading():
    from symphony.conductor import loop, reattach
    from symphony.conductor.resume import UNKNOWN_TAIL
    from symphony.pit.dag import word as words
    from symphony.pit.pool import machine as pool

WINDOW = 3
CAPACITY = 8
ARENA_BYTES = 1 << 15
RING_BYTES = 4096
TABLES = {
    "engine": ("sym_engine_t", 1), "counters": ("sym_counter_t", constants["SYM_COUNTER_COUNT"]),
    "owners": ("sym_owner_t", 4), "extensions": ("sym_extension_t", 1), "players": ("sym_player_t", 1),
    "models": ("sym_model_t", 1), "instances": ("sym_instance_t", 1), "seats": ("sym_seat_t", WINDOW + 1),
    "resources": ("sym_resource_t", 1), "runs": ("sym_run_t", 1),
}  # fmt: skip
IN_USE = (constants["SYM_PLAYER_STARTING"], constants["SYM_PLAYER_READY"])
ENDED = (words.RUN_COMPLETED, words.RUN_FAILED, words.RUN_CANCELLED)
FIRST_ARENA, SPARE_ARENA = 1, 2
"""Ids of the arena that the run has, and of the one that a Conductor which comes back gives it."""
GOING = (words.RUN_QUEUED, words.RUN_RUNNING, words.RUN_FAILING, words.RUN_CANCELLING)
COMPLETION, OUTPUT, DISPATCH = (np.dtype(getattr(loop, name)) for name in ("COMPLETION", "OUTPUT", "DISPATCH"))


@dataclass(frozen=True)
class Gathered:
    """An output that came in pieces before its completion: its size."""

    size: int


class Rings:
    """Two rings of a channel as one side of it sees them."""

    def __init__(self, at: dict[str, int], sends: str, receives: str) -> None:
        self.producer, self.consumer = ffi.new("sym_producer_t *"), ffi.new("sym_consumer_t *")
        self.views = ffi.new("sym_view_t[64]")
        code = lib.sym_ring_producer_attach_spsc(self.producer, *self._place(at, sends))
        check(code, sends)
        check(lib.sym_ring_consumer_attach_spsc(self.consumer, *self._place(at, receives)), receives)

    @staticmethod
    def _place(at: dict[str, int], which: str) -> tuple[Any, ...]:
        return (
            ffi.cast("void *", at[f"{which}_data"]), RING_BYTES, ffi.cast("sym_ring_producer_t *", at[f"{which}_producer"]),
            ffi.cast("sym_ring_consumer_t *", at[f"{which}_consumer"]),
        )  # fmt: skip


def _addresses(out: Segment, own: Segment) -> dict[str, int]:
    """As `Channel.addresses`, over these two mappings."""
    return Channel.addresses(type("Mapped", (), {"out": out, "in_": own})())  # type: ignore[arg-type]


class Extension:
    """The player's side: it reads dispatch records and answers, by the memory alone."""

    def __init__(self, out: Segment, own: Segment) -> None:
        self.at = _addresses(out, own)
        self.rings = Rings(self.at, "command", "dispatch")
        self.words = ffi.cast("sym_channel_in_t *", self.at["channel_in"])
        self.words.working = (1 << 64) - 1

    def received(self) -> list[dict[str, int]]:
        """Every dispatch record that was ever published: nothing is released here."""
        lib.sym_ring_rewind_spsc(self.rings.consumer)
        count = check(lib.sym_ring_poll_spsc(self.rings.consumer, self.rings.views, 64), "dispatch ring")
        found = []
        for view in self.rings.views[0:count]:
            raw = bytes(ffi.buffer(ffi.cast("char *", view.address), DISPATCH.itemsize))
            head = np.frombuffer(raw, DISPATCH)[0]
            told = {name: int(head[name]) for name in ("node", "run", "run_generation", "attempt", "input_count")}
            found.append({**told, "kind": int(view.kind), "position": int(view.position)})
        return found

    def answer(self, node: int, attempt: int, outputs: list[Any], generation: int, outcome: int = 0) -> None:
        """One completion. An output: bytes, a number of list items, ("arena", bytes), or `Gathered`."""
        rows, payload = np.zeros(len(outputs), OUTPUT), b""
        for row, output in zip(rows, outputs, strict=True):
            if isinstance(output, tuple):
                at = (self.arena_used + 63) & ~63
                ffi.memmove(ffi.cast("char *", self.at["arena"] + (at & (ARENA_BYTES - 1))), output[1], len(output[1]))
                self.arena_used = at + len(output[1])
                row["home"], row["kind"], row["offset_bytes"] = (
                    constants["SYM_HOME_ARENA"],
                    constants["SYM_VALUE_BYTES"],
                    at,
                )
                row["size_bytes"] = len(output[1])
                continue
            if isinstance(output, Gathered):
                row["home"], row["kind"], row["size_bytes"] = constants["SYM_HOME_PARTS"], 1, output.size
                continue
            data, kind, items = (
                (output, "BYTES", 0) if isinstance(output, bytes) else (_list_of(output), "LIST", output)
            )
            if outcome in (loop.OUTCOME_FAILED, loop.OUTCOME_CANCELLED):
                kind = "ERROR"
            row["home"], row["kind"], row["count"] = constants["SYM_HOME_INLINE"], constants[f"SYM_VALUE_{kind}"], items
            row["offset_bytes"], row["size_bytes"] = len(payload), len(data)
            payload += data + bytes(-len(data) % 8)
        head = np.zeros(1, COMPLETION)
        head["node"], head["attempt"], head["run_generation"] = node, attempt, generation
        head["outcome"], head["output_count"] = outcome or loop.OUTCOME_OK, len(outputs)
        head["started_ns"], head["ended_ns"] = 1000, 2000
        self.send(loop.RECORD_COMPLETION, head.tobytes() + rows.tobytes() + payload)

    arena_used = 0

    def send(self, kind: int, record: bytes) -> None:
        to = lib.sym_ring_claim_spsc(self.rings.producer, kind, len(record))
        assert to != ffi.NULL
        ffi.memmove(to, record, len(record))
        lib.sym_ring_commit_spsc(self.rings.producer)


def _list_of(items: int) -> bytes:
    """A list's payload as far as the loop looks at it: its length allows for so many items."""
    return items.to_bytes(8, "little") + bytes(17 * items)


class Loop:
    """The loop's private memory over one engine's segments."""

    def __init__(self, table: Segment, run: Run, out: Segment, own: Segment) -> None:
        self.table, self.run, self.out = table, run, out
        for name in TABLES:
            setattr(self, name, table.table(name))
        self.control = np.zeros(1, state.CONTROL)
        self.active = np.zeros(4, np.int64)
        self.pmaps, self.mmaps = np.zeros(1, state.PLAYER_MAP), np.zeros(1, state.MODEL_MAP)
        self.mmaps["first_player"], self.mmaps["players_max"] = -1, 1
        self.maps = run.maps
        self.inbox, self.outbox = PrivateRing(1 << 14), PrivateRing(1 << 14)
        self.flags = ffi.new("uint32_t[2]")
        self.views, self.scratch = (
            np.zeros(state.VIEWS * ffi.sizeof("sym_view_t"), np.uint8),
            np.zeros(1 << 14, np.uint8),
        )
        self.epoll = select.epoll()
        self.bell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.rings = Rings(_addresses(out, own), "dispatch", "command")
        self._fill_control()
        self._fill_player(_addresses(out, own))

    def _fill_control(self) -> None:
        c = self.control[0]
        for name in ("engine", "runs", "players", "models", "instances", "seats", "resources", "counters"):
            c[name] = self.table.address(name)
        c["heartbeat"] = self.table.address_of_stamp("heartbeat_ns")
        c["inbox"], c["outbox"] = PrivateRing.address(self.inbox.consumer), PrivateRing.address(self.outbox.producer)
        c["inbox_sleeping"] = PrivateRing.address(self.flags)
        c["outbox_sleeping"], c["outbox_pipe"] = PrivateRing.address(self.flags) + 4, self.bell[1]
        c["epoll"], c["owner"], c["resources_used"], c["now"] = self.epoll.fileno(), OWNER_SELF, 1, NOW
        c["turn"] = 1
        c["views"], c["scratch"], c["scratch_bytes"] = (
            self.views.ctypes.data,
            self.scratch.ctypes.data,
            len(self.scratch),
        )

    def _fill_player(self, at: dict[str, int]) -> None:
        private = self.pmaps[0]
        private["window"], private["pid"] = WINDOW, 77
        private["consumer"], private["producer"] = (
            PrivateRing.address(self.rings.consumer), PrivateRing.address(self.rings.producer)
        )  # fmt: skip
        for name in ("channel_out", "channel_in", "arena", "command_producer"):
            private[name] = at[name]
        private["arena_size"] = ARENA_BYTES
        private["arena_end"] = ffi.cast("sym_channel_out_t *", at["channel_out"]).arena_end
        private["tail"] = int(self.rings.producer.published)

    def give_arena(self, number: int, segment: Segment) -> None:
        """What the clerk does when the loop asks for memory for the run."""
        m = self.maps[0]
        place = segment.regions["bytes"]
        m["arena_segment"], m["arena"] = number, segment.address("bytes") - place.offset
        m["arena_used"], m["arena_size"] = place.offset, place.offset + place.count
        m["arena_asked"] = 0

    @property
    def all(self) -> tuple[np.ndarray, ...]:
        return self.control, self.maps, self.active, self.pmaps, self.mmaps

    def tell(self, kind: int, *given: int) -> None:
        """A message of the clerk's into the loop's inbox."""
        to = ffi.cast("int64_t *", lib.sym_ring_claim_spsc(self.inbox.producer, kind, state.MESSAGE_BYTES))
        for index in range(8):
            to[index] = given[index] if index < len(given) else 0
        lib.sym_ring_commit_spsc(self.inbox.producer)

    def told(self) -> list[tuple[int, tuple[int, ...]]]:
        """What the loop has for the clerk, (kind, numbers); it is taken."""
        found = []
        view = ffi.cast("sym_view_t *", self.views.ctypes.data)
        while lib.sym_ring_poll_spsc(self.outbox.consumer, view, 1) > 0:
            numbers = ffi.cast("int64_t *", view.address)
            found.append((int(view.kind), tuple(numbers[0 : view.length // 8])))
            lib.sym_ring_release_spsc(self.outbox.consumer, view.end)
        return found

    # -- a life --------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A fresh engine: its player starting, its run queued."""
        self.engine[0]["models_used"] = self.engine[0]["instances_used"] = self.engine[0]["players_used"] = 1
        self.engine[0]["seats_used"] = WINDOW + 1
        for owner in (OWNER_SELF, 2):
            self.owners[owner]["word"] = constants["SYM_OWNER_LIVE"] << 60 | 1
        self.models[0]["seat_count"] = self.instances[0]["seat_count"] = WINDOW
        self.instances[0]["state"] = constants["SYM_MODEL_LOADING"]
        self.resources[0]["capacity"] = CAPACITY
        self.players[0]["state"] = constants["SYM_PLAYER_STARTING"]
        loop.add_player(self.control, self.pmaps, self.mmaps, 0)

    def player_ready(self) -> None:
        loop.on_ready(self.control, self.pmaps, self.mmaps, 0)

    def run_started(self) -> None:
        loop.start_run(self.control, self.maps, self.active, 0)

    def turn(self, dispatching: bool = True) -> None:
        """A turn of the loop, without a rest at its end."""
        self.control[0]["turn"] += 1
        loop.read_inbox(*self.all)
        if int(self.pmaps[0]["state"]) != state.PLAYER_NONE:
            loop.drain(*self.all, 0)
        if int(self.control[0]["dying"]):
            loop.bury(*self.all)
        if dispatching:
            loop.dispatch_ready(*self.all)

    def take_up(self, dead: bool, lost: bool) -> None:
        """What a Conductor that comes back does before its loop turns (`conductor/resume.py`). `lost`: nobody kept the
        player's memory."""
        named = np.zeros(WINDOW + 1, np.uint8)
        self.resources[0]["used"] = 0
        seats, resources = self.seats.view(SEAT), self.resources.view(RESOURCE)
        in_use, going = int(self.players[0]["state"]) in IN_USE and not lost, self.run.state in GOING
        if lost:
            self.pmaps[0]["tail"] = UNKNOWN_TAIL
            self.players[0]["state"] = constants["SYM_PLAYER_DEAD"]
        ready = int(self.players[0]["state"]) == constants["SYM_PLAYER_READY"]
        if in_use:
            reattach.take_up_player(self.control, self.pmaps, self.mmaps, 0, ready, dead)
        if going:
            reattach.settle_run(self.control, self.maps, self.pmaps, named, resources, 1, 0)
        reattach.give_back_seats(seats, int(self.engine[0]["seats_used"]), OWNER_SELF, named)
        if lost:
            pool.close_seats(seats, 0, WINDOW)
            self.instances[0]["state"] = 0
        if going:
            reattach.resume_run(self.control, self.maps, self.active, self.pmaps, 0)

    def violations(self) -> list[Any]:
        found = list(validate_pool(self.engine[0], self.models, self.instances, self.seats, self.owners))
        if self.run.state != words.RUN_FREE:
            found += self.run.violations()
        flying = [
            node for node in range(int(self.run.row["node_count"])) if self.run.state_of(node) == words.DISPATCHED
        ]
        held = [seat for seat in range(WINDOW) if int(self.seats[seat]["word"]) >> 61 == constants["SYM_SEAT_HELD"]]
        mine = sorted(int(self.run.nodes[node]["seat"]) for node in flying)
        if self.run.state in GOING and mine != held:
            found.append(("seats", f"{held} are held, nodes in flight name {mine}", ""))
        need = sum(int(self.run.steps[int(self.run.nodes[node]["step"])]["need"][0]) for node in flying)
        if int(self.resources[0]["used"]) != need:
            found.append(("capacity", f"{int(self.resources[0]['used'])} are used, nodes in flight need {need}", ""))
        return found

    def close(self) -> None:
        self.epoll.close()
        for descriptor in self.bell:
            os.close(descriptor)


class Bench:
    """An engine's segments, and the loop and the player of one process over them."""

    def __init__(self, home: Any, score: Score) -> None:
        regions = [Region(name, kind, rows) for name, (kind, rows) in TABLES.items()]
        self.table = Segment.create(home.registry, home.name, "state", regions)
        sizes = {"dispatch_bytes": RING_BYTES, "command_bytes": RING_BYTES, "arena_bytes": ARENA_BYTES}
        self.channel = Channel.create(home.registry, home.name, 1, **sizes)
        self.arenas = {
            number: Segment.create(home.registry, home.name, "arena", [Region("bytes", "u8", 1 << 13)])
            for number in (FIRST_ARENA, SPARE_ARENA)
        }
        self.run = Run.create(home, score, words.RUN_QUEUED, self.table)
        self.own = Segment.attach_fd(self.channel.in_.descriptor, writable=True)
        self.extension = Extension(self.channel.out, self.own)
        self.loop = Loop(self.table, self.run, self.channel.out, self.channel.in_)
        self.loop.begin()
        self.loop.give_arena(FIRST_ARENA, self.arenas[FIRST_ARENA])

    @property
    def segments(self) -> list[Segment]:
        """What the Conductor writes."""
        return [self.table, self.run.segment, self.channel.out, *self.arenas.values()]

    def close(self) -> None:
        self.loop.close()
        del self.loop, self.extension
        run, self.run = self.run, None  # type: ignore[assignment]
        segments = [self.table, run.segment, *self.arenas.values()]
        del run
        self.own.close()
        self.channel.close()
        for segment in segments:
            segment.unlink()
            segment.close()
