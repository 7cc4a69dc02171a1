"""Vectors of capacities, whole or not at all, against a model that is plainly right. Numbers: the room's README."""

import random

import numpy as np
import pytest

from symphony.native.kernels import loading
from symphony.native.layout import constants
from symphony.pit.tables import RESOURCE

with loading():
    from symphony.pit.arbiter import machine

LIMIT = constants["SYM_LIMIT_RESOURCES"]


def resources(*capacities):
    table = np.zeros(LIMIT, RESOURCE)
    table["capacity"][: len(capacities)] = capacities
    return table


def vector(*amounts):
    return np.array(amounts + (0,) * (LIMIT - len(amounts)), np.uint32)


def columns(table, count):
    return {name: table[name][:count].tolist() for name in ("used", "granted", "refused")}


def test_a_vector_is_taken_whole_and_given_back_whole():
    table = resources(4, 10)
    assert machine.take_vector(table, 2, vector(3, 10))
    assert columns(table, 2) == {"used": [3, 10], "granted": [1, 1], "refused": [0, 0]}
    machine.give_vector(table, 2, vector(3, 10))
    assert columns(table, 2)["used"] == [0, 0]


@pytest.mark.parametrize(("need", "short"), [((2, 1), 0), ((1, 3), 1), ((2, 3), 0), ((0, 3), 1)])
def test_too_little_of_one_takes_nothing_and_says_of_which(need, short):
    """I3, and the reason: the first resource that is short counts the refusal."""
    table = resources(4, 10)
    assert machine.take_vector(table, 2, vector(3, 8))
    assert machine.short_of(table, 2, vector(*need)) == short
    assert not machine.take_vector(table, 2, vector(*need))
    refused = [0, 0]
    refused[short] = 1
    assert columns(table, 2) == {"used": [3, 8], "granted": [1, 1], "refused": refused}


def test_what_needs_nothing_is_granted_and_counts_nothing():
    table = resources(0, 0)
    assert machine.take_vector(table, 2, vector(0, 0)) and machine.short_of(table, 2, vector(0, 0)) == -1
    assert machine.take_vector(table, 0, vector(9))
    assert columns(table, 2) == {"used": [0, 0], "granted": [0, 0], "refused": [0, 0]}


def test_more_than_the_capacity_is_never_granted():
    table = resources(4)
    for amount in (5, 2**31, 2**32 - 1):
        assert not machine.take_vector(table, 1, vector(amount))
    assert columns(table, 1) == {"used": [0], "granted": [0], "refused": [3]}


def test_the_last_unit_is_granted():
    table = resources(2**32 - 1)
    assert machine.take_vector(table, 1, vector(2**32 - 1))
    assert not machine.take_vector(table, 1, vector(1))


def test_random_vectors_agree_with_a_plain_count(seed):
    """I1, I2, I3: `used` is always the sum of what is out, and never above the capacity."""
    rng = random.Random(seed)
    capacities = [rng.randrange(1, 20) for _ in range(LIMIT)]
    table, out = resources(*capacities), []
    granted = refused = 0
    for _ in range(5_000):
        if out and rng.random() < 0.5:
            machine.give_vector(table, LIMIT, out.pop(rng.randrange(len(out))))
        else:
            need = vector(*(rng.choice((0, 0, rng.randrange(6))) for _ in range(LIMIT)))
            used = [sum(int(each[i]) for each in out) for i in range(LIMIT)]
            short = [i for i in range(LIMIT) if need[i] and used[i] + int(need[i]) > capacities[i]]
            assert machine.short_of(table, LIMIT, need) == (short[0] if short else -1)
            assert machine.take_vector(table, LIMIT, need) == (not short)
            refused += bool(short)
            if not short:
                out.append(need)
                granted += int((need != 0).sum())
        assert table["used"].tolist() == [sum(int(each[i]) for each in out) for i in range(LIMIT)]
        assert (table["used"] <= table["capacity"]).all()
    assert (int(table["granted"].sum()), int(table["refused"].sum())) == (granted, refused)
