"""Plain statistics of numbers and texts, the smallest step that is useful at the end of a melody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def describe(values: Any) -> dict:
    """Statistics of `values`: an array, a number, a text, or a (nested) list of these.

    Numbers: {count, not_finite, sum, mean, deviation, least, quarter, middle, three_quarters, most}, all but the counts
    over those that are finite. Texts: the same of their lengths under "characters", and {count, texts, lines, words}.
    Nothing at all gives {"count": 0}. Raises `TypeError` for other values. Cost: one copy of the numbers as float64.
    """
    texts: list[str] = []
    numbers: list[np.ndarray] = []
    _gather([values], texts, numbers)
    if texts and numbers:
        raise TypeError("statistics: values mix texts and numbers: pass one kind")
    if texts:
        lines = sum(text.count("\n") + (not text.endswith("\n")) for text in texts if text)
        lengths = np.fromiter(map(len, texts), dtype=np.float64, count=len(texts))
        words = sum(len(text.split()) for text in texts)
        return {
            "count": len(texts),
            "texts": len(texts),
            "lines": lines,
            "words": words,
            "characters": _numbers(lengths),
        }
    return _numbers(np.concatenate(numbers)) if numbers else {"count": 0}


def _gather(values: Iterable[Any], texts: list[str], numbers: list[np.ndarray]) -> None:
    for value in values:
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, int | float | np.ndarray | np.generic):
            array = np.asarray(value)
            if array.dtype.kind not in "biuf":
                raise TypeError(f"statistics: an array of {array.dtype} has no statistics: pass real numbers")
            numbers.append(array.reshape(-1).astype(np.float64))
        elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
            _gather(value, texts, numbers)
        else:
            raise TypeError(f"statistics: {type(value).__name__} has no statistics: pass numbers or texts")


def _numbers(values: np.ndarray) -> dict:
    finite = values[np.isfinite(values)]
    counted = {"count": len(values), "not_finite": len(values) - len(finite)}
    if not len(finite):
        return counted
    least, quarter, middle, three, most = (float(value) for value in np.quantile(finite, (0, 0.25, 0.5, 0.75, 1)))
    spread = {"least": least, "quarter": quarter, "middle": middle, "three_quarters": three, "most": most}
    return {
        **counted,
        "sum": float(finite.sum()),
        "mean": float(finite.mean()),
        "deviation": float(finite.std()),
        **spread,
    }
