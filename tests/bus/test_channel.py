"""The two segments of a channel: who may write what, and that nothing is left."""

import fcntl
import mmap
import os

import pytest

from symphony.bus import packet
from symphony.bus.channel import Channel
from symphony.model.errors import UsageError
from symphony.shmem.registry import Registry


@pytest.fixture
def channel(tmp_path, monkeypatch):
    monkeypatch.setenv("SYMPHONY_RUNTIME_DIR", str(tmp_path))
    registry = Registry("bus")
    made = Channel.create(registry, "bus", 7, dispatch_bytes=8192, command_bytes=4096, arena_bytes=65536)
    assert registry.names() == [made.out.name]
    yield made
    made.close()
    made.close()
    assert registry.names() == []


def test_geometry_and_addresses_agree(channel):
    geometry, at = channel.geometry(), channel.addresses()
    out, own = at["channel_out"] - geometry["out_channel"], at["channel_in"] - geometry["in_channel"]
    assert at["dispatch_data"] == out + geometry["dispatch_data"]
    assert at["command_consumer"] == out + geometry["command_head"]
    assert at["command_data"] == own + geometry["command_data"] and at["arena"] == own + geometry["arena"]
    assert at["dispatch_consumer"] == own + geometry["dispatch_head"]
    assert all(offset % 64 == 0 for offset in geometry.values())
    assert channel.out.generation == 7


def test_out_goes_to_the_player_read_only(channel):
    _, (out, _, _) = channel.hello()
    with pytest.raises(PermissionError):
        mmap.mmap(out, channel.out.size)
    with pytest.raises(OSError):
        os.ftruncate(out, 0)


def test_in_is_sealed_and_read_only_here(channel):
    _, (_, own, _) = channel.hello()
    assert fcntl.fcntl(own, fcntl.F_GET_SEALS) & (fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    with pytest.raises(PermissionError):
        os.ftruncate(own, 4096)
    with pytest.raises(TypeError):
        channel.in_.buffer[0] = 1


def test_the_bell_does_not_block_at_either_end(channel):
    _, (_, _, bell) = channel.hello()
    assert not os.get_blocking(bell) and not os.get_blocking(channel.bell_read_fd)
    os.write(bell, b"1")
    assert os.read(channel.bell_read_fd, 10) == b"1"
    with pytest.raises(BlockingIOError):
        os.read(channel.bell_read_fd, 10)


@pytest.mark.parametrize("sizes", [{"arena_bytes": 5000}, {"dispatch_bytes": 2048}])
def test_sizes_are_powers_of_two(tmp_path, monkeypatch, sizes):
    monkeypatch.setenv("SYMPHONY_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(UsageError):
        Channel.create(Registry("bus"), "bus", 1, **sizes)


def test_packets_carry_messages_and_descriptors():
    import socket

    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        read_end, write_end = os.pipe()
        packet.send(ours, packet.encode({"op": "x", "n": [1]}), (read_end, write_end))
        os.close(read_end)
        os.close(write_end)
        message, fds = packet.receive(theirs)
        assert message == {"op": "x", "n": [1]} and len(fds) == 2
        os.write(fds[1], b"through")
        assert os.read(fds[0], 10) == b"through" and not os.get_inheritable(fds[0])
        for fd in fds:
            os.close(fd)
        ours.send(b"\xc1 no message")
        with pytest.raises(ValueError, match="not a message"):
            packet.receive(theirs)
        ours.close()
        assert packet.receive(theirs) is None
    with pytest.raises(ValueError, match="fit a packet"):
        packet.encode({"op": "long", "data": bytes(1 << 17)})
