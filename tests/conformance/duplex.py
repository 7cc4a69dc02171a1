"""Two rings in one piece of memory, for the tests with two processes."""

import random

from symphony.native._door import Receiver, Sender

DEADLINE_S = 60
LINE = 128
SIZE = 4096
ONE_WAY = 4 * LINE + SIZE
BYTES = 2 * ONE_WAY


class Duplex:
    def __init__(self, memory):
        self.whole = memoryview(memory)
        self.sides = []

    def parts(self, way):
        base = ONE_WAY * ("there", "back").index(way)
        lines = [self.whole[base + i * LINE : base + (i + 1) * LINE] for i in range(4)]
        return [self.whole[base + 4 * LINE : base + ONE_WAY], *lines]

    def sender(self, way, **other):
        data, producer, consumer, consumer_bell, producer_bell = self.parts(way)
        return self.keep(Sender(data, producer, consumer, consumer_bell, producer_bell, **other))

    def receiver(self, way, **other):
        data, producer, consumer, consumer_bell, producer_bell = self.parts(way)
        return self.keep(Receiver(data, producer, consumer, producer_bell, consumer_bell, **other))

    def keep(self, side):
        self.sides.append(side)
        return side

    def close(self):
        for side in self.sides:
            side.close()
        self.sides = []
        self.whole.release()


def message(number):
    """A message that only its number decides: of any length up to a quarter of the ring."""
    return random.Random(number).randbytes(number * 7919 % (SIZE // 4))
