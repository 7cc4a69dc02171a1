"""Players: starting extension processes, and giving back what they had.

All of it is the clerk's thread. A player's row in the loop's private map is filled before the loop hears of it
(PLAYER_ADD) and taken apart after the loop has let go of it (PLAYER_GONE).
"""

import errno
import logging
import os
import socket
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from symphony.bus.channel import Channel
from symphony.conductor.backoff import count_death
from symphony.conductor.mailbox import PrivateRing
from symphony.conductor.overdue import IDLE, working
from symphony.conductor.state import PLAYER_ADD, PLAYER_DEAD, PLAYER_NONE
from symphony.model.errors import KeeperError
from symphony.native import check, ffi, lib
from symphony.native.layout import constants
from symphony.shmem.segment import Segment

log = logging.getLogger("symphony.players")

TOKEN_ROW_BITS = 12
FAILED_STARTS = 3
"""Starts in a row that never became ready, before the model counts as failed."""
END_GRACE_S = 2.0
ONE_THREAD = {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
}


@dataclass
class Hosted:
    """An extension as the engine knows it: its manifest, its model's row, the block of seats of its players."""

    manifest: Any
    row: int
    model: int
    window: int
    players_max: int
    seat_first: int
    failed_starts: int = 0
    last_words: str = ""
    given_up: str = ""
    """Why no player of it could be had when the last attempt ended; empty once one serves again."""
    starts: int = 0
    completed_gone: int = 0
    completed_before: int = 0
    """Steps that ended processes of it completed, and all that it had when its last death was counted."""
    slots: list[int] = field(default_factory=list)


@dataclass
class Player:
    """One process: what the Conductor holds for it."""

    row: int
    token: int
    hosted: Hosted
    slot: int
    channel: Channel
    control: socket.socket
    producer: Any
    consumer: Any
    ready: bool = False
    ended: bool = False
    pid: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)
    unsent: deque[tuple[int, Segment | None]] = field(default_factory=deque)
    """Grants (and, with None, their ends) that its socket had no room for, in order."""


class Players:
    """The clerk's side of every player."""

    def __init__(self, conductor: Any) -> None:
        self.conductor = conductor
        self.live: dict[int, Player] = {}
        self.generation = 0

    def start(self, hosted: Hosted) -> None:
        """Ask the Keeper for one more process of an extension. Raises NoSpace, KeeperGone, OSError."""
        c = self.conductor
        row = self.free_row()
        slot = next(s for s in range(hosted.players_max) if s not in hosted.slots)
        self.generation += 1
        channel = Channel.create(c.registry, c.name, self.generation)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        token = self.generation << TOKEN_ROW_BITS | row
        try:
            player = Player(row, token, hosted, slot, channel, ours, *self.rings(channel))
            self.greet(player)
            argv = [sys.executable, "-m", "symphony.extension.host", str(hosted.manifest.directory)]
            log_path = str(c.directory / "logs" / f"{hosted.manifest.id}-{row}.log")
            kept = channel.deposit() | {"control": ours.fileno()}
            c.keeper.spawn(
                token, argv, self.environment(hosted), None, log_path, hosted.manifest.id, theirs.fileno(), kept
            )
        except BaseException:
            self.live.pop(row, None)
            channel.close()
            ours.close()
            raise
        finally:
            theirs.close()
        hosted.slots.append(slot)
        hosted.starts += 1
        self.fill(player)
        c.inbox.tell(PLAYER_ADD, row)

    def free_row(self) -> int:
        for row in range(constants["SYM_LIMIT_PLAYERS"]):
            if row not in self.live and int(self.conductor.pmaps[row]["state"]) == PLAYER_NONE:
                return row
        raise RuntimeError(f"{constants['SYM_LIMIT_PLAYERS']} players are the limit")

    def environment(self, hosted: Hosted) -> dict[str, str | None]:
        folder = os.environ.get("PYTHONPATH")
        base: dict[str, str | None] = {"PYTHONPATH": folder} if folder else {}
        return base | ONE_THREAD | hosted.manifest.environment

    def rings(self, channel: Channel) -> tuple[Any, Any]:
        """The Conductor's private ends of the dispatch and the command ring."""
        at = channel.addresses()
        producer, consumer = ffi.new("sym_producer_t *"), ffi.new("sym_consumer_t *")

        def pointer(kind: str, name: str) -> Any:
            return ffi.cast(kind, at[name])

        check(
            lib.sym_ring_producer_attach_spsc(
                producer, pointer("void *", "dispatch_data"), channel.dispatch_bytes,
                pointer("sym_ring_producer_t *", "dispatch_producer"), pointer("sym_ring_consumer_t *", "dispatch_consumer"),
            ), "the dispatch ring",
        )  # fmt: skip
        check(
            lib.sym_ring_consumer_attach_spsc(
                consumer, pointer("void *", "command_data"), channel.command_bytes,
                pointer("sym_ring_producer_t *", "command_producer"), pointer("sym_ring_consumer_t *", "command_consumer"),
            ), "the command ring",
        )  # fmt: skip
        return producer, consumer

    def greet(self, player: Player) -> None:
        """Everything the process needs waits in its socket before it exists."""
        hello, descriptors = player.channel.hello()
        hosted = player.hosted
        hello |= {
            "op": "hello", "extension": hosted.manifest.id, "directory": str(hosted.manifest.directory),
            "instance": self.conductor.name, "player": player.row, "config": {},
        }  # fmt: skip
        send(player.control, hello, descriptors)
        # From here on it hears of new segments; what is told twice does no harm, what is not told at all would.
        self.live[player.row] = player
        for number, segment in self.conductor.store.live():
            self.tell(player, number, segment)

    def tell(self, player: Player, number: int, segment: Segment | None) -> None:
        """Grant a segment, or take it back (None): now, or when the player has read what was sent before."""
        with player.lock:
            if player.unsent or not _told(player, number, segment):
                player.unsent.append((number, segment))

    def grant_all(self, number: int, segment: Segment) -> None:
        for player in list(self.live.values()):
            self.tell(player, number, segment)

    def forget_all(self, number: int) -> None:
        for player in list(self.live.values()):
            self.tell(player, number, None)

    def flush(self) -> bool:
        """Tell players what did not fit before. True when nothing is left."""
        waiting = [player for player in list(self.live.values()) if player.unsent]
        for player in waiting:
            with player.lock:
                while player.unsent and _told(player, *player.unsent[0]):
                    player.unsent.popleft()
        return not any(player.unsent for player in waiting)

    def fill(self, player: Player) -> None:
        c, hosted = self.conductor, player.hosted
        instance = c.free_instance()
        seats = hosted.seat_first + player.slot * hosted.window
        row = c.tables.instances[instance]
        row["model"], row["player"], row["seat_first"], row["seat_count"] = (
            hosted.model,
            player.row,
            seats,
            hosted.window,
        )
        row["generation"] += 1
        row["state"] = constants["SYM_MODEL_LOADING"]
        row["since_ns"] = time.monotonic_ns()
        self.map(player, instance)
        self.publish_row(player, instance)
        c.watch_bell(player.channel.bell_read_fd)

    def map(self, player: Player, instance: int) -> None:
        """The loop's private row of a player: addresses, and what it will count for itself."""
        c, hosted, channel = self.conductor, player.hosted, player.channel
        at = channel.addresses()
        private = c.pmaps[player.row]
        private["model"], private["instance"] = hosted.model, instance
        private["seat_first"] = hosted.seat_first + player.slot * hosted.window
        private["window"], private["pid"], private["held"], private["mean_ns"] = hosted.window, player.pid, 0, 0
        private["consumer"], private["producer"] = (
            PrivateRing.address(player.consumer),
            PrivateRing.address(player.producer),
        )
        for name in ("channel_out", "channel_in", "arena", "command_producer"):
            private[name] = at[name]
        private["arena_size"], private["arena_outstanding"] = channel.arena_bytes, 0
        private["arena_end"] = ffi.cast("sym_channel_out_t *", at["channel_out"]).arena_end
        private["staged"], private["hold"], private["part"], private["first_again"] = 0, 0, 0, 0
        private["tail"] = int(player.producer.published)

    def publish_row(self, player: Player, instance: int) -> None:
        c = self.conductor
        shared = c.tables.players[player.row]
        shared["generation"], shared["extension"], shared["instance"] = self.generation, player.hosted.row, instance
        shared["pid"], shared["start"], shared["dispatched"], shared["completed"], shared["refused"] = 0, 0, 0, 0, 0
        shared["started_ns"], shared["ready_ns"] = time.monotonic_ns(), 0
        shared["state"] = constants["SYM_PLAYER_STARTING"]
        c.tables.engine[0]["players_used"] = max(int(c.tables.engine[0]["players_used"]), player.row + 1)
        c.tables.extensions[player.hosted.row]["starts"] += 1

    def spawned(self, message: dict) -> None:
        player = self.of(message)
        if player is None:
            return
        player.pid = message["pid"]
        self.conductor.pmaps[player.row]["pid"] = player.pid
        shared = self.conductor.tables.players[player.row]
        shared["pid"], shared["start"] = player.pid, message["start"]

    def died(self, message: dict, words: str) -> None:
        """A process is gone (or never came): the loop gives back what it held once its ring is drained."""
        player = self.of(message)
        if player is None:
            self.forget(message["token"])
            return
        if player.ended:
            return
        player.ended = True
        hosted = player.hosted
        hosted.last_words = words
        shared = self.conductor.tables.extensions[hosted.row]
        shared["deaths"] += 1
        count_death(shared, time.monotonic_ns(), self.progress(hosted))
        if not player.ready or self.died_idle(player):
            hosted.failed_starts += 1
        else:
            hosted.failed_starts = 0
        self.conductor.inbox.tell(PLAYER_DEAD, player.row)

    def progress(self, hosted: Hosted) -> bool:
        """Whether any process of the extension has completed a step since this was asked last."""
        rows = self.conductor.tables.players
        mine = sum(int(rows[row]["completed"]) for row, player in self.live.items() if player.hosted is hosted)
        before, hosted.completed_before = hosted.completed_before, hosted.completed_gone + mine
        return hosted.completed_before > before

    def died_idle(self, player: Player) -> bool:
        """Whether it ended without having done anything, and not by a step: then its start was none either."""
        return int(self.conductor.tables.players[player.row]["completed"]) == 0 and working(player) == IDLE

    def up(self, row: int) -> None:
        player = self.live.get(row)
        if player is not None:
            player.ready = True
            player.hosted.given_up = ""
            self.conductor.tables.players[row]["ready_ns"] = time.monotonic_ns()

    def gone(self, row: int) -> Hosted:
        """The loop has let go of a dead player: its channel and rows are free. Returns its extension."""
        player = self.live.pop(row)
        self.conductor.unwatch_bell(player.channel.bell_read_fd)
        player.hosted.slots.remove(player.slot)
        player.hosted.completed_gone += int(self.conductor.tables.players[row]["completed"])
        self.conductor.release_instance(int(self.conductor.pmaps[row]["instance"]))
        player.control.close()
        player.channel.close()
        self.forget(player.token)
        return player.hosted

    def forget(self, token: int) -> None:
        """Nothing of a dead process is needed any more: the Keeper may drop what it keeps of it."""
        try:
            self.conductor.keeper.forget(token)
        except KeeperError:
            log.debug("the Keeper is gone, and what it kept with it")

    def reattach(self, row: int, hosted: Hosted, out: Segment, told: Any) -> Player:
        """A player that lived, or died, while there was no Conductor: `told` is what its Keeper kept of it. Its rows
        in the tables stay as they are; of its descriptors, those that were taken are struck out of `told`.

        Raises SegmentError, RingCorrupt for memory that no honest extension leaves; its channel is gone then.
        """
        c = self.conductor
        channel = Channel.reattach(out, told.descriptors["in"], told.descriptors["bell"])
        del told.descriptors["in"], told.descriptors["bell"]
        try:
            rings = self.rings(channel)
        except BaseException:
            channel.close()
            raise
        control = socket.socket(fileno=told.descriptors.pop("control"))
        instance = int(c.tables.players[row]["instance"])
        slot = (int(c.tables.instances[instance]["seat_first"]) - hosted.seat_first) // hosted.window
        player = Player(row, told.token, hosted, slot, channel, control, *rings, pid=told.pid)
        player.ready = int(c.tables.players[row]["state"]) == constants["SYM_PLAYER_READY"]
        player.ended = not told.alive
        hosted.slots.append(slot)
        self.live[row] = player
        self.generation = max(self.generation, told.token >> TOKEN_ROW_BITS)
        self.map(player, instance)
        shared = c.tables.players[row]
        shared["pid"], shared["start"] = told.pid, told.start
        c.watch_bell(channel.bell_read_fd)
        return player

    def end(self, row: int, grace_s: float = END_GRACE_S) -> None:
        player = self.live.get(row)
        if player is not None:
            self.conductor.keeper.end(player.token, grace_s)

    def of(self, message: dict) -> Player | None:
        player = self.live.get(message["token"] & ((1 << TOKEN_ROW_BITS) - 1))
        return player if player is not None and player.token == message["token"] else None

    def disown(self) -> None:
        """In a forked child: the descriptors go, memory and processes are the parent's."""
        for player in self.live.values():
            player.control.close()
            player.channel.disown()

    def close(self, keep: bool = False) -> None:
        """After the Keeper has ended every process: free what is left; `keep` leaves what has a name."""
        for row in list(self.live):
            player = self.live.pop(row)
            player.control.close()
            player.channel.close(keep)


NOT_NOW = frozenset({errno.EAGAIN, errno.ETOOMANYREFS, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


def _told(player: Player, number: int, segment: Segment | None) -> bool:
    """Send one grant (or its end) without waiting. False: not now. A player or a segment that is gone needs none."""
    descriptors = []
    try:
        if segment is None:
            send(player.control, {"op": "forget", "segment": number}, [])
        else:
            descriptors.append(os.open("/dev/shm" + segment.name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW))
            send(player.control, {"op": "grant", "segment": number, "size": segment.size}, descriptors)
    except OSError as error:
        return error.errno not in NOT_NOW
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    return True


def send(control: socket.socket, message: dict, descriptors: list[int]) -> None:
    payload = msgspec.msgpack.encode(message)
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, np.array(descriptors, np.int32).tobytes())] if descriptors else []
    control.sendmsg([payload], rights, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
