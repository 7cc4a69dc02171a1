"""The other process of the two-process ring tests: `peer.py ROLE FD [argument]`, over the memory that FD names.

Its first line on stdout is `ready`; what it has to say stands on the lines that follow."""

import mmap
import os
import sys

sys.path.insert(0, os.fspath(__import__("pathlib").Path(__file__).resolve().parents[2]))

from tests.conformance.duplex import DEADLINE_S, Duplex, message


def echo(duplex, _):
    with_closed = duplex.receiver("there"), duplex.sender("back")
    receiver, sender = with_closed
    try:
        while True:
            for payload in receiver.receive_many(32, DEADLINE_S):
                sender.send(payload, receiver.kind, DEADLINE_S)
    except Exception as error:
        print(type(error).__name__)


def count_up(duplex, argument):
    """Sends messages by number for ever: it is killed in the middle."""
    sender = duplex.sender("there")
    number = int(argument)
    while True:
        sender.send(message(number), timeout=DEADLINE_S)
        number += 1


def take(duplex, argument):
    receiver = duplex.receiver("there")
    for _ in range(int(argument)):
        print(len(receiver.receive(DEADLINE_S)))


def wait_for_ever(duplex, _):
    receiver = duplex.receiver("there")
    try:
        receiver.receive()
    except KeyboardInterrupt:
        print("interrupted")


def main():
    role, fd, *rest = sys.argv[1:]
    with mmap.mmap(int(fd), 0) as memory:
        duplex = Duplex(memory)
        print("ready", flush=True)
        {"echo": echo, "count_up": count_up, "take": take, "wait_for_ever": wait_for_ever}[role](
            duplex, rest[0] if rest else None
        )
        duplex.close()


main()
