"""The Conductor: one engine, as an object of the process that decides for it.

It owns the name, the state segment, the loop's thread, the clerk, the door and the link to the Keeper. Its public
methods are what the door and the embedding program call; they are safe from any thread and never wait for the loop,
except `wait`.
"""

import logging
import os
import select
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from symphony.conductor import state
from symphony.conductor.clerk import Clerk
from symphony.conductor.failure import explain
from symphony.conductor.intensity import Intensity
from symphony.conductor.kept import Kept
from symphony.conductor.mailbox import Inbox, Outbox, PrivateRing
from symphony.conductor.overdue import end_cancelled
from symphony.conductor.plan import Plan, plan_run, refuse_unmeetable
from symphony.conductor.players import Hosted, Players
from symphony.conductor.report import describe_run, record_lines, status_of
from symphony.conductor.resume import take_up
from symphony.conductor.run import ENDED, Run
from symphony.conductor.tables import OWNER_SELF, Tables, read_name, write_name
from symphony.conductor.undisturbed import undisturbed
from symphony.model import score as scores
from symphony.model import value
from symphony.model.errors import (
    EngineLost,
    KeeperError,
    RoomError,
    RunNotFound,
    ScoreError,
    SymphonyError,
    WaitTimeout,
)
from symphony.native import ffi, lib
from symphony.native.kernels import loading
from symphony.native.layout import constants
from symphony.pit.artifact.store import Arena, Store
from symphony.pit.dag import graph as graphs
from symphony.pit.stale.sweep import Claim, claim, plan, sweep, take_over
from symphony.pit.stale.sweep import Plan as SweepPlan
from symphony.pit.tables import OWNER, UNSET
from symphony.shmem.registry import Registry
from symphony.shmem.segment import Region, Segment

with loading():
    from symphony.conductor.loop import run_loop

log = logging.getLogger("symphony.conductor")

SPIN_NS = 20_000
KEPT_SEGMENTS = 64
"""Run segments that are kept for the next run of the same shape."""
WINDOW = 8
FIRST_ARENA_BYTES = 200 << 10
GROWTH = 8
QUEUED = constants["SYM_RUN_QUEUED"]
RUN_STATE_SHIFT = constants["SYM_RUN_STATE_SHIFT"]
CANCEL_GRACE_S = 2.0
KEEPERS_LOST, KEEPERS_LOST_S = 5, 60.0
"""More Keepers than this in that time, and the engine is lost: something kills them."""
LOOK_S = 0.002


class Conductor:
    """One engine. `start` makes it serve, `close` ends it and leaves nothing behind.

    `keeper` makes the link to a Keeper (`symphony.keeper.link.KeeperLink`);
    `inherited`: what the Keeper kept of the players of a Conductor that ended: its state is gone on from, instead of a
    fresh one (`recover`: also when nothing was kept, since that Keeper ended too); `stays`: after a crash the state is
    left alone by other engines' starts;
    `players`: most processes of one extension at once; `window`: nodes that a player may have at once; `capacity`:
    the arbiter's named resources. Raises EngineExists when the name is live.
    """

    def __init__(
        self,
        name: str,
        *,
        keeper: Callable[[], Any],
        catalogue: dict[str, Any],
        players: int | None = None,
        window: int = WINDOW,
        capacity: dict[str, int] | None = None,
        on_stop: Callable[[], None] | None = None,
        inherited: list[Any] | None = None,
        stays: bool = False,
    ) -> None:
        self.name, self.catalogue = name, catalogue
        self._inherited, self._stays, self._leaves_state = inherited, stays, False
        self.resumed_ms: float | None = None
        self._keepers_lost = Intensity(KEEPERS_LOST, KEEPERS_LOST_S)
        self.players_max = players or max(1, len(os.sched_getaffinity(0)))
        self.window = window
        self.capacity = capacity if capacity is not None else {"cpu": len(os.sched_getaffinity(0))}
        self._make_keeper, self._on_stop = keeper, on_stop
        self.closing = False
        self.runs_by_serial: dict[int, Run] = {}
        self.hosted: dict[str, Hosted] = {}
        self.hosted_by_model: dict[int, Hosted] = {}
        self._by_request: dict[bytes, int] = {}
        self._kept = Kept()
        self._idle_segments: list[tuple[tuple, Segment]] = []
        self._free_instances: list[int] = []
        self._graphs: dict[int, Segment] = {}
        self._graph_keys: dict[int, tuple] = {}
        self._lock = threading.RLock()
        self.listeners: list[Callable[[int], None]] = []
        self.moved = threading.Condition()
        self.lost: str | None = None

    # -- life ---------------------------------------------------------------------------------------------

    def start(self) -> "Conductor":
        """Claim the name, make the tables or take up those that are there, start the threads.

        Raises EngineExists, NoSpace, OSError; NothingToRecover, AbiMismatch where there is nothing to take up.
        """
        resuming = self._inherited is not None
        try:
            with undisturbed():
                self._make(resuming)
                self.loop_thread.start()
                self.clerk.start()
            self._await_loop()
        except BaseException:  # Ctrl-C above all: the first start takes long
            self._give_up()
            raise
        self.tables.engine[0]["ready_ns"] = time.monotonic_ns()
        if resuming:
            self._go_on()
        return self

    def _make(self, resuming: bool) -> None:
        """The name, the tables, the Keeper and what the threads will work on."""
        self.claim: Claim = take_over(self.name, os.getppid()) if resuming else claim(self.name)
        if not resuming:
            self._sweep_others()
        self.directory: Path = self.claim.directory
        (self.directory / "logs").mkdir(mode=0o700, exist_ok=True)
        self.registry = Registry(self.name)
        self.tables = (
            Tables.attach(self.registry) if resuming else Tables.create(self.registry, self.name, generation=1)
        )
        self._make_private()
        self._fill_state()
        self.store = Store(self._make_segment, self.tables.segments, self.tables.artifacts, self.tables.engine)
        self.keeper = self._make_keeper()
        self._own()
        self.players = Players(self)
        self.store.granted.append(self.players.grant_all)
        self.store.forgotten.append(self.players.forget_all)
        self.clerk = Clerk(self)
        if resuming:
            take_up(self, self._inherited)
        self.loop_thread = threading.Thread(target=self._run_loop, name="symphony-loop", daemon=True)

    def _give_up(self) -> None:
        """Take back what a start that failed has made."""
        if hasattr(self, "loop_thread"):
            self.close()
            return
        self.closing = True
        if hasattr(self, "claim"):
            self._undo_start()

    def _go_on(self) -> None:
        """What was asked of the Conductor before this one and is not done yet."""
        runs = sorted(self.runs_by_serial.values(), key=lambda run: int(self.tables.runs[run.row]["ended_ns"]))
        with self._lock:
            for run in runs:
                if run.ended.is_set():
                    self._keep(run)
        for run in runs:
            if not run.ended.is_set() and int(self.tables.runs[run.row]["wanted"]):
                self._cancel(run)

    def _own(self) -> None:
        """Say which processes the engine is made of: in its folder, and in the memory itself."""
        self.tables.engine[0]["keeper_pid"] = self.keeper.pid
        self.tables.segment.tell_owners(self.keeper.pid, self._stays)
        self.claim.own(self.keeper.pid)

    def _sweep_others(self) -> None:
        """Take away what dead engines of other names left, too: a private engine's name never comes again. What can be
        gone on from is left to whoever starts that name again, or cleans up."""
        planned = plan()
        others = sweep(SweepPlan(planned.base, tuple(entry for entry in planned.entries if not entry.recoverable)))
        self.claim.swept.segments += others.segments
        self.claim.swept.instances += others.instances
        self.claim.swept.size_bytes += others.size_bytes

    def _await_loop(self) -> None:
        """Until the loop turns: its first start on a machine compiles it, which takes some 20 seconds."""
        turns = self.tables.counters[constants["SYM_COUNTER_LOOPS"]]
        pause = threading.Event()
        while not int(turns["value"]):
            if self.lost is not None:
                raise EngineLost(self.lost)
            pause.wait(LOOK_S)

    def _undo_start(self) -> None:
        if hasattr(self, "keeper") and self.keeper.embedded:
            self.keeper.close()
        if hasattr(self, "store"):
            self.store.close(keep=self._inherited is not None)
        if hasattr(self, "inbox"):
            self.inbox.close()
            self.outbox.close()
            self._epoll.close()
        resuming = self._inherited is not None
        if hasattr(self, "tables"):
            self.control = self._maps_home = None
            self.tables.close(keep=resuming)
        if resuming:
            self.claim.leave()
        else:
            self.claim.release()

    def _make_segment(self, kind: str, regions: list[Region]) -> Segment:
        return Segment.create(self.registry, self.name, kind, regions, generation=1)

    def _make_private(self) -> None:
        self.control = np.zeros(1, state.CONTROL)
        self.maps = graphs.new_map(state.LIMIT_RUNS)
        self.active = np.zeros(state.LIMIT_RUNS, np.int64)
        self.pmaps = np.zeros(state.LIMIT_PLAYERS, state.PLAYER_MAP)
        self.mmaps = np.zeros(state.LIMIT_MODELS, state.MODEL_MAP)
        self.mmaps["first_player"] = -1
        self.inbox, self.outbox = Inbox(), Outbox()
        self._epoll = select.epoll()
        self._epoll.register(self.inbox.bell_out, select.EPOLLIN)
        self._views = np.zeros(state.VIEWS * ffi.sizeof("sym_view_t"), np.uint8)
        self._scratch = np.zeros(1 << 18, np.uint8)
        c = self.control[0]
        c["epoll"], c["spin_ns"], c["owner"] = self._epoll.fileno(), SPIN_NS, OWNER_SELF
        c["inbox"], c["outbox"] = (
            PrivateRing.address(self.inbox.ring.consumer),
            PrivateRing.address(self.outbox.ring.producer),
        )
        c["inbox_sleeping"] = PrivateRing.address(self.inbox.sleeping)
        c["outbox_sleeping"], c["outbox_pipe"] = PrivateRing.address(self.outbox.sleeping), self.outbox.bell_in
        c["views"], c["scratch"], c["scratch_bytes"] = (
            self._views.ctypes.data,
            self._scratch.ctypes.data,
            len(self._scratch),
        )

    def _fill_state(self) -> None:
        c = self.control[0]
        for name in ("engine", "runs", "players", "models", "instances", "seats", "resources", "counters"):
            c[name] = self.tables.address(name)
        c["heartbeat"] = self.tables.segment.address_of_stamp("heartbeat_ns")
        owner = self.tables.owners[OWNER_SELF]
        owner["pid"], owner["start"] = os.getpid(), lib.sym_process_start(os.getpid())
        owner["kind"], owner["word"] = constants["SYM_OWNER_CONDUCTOR"], constants["SYM_OWNER_LIVE"] << 60 | 1
        for number, (name, amount) in enumerate(self.capacity.items()):
            write_name(self.tables.resources[number]["name"], name)
            self.tables.resources[number]["capacity"] = amount
        c["resources_used"] = len(self.capacity)
        engine = self.tables.engine[0]
        engine["conductor_pid"], engine["resources_used"] = os.getpid(), len(self.capacity)
        swept = self.claim.swept
        if swept.segments:
            self.tables.counters[constants["SYM_COUNTER_SWEPT_SEGMENTS"]]["value"] = len(swept.segments)

    def _run_loop(self) -> None:
        try:
            run_loop(self.control, self.maps, self.active, self.pmaps, self.mmaps)
        except BaseException as error:
            log.exception("the loop ended by a fault")
            self.lose(f"the loop ended by a fault: {error}")

    def lose(self, reason: str) -> None:
        """The engine cannot go on: every wait ends with EngineLost."""
        self.lost = reason
        for run in list(self.runs_by_serial.values()):
            run.ended.set()
        with self.moved:
            self.moved.notify_all()

    def keeper_lost(self) -> int | None:
        """The Keeper is gone, its extensions with it.

        A program's own engine gets another (its descriptor is returned) and goes on; one that is a process of its own
        ends, and leaves its state where it is if it was started to stay.
        """
        if self.closing:
            return None
        if self._on_stop is None and self._keepers_lost.allow(time.monotonic()):
            return self._replace_keeper()
        self._leaves_state = self._stays
        how = f"symphonyctl -n {self.name} up --recover goes on from its state" if self._stays else "start it again"
        self.lose(f"its Keeper has ended, and every extension with it; {how}")
        if self._on_stop is not None:
            self._on_stop()
        return None

    def _replace_keeper(self) -> int | None:
        """In the clerk's thread. What the dead Keeper's children had begun is run again as their steps allow, once
        it is certain that none of them lives."""
        self.keeper.sweep()
        self.keeper.close()
        try:
            self.keeper = self._make_keeper()
        except OSError as error:
            self.lose(f"its Keeper has ended, and another cannot be started: {error}")
            return None
        log.warning("the Keeper has ended; process %d is the next", self.keeper.pid)
        self._own()
        for player in list(self.players.live.values()):
            self.players.died({"token": player.token}, "its Keeper ended")
        return self.keeper.fileno()

    def hold(self) -> None:
        """The engine ends with the client that asks this; a Conductor that comes back knows it by this word."""
        self.tables.engine[0]["held"] = 1

    @property
    def held(self) -> bool:
        return bool(self.tables.engine[0]["held"])

    def stop(self) -> None:
        """Ask the engine to end; returns at once (the door's `stop`)."""
        if self._on_stop is not None:
            self._on_stop()

    def close(self, timeout: float = 10.0) -> None:
        """End everything: processes, threads, segments, the name. Idempotent; not for a forked child."""
        with self._lock:
            if self.closing:
                return
            self.closing = True
        self.inbox.tell(state.STOP)
        if self.loop_thread.ident is not None:
            self.loop_thread.join(timeout)
        self.clerk.stop()
        try:
            self.keeper.stop(timeout)
        except KeeperError:
            log.debug("the Keeper was gone already")
        if self.loop_thread.is_alive():
            self._unlink_memory()
        else:
            self.players.close(keep=self._leaves_state)
            self._close_memory(keep=self._leaves_state)
        if self._leaves_state:
            self.claim.leave()
        else:
            self.claim.release()
        self.lose("the engine was closed")

    def disown(self) -> None:
        """In a forked child: the engine is the parent's. Every use of this object raises EngineLost from here on, and
        its descriptors are closed, so that the parent's death is seen by those at their other ends.

        No lock is taken: the thread that held it at the fork is not here. Memory stays mapped until the child ends.
        """
        self._lock, self.moved = threading.RLock(), threading.Condition()
        self.closing = True
        self.lost = "this engine belongs to the process that forked this one; make an engine of its own here"
        for run in self.runs_by_serial.values():
            run.ended = threading.Event()
            run.ended.set()
        for part in (self.inbox, self.outbox, self.clerk, self.players, self.keeper):
            part.disown()
        self._epoll.close()

    def _run_segments(self) -> list[Segment]:
        idle = [segment for _, segment in self._idle_segments]
        return [*(run.segment for run in self.runs_by_serial.values()), *self._graphs.values(), *idle]

    def _unlink_memory(self) -> None:
        """The loop does not end: it is being compiled still, and will read its order to stop when that is done. Names
        go now; its memory stays mapped, for it would be killed by a look at what is not there."""
        log.warning("the loop has not ended in time; its memory goes with this process")
        if self._leaves_state:
            return
        players = [player.channel.out for player in self.players.live.values()]
        arenas = [segment for _, segment in self.store.live()]
        for segment in [*self._run_segments(), *players, *arenas, self.tables.segment]:
            segment.unlink()

    def _close_memory(self, keep: bool) -> None:
        for segment in self._run_segments():
            if not keep:
                segment.unlink()
            segment.close()
        self.store.close(keep)
        self.tables.close(keep)
        self._epoll.close()
        self.inbox.close()
        self.outbox.close()

    # -- what extensions there are ------------------------------------------------------------------------

    def watch_bell(self, descriptor: int) -> None:
        self._epoll.register(descriptor, select.EPOLLIN)

    def unwatch_bell(self, descriptor: int) -> None:
        self._epoll.unregister(descriptor)

    def free_instance(self) -> int:
        if self._free_instances:
            return self._free_instances.pop()
        number = int(self.tables.engine[0]["instances_used"])
        self.tables.engine[0]["instances_used"] = number + 1
        return number

    def take_instances(self, used: set[int]) -> None:
        """Of the instances that the tables have, these are players'; the others are free."""
        count = int(self.tables.engine[0]["instances_used"])
        self._free_instances = [instance for instance in range(count) if instance not in used]

    def release_instance(self, instance: int) -> None:
        """Its player is gone: the row names no seats any more, for the next one's may be the same."""
        self.tables.instances[instance]["seat_count"] = 0
        self._free_instances.append(instance)

    def host(self, extension: str) -> Hosted:
        """The extension of that id, entered into the tables at its first use. Raises ScoreError when there is none."""
        with self._lock:
            hosted = self.hosted.get(extension)
            if hosted is not None:
                return hosted
            manifest = self.catalogue.get(extension)
            if manifest is None:
                raise ScoreError(f"no extension {extension!r}{scores.did_you_mean(extension, self.catalogue)}")
            return self._enter(manifest)

    def host_of(self, step: scores.Step) -> Hosted:
        """The extension of a step, which must host the model that the step names. Raises ScoreError."""
        hosted = self.host(step.extension)
        known = (step.extension, *hosted.manifest.models)
        if step.pool_model not in known:
            hint = scores.did_you_mean(step.pool_model, known)
            raise ScoreError(f"step {step.name!r}: {step.extension} hosts no model {step.pool_model!r}{hint}")
        return hosted

    def _enter(self, manifest: Any) -> Hosted:
        engine = self.tables.engine[0]
        row, model, seat = int(engine["extensions_used"]), int(engine["models_used"]), int(engine["seats_used"])
        most = max(1, min(self.players_max, manifest.instances_max))
        window = manifest.window or self.window
        if seat + most * window > constants["SYM_LIMIT_SEATS"]:
            raise RoomError(
                f"{constants['SYM_LIMIT_SEATS']} seats are the limit; {manifest.id} would need {most * window} more"
            )
        shared = self.tables.extensions[row]
        write_name(shared["name"], manifest.id)
        shared["model"], shared["players_max"], shared["window"] = model, most, window
        pool = self.tables.models[model]
        write_name(pool["name"], manifest.id)
        pool["extension"], pool["seat_first"], pool["generation"] = row, seat, 1
        pool["seat_count"] = most * window
        # The rows first, then the counts, the extensions' last: it alone says how many there are.
        engine["seats_used"], engine["models_used"] = seat + most * window, model + 1
        engine["extensions_used"] = row + 1
        self.mmaps[model]["players_max"] = most
        hosted = Hosted(manifest, row, model, window, most, seat)
        self.hosted[manifest.id] = self.hosted_by_model[model] = hosted
        return hosted

    # -- runs ---------------------------------------------------------------------------------------------

    def play(self, score: bytes, inputs: dict[str, Any], request_id: bytes, options: dict[str, Any]) -> dict:
        """Start a run of a score. The same request id again returns the same run. Raises ScoreError, NoSpace, RoomError."""
        with self._lock:
            if request_id in self._by_request:
                return {"run": self._by_request[request_id]}
            if self.lost is not None or self.closing:
                raise EngineLost(self.lost or "the engine is closing")
            run = self._begin(score, inputs, request_id, options)
            self.inbox.tell(state.RUN_START, run.row)
        return {"run": run.serial}

    def _begin(self, dumped: bytes, inputs: dict, request_id: bytes, options: dict) -> Run:
        score = scores.load(dumped)
        values = encode_inputs(score, inputs)
        models = {step.extension: self.host_of(step).model for step in score.steps}
        refuse_unmeetable(score, self.capacity)
        planned = plan_run(score, models, {name: i for i, name in enumerate(self.capacity)})
        prepared = graphs.prepare(planned.graph)
        row = self._free_row()
        serial = int(self.tables.engine[0]["next_serial"])
        segment, geometry = self._segment_for(prepared.geometry())
        run = Run(serial, row, score, segment, geometry, request_id)
        try:
            arena = self._write_run(planned, prepared, segment, geometry, row, serial, values, dumped)
            self._enter_run(run, arena, int(options.get("priority", 0)))
        except BaseException:
            self.store.release_run(row)
            self._keep_segment(key_of(geometry), segment)
            raise
        return run

    def _segment_for(self, geometry: dict) -> tuple[Segment, dict]:
        key = key_of(geometry)
        at = next((at for at in range(len(self._idle_segments) - 1, -1, -1) if self._idle_segments[at][0] == key), None)
        if at is not None:
            _, segment = self._idle_segments.pop(at)
            graph = segment.table("graph")[0]
            # It may have grown in an earlier run: what has memory behind it stays usable.
            for name, column in (
                ("nodes", "node_capacity"),
                ("cold", "node_capacity"),
                ("marks", "node_capacity"),
                ("outputs", "output_capacity"),
            ):
                geometry[name] = (geometry[name][0], max(geometry[name][1], int(graph[column])))
            return segment, geometry
        return self._make_segment("run", graphs.regions(geometry)), geometry

    def _keep_segment(self, key: tuple, segment: Segment) -> None:
        """A run's segment, for the next run of that shape. With many the one that waits longest goes."""
        self._idle_segments.append((key, segment))
        if len(self._idle_segments) > KEPT_SEGMENTS:
            _, old = self._idle_segments.pop(0)
            self.store.leave(old)
            old.unlink()
            old.close()

    def _write_run(
        self,
        planned: Plan,
        prepared: Any,
        segment: Segment,
        geometry: dict,
        row: int,
        serial: int,
        values: list,
        score: bytes,
    ) -> Arena:
        told = value.Encoded(value.BYTES, 0, [score], len(score))
        blobs = [len(blob) for _, blob in planned.bindings] + [encoded.size for encoded in values] + [told.size]
        size = sum(-(-blob // 64) * 64 for blob in blobs)
        arena = self.store.arena(max(FIRST_ARENA_BYTES, size + (64 << 10)), row)
        set_ref(self.tables.runs[row]["score"], arena, self.store.write(arena, told), told)
        for step, blob in planned.bindings:
            encoded = value.Encoded(value.DATA, 0, [blob], len(blob))
            set_ref(planned.graph.steps[step]["binding"], arena, self.store.write(arena, encoded), encoded)
        graphs.write(prepared, segment, geometry, row, serial)
        outputs = segment.table("outputs")
        for index, encoded in enumerate(values):
            set_ref(outputs[index], arena, self.store.write(arena, encoded), encoded)
        return arena

    def _enter_run(self, run: Run, arena: Arena, priority: int) -> None:
        number = self.store.enter(run.segment, constants["SYM_SEGMENT_RUN"], run.row)
        shared = self.tables.runs[run.row]
        shared["id"] = np.frombuffer(run.request_id, np.uint8)
        write_name(shared["name"], run.score.name)
        shared["segment"], shared["step_count"] = number, len(run.score.steps)
        self._reset_row(shared, run.serial, len(run.score.steps) + 1, priority)
        private = self.maps[run.row]
        graphs.attach_map(private, run.segment, run.geometry, run.row, self.tables.address("runs", run.row))
        private["active"], private["priority"], private["serial"], private["blocked"] = 0, priority, run.serial, 0
        private["lane_mask"], private["arena_asked"] = 0, 0
        private["arena_segment"], private["arena"] = arena.id, arena.address
        private["arena_size"], private["arena_used"] = arena.size, arena.used
        lib.sym_store_release_u64(self._word_of(run.row), QUEUED << RUN_STATE_SHIFT | run.serial & 0xFFFFFFFF)
        self.tables.engine[0]["next_serial"] = run.serial + 1
        self.enter(run)
        self.tables.counters[constants["SYM_COUNTER_RUNS"]]["value"] += 1

    def enter(self, run: Run) -> None:
        """The run is known from now on by its number and by its client's request."""
        self.runs_by_serial[run.serial] = run
        self._by_request[run.request_id] = run.serial

    def free_row(self, row: int) -> None:
        """Nobody knows this row's run any more."""
        lib.sym_store_release_u64(self._word_of(row), 0)

    def _address_of(self, row: int, field: str) -> int:
        return self.tables.address("runs", row) + ffi.offsetof("sym_run_t", field)

    def _word_of(self, row: int) -> Any:
        return ffi.cast("uint64_t *", self.tables.address("runs", row))

    def _free_row(self) -> int:
        used = {run.row for run in self.runs_by_serial.values()} | set(self._graphs)
        for row in range(state.LIMIT_RUNS):
            if row not in used:
                return row
        ended = self._kept.oldest()
        if ended is None:
            raise RoomError(f"{state.LIMIT_RUNS} runs are the limit; wait for some to end")
        self._retire(ended)
        return ended.row

    def enter_graph(self, prepared: Any) -> tuple[Segment, dict, int, int]:
        """A segment and a row for a raw graph, whose driver is the caller: (segment, geometry, row, row's address)."""
        with self._lock:
            if self.lost is not None or self.closing:
                raise EngineLost(self.lost or "the engine is closing")
            row, serial = self._free_row(), int(self.tables.engine[0]["next_serial"])
            segment, geometry = self._segment_for(prepared.geometry())
            try:
                graphs.write(prepared, segment, geometry, row, serial)
                number = self.store.enter(segment, constants["SYM_SEGMENT_RUN"], row)
            except BaseException:
                self._keep_segment(key_of(geometry), segment)
                raise
            self._graphs[row] = segment
            self._graph_keys[row] = key_of(geometry)
            shared = self.tables.runs[row]
            shared["id"], shared["segment"] = 0, number
            write_name(shared["name"], "graph")
            self._reset_row(shared, serial, len(prepared.graph.vertex_steps), 0)
            lib.sym_store_release_u64(self._word_of(row), QUEUED << RUN_STATE_SHIFT | serial & 0xFFFFFFFF)
            self.tables.engine[0]["next_serial"] = serial + 1
            return segment, geometry, row, self.tables.address("runs", row)

    def leave_graph(self, segment: Segment, row: int) -> None:
        """A raw graph was closed."""
        with self._lock:
            if self._graphs.pop(row, None) is not None:
                lib.sym_store_release_u64(self._word_of(row), 0)
                self._keep_segment(self._graph_keys.pop(row), segment)

    def _reset_row(self, shared: np.void, serial: int, nodes: int, priority: int) -> None:
        shared["submitted_ns"], shared["started_ns"], shared["ended_ns"] = time.monotonic_ns(), 0, 0
        shared["driver"], shared["priority"], shared["serial"] = OWNER_SELF, priority, serial
        shared["node_count"] = shared["total_count"] = nodes
        shared["done_count"] = shared["failed_count"] = shared["flight_count"] = 0
        shared["failed_node"] = UNSET
        shared["wanted"] = 0

    def run_at(self, row: int, serial: int) -> Run | None:
        run = self.runs_by_serial.get(serial)
        return run if run is not None and run.row == row else None

    def next_room(self, run: Run, graph: np.void) -> tuple[int, int]:
        """Rows of nodes and outputs that a fan-out gets at the next growth."""
        nodes, outputs = int(graph["node_capacity"]), int(graph["output_capacity"])
        limit = constants["SYM_LIMIT_NODES"]
        if nodes >= limit:
            return limit + 1, outputs
        return min(limit, nodes * GROWTH), min(2 * limit, outputs * GROWTH)

    def run_moved(self, serial: int) -> None:
        with self.moved:
            self.moved.notify_all()
        for tell in self.listeners:
            tell(serial)

    def run_ended(self, serial: int, last: int) -> None:
        """The clerk: a run's last state is committed."""
        run = self.runs_by_serial.get(serial)
        if run is None:
            return
        run.state = ENDED[last]
        try:
            if run.state == "failed" and run.error is None:
                run.error = explain(self, run)
        finally:
            run.ended.set()
            self.run_moved(serial)
        with self._lock:
            self._keep(run)

    def _keep(self, run: Run) -> None:
        """An ended run stays for a while; others go for it."""
        self._kept.add(run, self.store.size_of_run(run.row))
        for each in self._kept.surplus():
            self._retire(each)

    def _retire(self, run: Run) -> None:
        """Forget an ended run: its memory may be used again."""
        del self.runs_by_serial[run.serial]
        self._by_request.pop(run.request_id, None)
        lib.sym_store_release_u64(self._word_of(run.row), run.serial & 0xFFFFFFFF)
        self.store.release_run(run.row)
        self._keep_segment(key_of(run.geometry), run.segment)

    def payload_of(self, ref: np.void) -> memoryview:
        """The bytes that a ref names, whole."""
        if not int(ref["segment"]):
            return memoryview(b"")
        return self.store.bytes_at(int(ref["segment"]), int(ref["offset_bytes"]), int(ref["size_bytes"]))

    # -- asking -------------------------------------------------------------------------------------------

    def find(self, serial: int) -> Run:
        self._refuse_closed()
        run = self.runs_by_serial.get(serial)
        if run is None:
            raise RunNotFound(f"no run {serial}: there was none, or it has ended and newer ones have taken its place")
        return run

    def run(self, serial: int) -> dict:
        with self._lock:
            run = self.find(serial)
            run.taken |= run.state in ("failed", "cancelled")
            return describe_run(self, run)

    def _refuse_closed(self) -> None:
        if self.closing:
            raise EngineLost(self.lost or "the engine was closed")

    def runs(self) -> list[dict]:
        with self._lock:
            self._refuse_closed()
            return [describe_run(self, run, steps=False) for run in self.runs_by_serial.values()]

    def status(self) -> dict:
        with self._lock:
            self._refuse_closed()
            return status_of(self)

    def wait(self, serial: int, timeout_s: float | None = None) -> dict:
        """Wait until a run has ended; its description. Raises WaitTimeout, EngineLost."""
        run = self.find(serial)
        if not run.ended.wait(timeout_s):
            raise WaitTimeout(f"run {serial} has not ended after {timeout_s} s")
        if run.state not in ENDED.values():
            raise EngineLost(self.lost or "the engine was closed")
        return self.run(serial)

    def result(self, serial: int) -> dict[str, tuple[int, bytes]]:
        """A completed run's outputs: name -> (kind, payload), owned copies."""
        with self._lock:
            return {name: (kind, bytes(raw)) for name, (kind, raw) in self.result_views(serial).items()}

    def result_views(self, serial: int) -> dict[str, tuple[int, Any]]:
        """The same over the store's memory where an output is one value; a fanned-out step's is joined into a list."""
        run = self.find(serial)
        if run.state != "completed":
            raise SymphonyError(f"run {serial} is {run.state}: {run.error or 'it has no result'}")
        run.taken = True
        return {name: self._output(run, source) for name, source in run.score.outputs.items()}

    def _output(self, run: Run, source: scores.Source) -> tuple[int, Any]:
        vertex = next(i for i, step in enumerate(run.score.steps, 1) if step.name == source.step)
        nodes, outputs = run.segment.table("nodes"), run.segment.table("outputs")
        group = int(nodes[vertex]["group"])
        if group == UNSET:
            ref = outputs[int(nodes[vertex]["output"]) + source.output]
            return int(ref["kind"]), self.payload_of(ref)
        row = run.segment.table("groups")[group]
        items = []
        for node in range(int(row["first"]), int(row["first"]) + int(row["count"])):
            ref = outputs[int(nodes[node]["output"]) + source.output]
            payload = self.payload_of(ref)
            items.append(value.Encoded(int(ref["kind"]), int(ref["count"]), [payload], len(payload)))
        joined = value.join_list(items)
        return joined.kind, value.payload_of(joined)

    def record(self, serial: int) -> list[dict]:
        with self._lock:
            return record_lines(self, self.find(serial))

    def cancel(self, serial: int) -> dict:
        """Ask for a run's end. Nodes in flight are told; a player that does not heed in two seconds is ended."""
        run = self.find(serial)
        # Said in shared memory before it is acknowledged, so that a Conductor that comes back does it still.
        lib.sym_store_release_u32(ffi.cast("uint32_t *", self._address_of(run.row, "wanted")), 1)
        self._cancel(run)
        return {"run": serial}

    def _cancel(self, run: Run) -> None:
        self.inbox.tell(state.RUN_CANCEL, run.row, run.serial)
        self._later(run)

    def _later(self, run: Run) -> None:
        timer = threading.Timer(CANCEL_GRACE_S, lambda: self.clerk.submit(lambda: self._enforce(run)))
        timer.daemon = True
        timer.start()

    def _enforce(self, run: Run) -> None:
        if not run.ended.is_set() and not self.closing:
            end_cancelled(self, run)
            self._cancel(run)


def key_of(geometry: dict[str, tuple[int, int]]) -> tuple:
    """What two runs must share for a segment to serve both: the address space of every region."""
    return tuple((name, space) for name, (space, _) in geometry.items())


def set_ref(row: np.void, arena: Arena, at: int | None, encoded: value.Encoded) -> None:
    if at is None:
        raise RoomError(f"{encoded.size} bytes do not fit the run's first arena")
    row["segment"], row["offset_bytes"] = (arena.id, at) if encoded.size else (0, 0)
    row["kind"], row["slot"], row["size_bytes"], row["first"], row["count"] = (
        encoded.kind,
        0,
        encoded.size,
        0,
        encoded.count,
    )


def encode_inputs(score: scores.Score, inputs: dict[str, Any]) -> list[value.Encoded]:
    """A run's inputs in order as values; defaults filled in. Raises ScoreError for missing and unknown names."""
    for name in inputs:
        if name not in score.inputs:
            raise ScoreError(f"{score.name} has no input {name!r}{scores.did_you_mean(name, score.inputs)}")
    encoded = []
    fanned = {
        score.input_order[step.each.output] for step in score.steps if step.each is not None and step.each.step == ""
    }
    for name in score.input_order:
        kind = score.inputs[name]
        if name not in inputs and kind.required:
            raise ScoreError(f"{score.name} needs the input {name!r} ({kind.type}): give it with -i {name}=...")
        given = inputs.get(name, kind.default)
        # What a step takes apart has to be a list of values, also where its items are plain data.
        whole = isinstance(given, list | tuple) and (kind.type == "list" or name in fanned)
        encoded.append(encode_input(given, "list" if whole else kind.type))
    return encoded


def encode_input(given: Any, kind: str) -> value.Encoded:
    if isinstance(given, dict) and set(given) == {"$kind", "$payload", "$count"}:
        return value.Encoded(given["$kind"], given["$count"], [given["$payload"]], len(given["$payload"]))
    return value.encode(given, kind=kind) if kind in ("data", "list") else value.encode(given)


__all__ = ["OWNER", "Conductor", "Run", "read_name"]
