"""Statistics agree with the standard library's, and mixed or foreign values are refused."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from symphony.aide.operators.describing import describe


def test_numbers_in_any_form():
    numbers = [3, 1.5, -2, 8, 8, 0.25]
    told = describe(numbers)
    assert told["count"] == 6 and told["sum"] == pytest.approx(18.75)
    assert told["mean"] == pytest.approx(statistics.fmean(numbers))
    assert told["deviation"] == pytest.approx(statistics.pstdev(numbers))
    assert (told["least"], told["middle"], told["most"]) == (-2, pytest.approx(statistics.median(numbers)), 8)
    assert (
        describe(np.array(numbers)) == describe([np.array(numbers[:2]), numbers[2:4], [np.array(numbers[4:])]]) == told
    )


def test_numbers_that_are_not_finite_are_counted_apart():
    told = describe([1.0, float("nan"), float("inf"), 3.0])
    assert (told["count"], told["not_finite"], told["mean"]) == (4, 2, 2.0)
    assert describe([float("nan")]) == {"count": 1, "not_finite": 1}


def test_texts():
    told = describe(["one two\nthree\n", "four", "", ["five\n\nsix"]])
    assert (told["texts"], told["lines"], told["words"]) == (4, 6, 6)
    assert told["characters"]["most"] == 14


def test_nothing_and_what_has_no_statistics():
    assert describe([]) == {"count": 0}
    with pytest.raises(TypeError, match="mix texts and numbers"):
        describe([1, "a"])
    with pytest.raises(TypeError, match="bytes has no statistics"):
        describe([b"a"])
    with pytest.raises(TypeError, match="complex"):
        describe(np.array([1j]))
