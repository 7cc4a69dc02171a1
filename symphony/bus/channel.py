"""The Conductor's end of a channel to one player: two segments, one a direction of writing, and a bell.

    out  named shm, ours to write      channel | dispatch (tail) | dispatch_data | command_head
    in   sealed memfd, the player's    channel | command (tail) | command_data | dispatch_head | arena
    bell pipe: the player writes a byte if we sleep; its two ends are separate open file descriptions

Only memory and descriptors are kept here; who reads and writes the rings gets their addresses.
"""

import os
from typing import Any

from symphony.model.errors import UsageError
from symphony.native import ffi
from symphony.shmem.registry import Registry
from symphony.shmem.segment import Region, Segment

DISPATCH_BYTES = 1 << 18
COMMAND_BYTES = 1 << 18
ARENA_BYTES = 8 << 20
_SMALLEST = 4096


def _in_regions(command_bytes: int, arena_bytes: int) -> list[Region]:
    return [
        Region("channel", "sym_channel_in_t", 1), Region("command", "sym_ring_producer_t", 1),
        Region("dispatch_head", "sym_ring_consumer_t", 1), Region("command_data", "u8", command_bytes),
        Region("arena", "u8", arena_bytes),
    ]  # fmt: skip


class Channel:
    """Memory, bell and addresses of one player's channel. A new process of an extension gets a new one, with another
    generation. Not thread-safe; the addresses hold until `close`."""

    def __init__(self, out: Segment, own: Segment, sizes: tuple[int, int, int], generation: int) -> None:
        self.out = out
        self.in_ = own
        self.dispatch_bytes, self.command_bytes, self.arena_bytes = sizes
        self.generation = generation
        self._out_fd = self.bell_read_fd = self._bell_write_fd = -1

    @classmethod
    def create(
        cls,
        registry: Registry,
        instance: str,
        generation: int,
        *,
        dispatch_bytes: int = DISPATCH_BYTES,
        command_bytes: int = COMMAND_BYTES,
        arena_bytes: int = ARENA_BYTES,
    ) -> "Channel":
        """Make both segments, empty. Sizes are powers of two of at least 4096. Raises NoSpace, SegmentExists,
        UsageError; on failure nothing is left. About 9 MiB with the defaults, taken at once."""
        for name, size in (("dispatch", dispatch_bytes), ("command", command_bytes), ("arena", arena_bytes)):
            if size < _SMALLEST or size & (size - 1):
                raise UsageError(f"{name}_bytes has to be a power of two of at least {_SMALLEST}, not {size}")
        out = Segment.create(registry, instance, "out", [
            Region("channel", "sym_channel_out_t", 1), Region("dispatch", "sym_ring_producer_t", 1),
            Region("command_head", "sym_ring_consumer_t", 1), Region("dispatch_data", "u8", dispatch_bytes),
        ], generation=generation)  # fmt: skip
        own = None
        try:
            words = ffi.cast("sym_channel_out_t *", out.address("channel"))
            words.command_bytes, words.arena_bytes = command_bytes, arena_bytes
            own = Segment.create_memfd(instance, "in", _in_regions(command_bytes, arena_bytes), generation=generation)
            channel = cls(out, own, (dispatch_bytes, command_bytes, arena_bytes), generation)
            channel._open()
            return channel
        except BaseException:
            out.unlink()
            out.close()
            if own is not None:
                own.close()
            raise

    @classmethod
    def reattach(cls, out: Segment, in_fd: int, bell_read_fd: int) -> "Channel":
        """The channel of a player that lives on while its Conductor does not: `out` mapped for writing again, the
        descriptors as the Keeper kept them, which become this object's. Raises SegmentError; then all stays the
        caller's."""
        words = ffi.cast("sym_channel_out_t *", out.address("channel"))
        sizes = (out.regions["dispatch_data"].count, int(words.command_bytes), int(words.arena_bytes))
        own = Segment.reattach_memfd(in_fd, "in", _in_regions(*sizes[1:]))
        channel = cls(out, own, sizes, out.generation)
        channel.bell_read_fd = bell_read_fd
        return channel

    def _open(self) -> None:
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            self._out_fd = os.open("/dev/shm" + self.out.name, flags)
            self.bell_read_fd, self._bell_write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except BaseException:
            self._close_fds()
            raise

    def deposit(self) -> dict[str, int]:
        """What the Keeper keeps a duplicate of, so that the next Conductor can reattach: by name."""
        return {"in": self.in_.descriptor, "bell": self.bell_read_fd}

    def addresses(self) -> dict[str, int]:
        """Where everything lies in this process: what we write in `out`, what the player writes in `in`, read-only."""
        out, own = self.out.address, self.in_.address
        return {
            "channel_out": out("channel"), "channel_in": own("channel"),
            "dispatch_data": out("dispatch_data"), "dispatch_producer": out("dispatch"),
            "dispatch_consumer": own("dispatch_head"),
            "command_data": own("command_data"), "command_producer": own("command"),
            "command_consumer": out("command_head"), "arena": own("arena"),
        }  # fmt: skip

    def geometry(self) -> dict[str, int]:
        """What the player needs to find the same in its own mappings: offsets and sizes, no addresses."""
        out, own = self.out.offset, self.in_.offset
        return {
            "out_size": self.out.size, "in_size": self.in_.size,
            "out_channel": out("channel"), "dispatch": out("dispatch"), "dispatch_data": out("dispatch_data"),
            "dispatch_bytes": self.dispatch_bytes, "command_head": out("command_head"),
            "in_channel": own("channel"), "command": own("command"), "command_data": own("command_data"),
            "command_bytes": self.command_bytes, "dispatch_head": own("dispatch_head"), "arena": own("arena"),
            "arena_bytes": self.arena_bytes,
        }  # fmt: skip

    def hello(self) -> tuple[dict[str, Any], list[int]]:
        """The first message to the player and the descriptors to send with it: out (read-only), in, the bell's writing
        end. They stay this object's; sending duplicates them."""
        message = {"op": "hello", "generation": self.generation, "geometry": self.geometry()}
        return message, [self._out_fd, self.in_.descriptor, self._bell_write_fd]

    def _close_fds(self) -> None:
        for fd in (self._out_fd, self.bell_read_fd, self._bell_write_fd):
            if fd >= 0:
                os.close(fd)
        self._out_fd = self.bell_read_fd = self._bell_write_fd = -1

    def disown(self) -> None:
        """In a forked child: close the descriptors and leave the memory alone, which is the parent's."""
        self._close_fds()

    def close(self, keep: bool = False) -> None:
        """Unlink and unmap both segments and close the bell. Idempotent; nobody may use the addresses any more. `keep`
        leaves `out`, which has a name, for a Conductor that comes later."""
        self._close_fds()
        if not keep:
            self.out.unlink()
        self.out.close()
        self.in_.close()
