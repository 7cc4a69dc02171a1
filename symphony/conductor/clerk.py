"""The clerk: a Python thread for what is rare. It spawns, copies large outputs, finds memory, keeps ended runs.

It waits on three descriptors: the loop's bell, the Keeper's socket, and a pipe by which other threads hand it jobs.
Nothing it does is awaited by the loop's thread.
"""

import heapq
import itertools
import logging
import os
import selectors
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

from symphony.conductor import state
from symphony.conductor.backoff import wait_ns
from symphony.conductor.overdue import end_late
from symphony.conductor.players import FAILED_STARTS
from symphony.model.errors import NoSpace, SymphonyError
from symphony.native import ffi, lib
from symphony.pit.dag.graph import room_for
from symphony.pit.tables import NONE

log = logging.getLogger("symphony.clerk")

MEMORY_FAULTS = (SymphonyError, OSError, OverflowError, ValueError, MemoryError)
"""What asking for memory may end in, with sizes that an extension has named: the loop gets its answer all the same."""
PATIENCE_S = 1.0
BACKLOG_S = 0.002
GROWTH = 8
IN_ARENA, GATHERING = 1, 2
"""Slot of an output's row before its node is done (`conductor/loop.py` has them all): where its bytes still are."""
PLACE_BYTES = 64
"""Unit of `first` in such a row, which says where in `segment` the bytes go."""
PART_HEAD_BYTES = 16


class Clerk:
    """One thread; `submit` hands it a job from any other. `start` and `stop` once each."""

    def __init__(self, conductor: Any) -> None:
        self.conductor = conductor
        self._jobs: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._wake_out, self._wake_in = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._selector = selectors.DefaultSelector()
        self._stopping = False
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._keeper_fd = -1
        self.thread = threading.Thread(target=self._serve, name="symphony-clerk", daemon=True)
        self._handlers = {
            state.WANT_PLAYER: self._want_player, state.STORE: self._store, state.PART: self._part,
            state.NEED_ARENA: self._need_arena, state.GROW: self._grow, state.RUN_ENDED: self._run_ended,
            state.PLAYER_GONE: self._player_gone, state.PLAYER_UP: self._player_up, state.BAD_RECORD: self._bad_record,
            state.RUN_STARTED: self._run_started, state.LOOP_ENDED: lambda *words: None, state.PONG: self._pong,
        }  # fmt: skip

    def start(self) -> None:
        self._selector.register(self.conductor.outbox.bell_out, selectors.EVENT_READ)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._keeper_fd = self.conductor.keeper.fileno()
        self._selector.register(self._keeper_fd, selectors.EVENT_READ)
        self.thread.start()

    def submit(self, job: Callable[[], None]) -> None:
        """Run a job in the clerk's thread, soon. Safe from any thread."""
        self._jobs.put(job)
        self._wake()

    def later(self, seconds: float, job: Callable[[], None]) -> None:
        """The same, not before so many seconds have passed. Of the clerk's thread alone."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), job))

    def _run_timers(self) -> bool:
        ran = False
        while self._timers and self._timers[0][0] <= time.monotonic():
            self._guarded(heapq.heappop(self._timers)[2])
            ran = True
        return ran

    def _patience(self, most: float) -> float:
        return min(most, max(0.0, self._timers[0][0] - time.monotonic())) if self._timers else most

    def catch_up(self) -> None:
        """Act on what the loop has said by now, in the caller's thread: before `start` alone."""
        while self._turn():
            pass

    def stop(self) -> None:
        """End the thread after what was submitted before."""
        self._stopping = True
        self._wake()
        if self.thread.ident is not None:
            self.thread.join()
        self._selector.close()
        with self._lock:
            os.close(self._wake_out)
            os.close(self._wake_in)
            self._wake_in = -1

    def disown(self) -> None:
        """In a forked child, where its thread is not: its descriptors are closed, jobs go nowhere."""
        self._lock = threading.Lock()
        self._selector.close()
        os.close(self._wake_out)
        os.close(self._wake_in)
        self._wake_in = -1

    def _wake(self) -> None:
        # Under the lock: a late timer must not write into whatever has the pipe's number by then.
        with self._lock:
            if self._wake_in >= 0:
                try:
                    os.write(self._wake_in, b"\0")
                except BlockingIOError:
                    pass

    def _serve(self) -> None:
        looked = time.monotonic()
        while not self._stopping:
            busy = self._turn() | self._run_timers()
            if time.monotonic() - looked >= PATIENCE_S:
                looked = time.monotonic()
                self._guarded(end_late, self.conductor)
            if busy or not self.conductor.outbox.about_to_sleep():
                continue
            told = self.conductor.players.flush()
            idle = self.conductor.inbox.flush() and told
            self._selector.select(self._patience(PATIENCE_S) if idle else BACKLOG_S)
            self.conductor.outbox.awake()
            self._drain_pipe()

    def _drain_pipe(self) -> None:
        try:
            os.read(self._wake_out, 4096)
        except BlockingIOError:
            pass

    def _turn(self) -> bool:
        """Everything that waits, once. Whether there was anything."""
        self.conductor.inbox.flush()
        busy = False
        for kind, words, raw in self.conductor.outbox.receive():
            busy = True
            self._guarded(self._handlers[kind], *((raw,) if kind == state.PART else words))
        for message in self.conductor.keeper.receive():
            busy = True
            self._guarded(self._from_keeper, message)
        while True:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return busy
            busy = True
            self._guarded(job)

    def _guarded(self, call: Callable[..., None], *args: Any) -> None:
        try:
            call(*args)
        except Exception:
            log.exception("the clerk met a fault of its own")

    # -- the Keeper ---------------------------------------------------------------------------------------

    def _from_keeper(self, message: dict) -> None:
        players = self.conductor.players
        operation = message["op"]
        if operation == "spawned":
            players.spawned(message)
        elif operation == "failed":
            players.died(message, str(message.get("error", "")))
        elif operation == "died":
            players.died(message, self._words(message))
        elif operation == "ping":
            # Answered by the loop: a clerk that lives beside a loop that does not is no Conductor.
            self.conductor.inbox.tell(state.PING, int(message.get("n", 0)))
        elif operation == "gone":
            self._keeper_gone()

    def _pong(self, number: int, *_: int) -> None:
        self.conductor.keeper.pong(number)

    def _words(self, message: dict) -> str:
        how = f"signal {message['signal']}" if message.get("signal") else f"status {message.get('status')}"
        words = str(message.get("last_words") or "").strip()
        return f"ended by {how}" + (f"; its last words:\n{words}" if words else "")

    def _keeper_gone(self) -> None:
        self._selector.unregister(self._keeper_fd)
        fresh = self.conductor.keeper_lost()
        if fresh is not None:
            self._keeper_fd = fresh
            self._selector.register(fresh, selectors.EVENT_READ)

    # -- players ------------------------------------------------------------------------------------------

    def _want_player(self, model: int, *_: int) -> None:
        hosted = self.conductor.hosted_by_model.get(model)
        if hosted is None or self.conductor.closing:
            return
        row = self.conductor.tables.extensions[hosted.row]
        left = wait_ns(row, time.monotonic_ns())
        if left and int(row["parked"]):
            hosted.last_words = (
                f"it is parked: {int(row['recent_deaths'])} of its processes ended one soon after the other; it may be "
                f"tried again in {left / 1e9:.0f} s. {hosted.last_words}"
            )
            self._give_up(hosted)
            return
        if left:
            self.later(left / 1e9, lambda: self._want_player(model))
            return
        try:
            self.conductor.players.start(hosted)
        except (SymphonyError, OSError, RuntimeError) as error:
            hosted.last_words = f"it cannot be started: {error}"
            self._give_up(hosted)

    def _give_up(self, hosted: Any) -> None:
        hosted.failed_starts = 0
        hosted.given_up = hosted.last_words
        self.conductor.inbox.tell(state.MODEL_FAILED, hosted.model)

    def _player_up(self, row: int, *_: int) -> None:
        self.conductor.players.up(row)

    def _player_gone(self, row: int, *_: int) -> None:
        hosted = self.conductor.players.gone(row)
        if hosted.failed_starts >= FAILED_STARTS:
            self._give_up(hosted)

    def _bad_record(self, row: int, *_: int) -> None:
        log.warning("player %d wrote what no honest extension writes; it is ended", row)
        self.conductor.players.end(row, 0.0)

    # -- memory -------------------------------------------------------------------------------------------

    def _need_arena(self, r: int, serial: int, size: int, *_: int) -> None:
        run = self.conductor.run_at(r, serial)
        if run is None:
            return
        run.arena_bytes = min(run.arena_bytes * 4, 64 << 20)
        try:
            arena = self._arena_of(size, run.arena_bytes, r)
        except MEMORY_FAULTS as error:
            run.error = f"its outputs find no memory: {error}"
            self.conductor.inbox.tell(state.ARENA, r, serial, 0)
            return
        self.conductor.inbox.tell(state.ARENA, r, serial, arena.id, arena.address, arena.size, arena.used)

    def _arena_of(self, least: int, wanted: int, r: int) -> Any:
        """An arena of the wanted size, or, where memory is short, of the least that helps."""
        try:
            return self.conductor.store.arena(max(least, wanted), r)
        except NoSpace:
            return self.conductor.store.arena(least, r)

    def _grow(self, r: int, serial: int, node: int, attempt: int, p: int, *_: int) -> None:
        run = self.conductor.run_at(r, serial)
        if run is None:
            return
        graph = run.segment.table("graph")[0]
        try:
            room_for(run.segment, *self.conductor.next_room(run, graph))
            grown = 1
        except MEMORY_FAULTS as error:
            run.error = f"the fan-out finds no memory: {error}"
            grown = 0
        self.conductor.inbox.tell(state.GROWN, r, grown)
        if node != NONE:
            self.conductor.inbox.tell(state.STORED, r, node, attempt, 1, p)

    def _store(self, r: int, serial: int, node: int, attempt: int, p: int, *_: int) -> None:
        """Copy a node's large outputs out of its player's arena."""
        stored = 0
        run = self.conductor.run_at(r, serial)
        player = self.conductor.players.live.get(p)
        if run is not None:
            try:
                self._copy_outputs(run, r, node, player)
                stored = 1
            except MEMORY_FAULTS as error:
                run.error = f"an output finds no memory: {error}"
        self.conductor.inbox.tell(state.STORED, r, node, attempt, stored, p)

    def _copy_outputs(self, run: Any, r: int, node: int, player: Any) -> None:
        """Bring a storing node's outputs into the run's memory. Killed anywhere and done again it comes to the same:
        `segment` is stored once the bytes are there, and says so while `slot` still says that they are elsewhere."""
        step = run.segment.table("steps")[int(run.segment.table("nodes")[node]["step"])]
        first = int(run.segment.table("nodes")[node]["output"])
        rows = run.segment.table("outputs")
        for k in range(int(step["output_count"])):
            row = rows[first + k]
            if row["slot"] == GATHERING:
                raise SymphonyError(f"output {k} of node {node} came in pieces that do not make it whole")
            if row["slot"] == IN_ARENA and row["size_bytes"]:
                if not row["segment"]:
                    self._copy_output(row, r, player)
                row["offset_bytes"] = int(row["first"]) * PLACE_BYTES
            row["slot"] = 0
            row["first"] = 0

    def _copy_output(self, row: Any, r: int, player: Any) -> None:
        if player is None:
            raise SymphonyError("the memory that an output lay in went with its player")
        size = int(row["size_bytes"])
        arena, at = self.conductor.store.block(size, r)
        inside = int(row["offset_bytes"]) & (player.channel.arena_bytes - 1)
        copy_memory(arena.address + at, player.channel.addresses()["arena"] + inside, size)
        row["first"] = at // PLACE_BYTES
        row["segment"] = arena.id

    def _part(self, raw: bytes) -> None:
        """One piece of an output larger than its player's arena: gathered in memory of the run's."""
        p, serial = memoryview(raw[:PART_HEAD_BYTES]).cast("q")
        part = ffi.new("sym_part_t *")
        ffi.memmove(part, raw[PART_HEAD_BYTES:], ffi.sizeof("sym_part_t"))
        r, node = int(part.run), int(part.node)
        run = self.conductor.run_at(r, serial)
        player = self.conductor.players.live.get(p)
        if run is not None and player is not None:
            try:
                self._gather(part, run, r, node, player)
            except MEMORY_FAULTS as error:
                run.error = f"an output finds no memory: {error}"
        self.conductor.inbox.tell(state.STORED, r, -1, 0, 1, p)

    def _gather(self, part: Any, run: Any, r: int, node: int, player: Any) -> None:
        """The output's row says how far it is, so that whoever goes on after a crash knows: a piece that is there
        already is passed over. A piece out of order, or over the size that the first one named, spoils the output."""
        row = run.segment.table("outputs")[int(run.segment.table("nodes")[node]["output"]) + int(part.output)]
        if part.at_bytes == 0:
            self._begin_gathering(row, int(part.total_bytes), r)
        have, end = int(row["size_bytes"]), int(part.at_bytes) + int(part.size_bytes)
        if row["slot"] != GATHERING or not row["segment"] or end <= have:
            return
        if int(part.at_bytes) != have or end > int(row["count"]) * PLACE_BYTES:
            row["segment"] = 0
            return
        to = self.conductor.store.address_of(int(row["segment"])) + int(row["first"]) * PLACE_BYTES + have
        inside = int(part.offset_bytes) & (player.channel.arena_bytes - 1)
        copy_memory(to, player.channel.addresses()["arena"] + inside, int(part.size_bytes))
        row["size_bytes"] = end

    def _begin_gathering(self, row: Any, total: int, r: int) -> None:
        row["segment"] = 0
        arena, at = self.conductor.store.block(total, r)
        row["slot"], row["size_bytes"] = GATHERING, 0
        row["first"], row["count"] = at // PLACE_BYTES, -(-total // PLACE_BYTES)
        row["segment"] = arena.id

    # -- runs ---------------------------------------------------------------------------------------------

    def _run_started(self, r: int, serial: int, *_: int) -> None:
        self.conductor.run_moved(serial)

    def _run_ended(self, r: int, serial: int, last: int, *_: int) -> None:
        self.conductor.run_ended(serial, last)


def copy_memory(to: int, source: int, size: int) -> None:
    """Plain copy between addresses; other Python threads run meanwhile."""
    lib.sym_copy(ffi.cast("void *", to), ffi.cast("void *", source), size)
