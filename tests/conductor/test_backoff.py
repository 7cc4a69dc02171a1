"""The rule of restarts, over rows as they lie in the tables."""

import numpy as np
import pytest

from symphony.conductor.backoff import (
    FIRST_NS,
    FREE_DEATHS,
    LONGEST_NS,
    PARKED_DEATHS,
    QUIET_NS,
    count_death,
    wait_ns,
)
from symphony.native.layout import dtype


@pytest.fixture
def row():
    return np.zeros(1, dtype("sym_extension_t"))[0]


def test_the_first_deaths_cost_no_wait_and_then_each_doubles_it(row):
    waits = []
    for _ in range(PARKED_DEATHS):
        count_death(row, 1000)
        waits.append(wait_ns(row, 1000))
    assert waits[:FREE_DEATHS] == [0] * FREE_DEATHS
    assert waits[FREE_DEATHS:] == [min(LONGEST_NS, FIRST_NS << step) for step in range(PARKED_DEATHS - FREE_DEATHS)]
    assert int(row["parked"]) == 1


def test_a_parked_one_may_be_tried_again_after_its_wait(row):
    for _ in range(PARKED_DEATHS):
        count_death(row, 0)
    left = wait_ns(row, 0)
    assert wait_ns(row, left - 1) == 1 and int(row["parked"]) == 1
    assert wait_ns(row, left) == 0 and int(row["parked"]) == 0


def test_a_completed_step_forgets(row):
    for _ in range(6):
        count_death(row, 0)
    count_death(row, 0, progress=True)
    assert int(row["recent_deaths"]) == 1 and wait_ns(row, 0) == 0


def test_a_quiet_time_forgets(row):
    for _ in range(6):
        count_death(row, 0)
    later = int(row["not_before_ns"]) + QUIET_NS + 1
    count_death(row, later)
    assert int(row["recent_deaths"]) == 1 and wait_ns(row, later) == 0
