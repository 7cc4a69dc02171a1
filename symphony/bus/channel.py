"""The Conductor's end of a channel to one player: two segments, one a direction of writing, and a bell.

    out  named shm, ours to write      channel | dispatch (tail) | dispatch_data | command_head
    in   sealed memfd, the player's    channel | command (tail) | command_data | dispatch_head | arena
    bell pipe: the player writes a byte if we sleep; its two ends are separate open file descriptions

Only memory and descriptors are kept here; who reads and writes the rings gets their addresses.
"""

import os
from typing import Any

from symphony.model.errors import UsageError
from symphony.shmem.registry import Registry
from symphony.shmem.segment import Region, Segment

DISPATCH_BYTES = 1 << 18
COMMAND_BYTES = 1 << 18
ARENA_BYTES = 8 << 20
_SMALLEST = 4096


class Channel:
    """Memory, bell and addresses of one player's channel. A new process of an extension gets a new one, with another
    generation. Not thread-safe; the addresses hold until `close`."""

    def __init__(self, out: Segment, own: Segment, sizes: tuple[int, int, int], generation: int) -> None:
        self.out = out
        self.in_ = own
        self.dispatch_bytes, self.command_bytes, self.arena_bytes = sizes
        self.generation = generation
        self._out_fd = self.bell_read_fd = self._bell_write_fd = -1
        self._open()

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
            own = Segment.create_memfd(instance, "in", [
                Region("channel", "sym_channel_in_t", 1), Region("command", "sym_ring_producer_t", 1),
                Region("dispatch_head", "sym_ring_consumer_t", 1), Region("command_data", "u8", command_bytes),
                Region("arena", "u8", arena_bytes),
            ], generation=generation)  # fmt: skip
            return cls(out, own, (dispatch_bytes, command_bytes, arena_bytes), generation)
        except BaseException:
            out.unlink()
            out.close()
            if own is not None:
                own.close()
            raise

    def _open(self) -> None:
        try:
            flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
            self._out_fd = os.open("/dev/shm" + self.out.name, flags)
            self.bell_read_fd, self._bell_write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except BaseException:
            self._close_fds()
            raise

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

    def close(self) -> None:
        """Unlink and unmap both segments and close the bell. Idempotent; nobody may use the addresses any more."""
        self._close_fds()
        self.out.unlink()
        self.out.close()
        self.in_.close()
