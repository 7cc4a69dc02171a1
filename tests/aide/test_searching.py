"""Search finds the nearest passages exactly, in a fixed order, and refuses parts that do not belong together."""

from __future__ import annotations

import numpy as np
import pytest

from symphony.aide.operators import searching
from symphony.aide.operators.searching import build_index, search_index


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("block", [64, 1 << 16])
def test_agrees_with_a_plain_sort(monkeypatch, block):
    monkeypatch.setattr(searching, "BLOCK_ROWS", block)
    vectors = unit(np.random.default_rng(7).standard_normal((500, 16)))
    sizes = [0, 3, 0, 0, 250, 1, 246, 0]
    texts = [f"f.py:{number + 1}-{number + 2}\ntext {number}" for number in range(500)]
    ends = np.cumsum(sizes)
    groups = [texts[end - size : end] for end, size in zip(ends, sizes, strict=True)]
    batches = [vectors[at : at + 64] for at in range(0, 500, 64)]
    index = build_index(batches, groups)
    assert index[0].dtype == np.float32 and np.array_equal(index[0], vectors)
    for seed in range(5):
        question = unit(np.random.default_rng(seed).standard_normal((1, 16)))
        found = search_index(index, groups, question, top=7)
        expected = sorted(range(500), key=lambda row: (-float(vectors[row] @ question[0]), row))[:7]
        assert [passage["text"] for passage in found["passages"]] == [f"text {row}" for row in expected]
        assert [passage["rank"] for passage in found["passages"]] == list(range(1, 8))
        first = found["passages"][0]
        assert (first["file"], first["first_line"], first["last_line"]) == ("f.py", expected[0] + 1, expected[0] + 2)
        assert first["score"] == pytest.approx(float(vectors[expected[0]] @ question[0]), abs=1e-4)
    assert found["summary"] == {"passages": 500, "groups": 8, "groups_empty": 4, "width": 16}
    flat = search_index(build_index(vectors, texts), texts, question[0], top=7)
    assert flat["passages"] == found["passages"]


def test_equal_scores_keep_the_order_of_the_passages():
    vectors = np.ones((6, 4), dtype=np.float32) / 2
    texts = [f"a:{number}-{number}\nsame" for number in range(1, 7)]
    found = search_index(build_index(vectors, texts), texts, vectors[0], top=3)
    assert [passage["first_line"] for passage in found["passages"]] == [1, 2, 3]
    assert len(search_index(build_index(vectors, texts), texts, vectors[0], top=99)["passages"]) == 6


@pytest.mark.parametrize("passages", [[], [[]], [[], []]])
def test_nothing_to_search_finds_nothing(passages):
    for vectors in ([], [np.zeros((0, 256), np.float32)], np.zeros((0, 256), np.float32)):
        found = search_index(build_index(vectors, passages), passages, np.ones(256, np.float32))
        assert found["passages"] == [] and found["summary"]["passages"] == 0


def test_only_the_passages_found_are_read():
    class Watched(list):
        read = 0

        def __getitem__(self, place):
            Watched.read += 1
            return super().__getitem__(place)

    vectors = unit(np.random.default_rng(1).standard_normal((100, 8)))
    groups = [Watched(f"a:{number}-{number}\nx" for number in range(100))]
    search_index(build_index(vectors, groups), groups, vectors[3], top=2)
    assert Watched.read == 2


def test_parts_that_do_not_belong_together_are_refused():
    vectors = np.eye(4, dtype=np.float32)
    texts = [f"a:{number}-{number}\nx" for number in range(4)]
    with pytest.raises(ValueError, match="4 vectors for 3 passages"):
        build_index(vectors, texts[:3])
    with pytest.raises(ValueError, match="of one width"):
        build_index([vectors, np.ones((2, 5), np.float32)])
    with pytest.raises(ValueError, match="of one width"):
        build_index([np.ones(4, np.float32)])
    index = build_index(vectors, texts)
    with pytest.raises(ValueError, match="width 3, the index 4"):
        search_index(index, texts, np.ones(3))
    with pytest.raises(ValueError, match="counts 4 passages, given are 3"):
        search_index(index, texts[:3], np.ones(4))
    with pytest.raises(TypeError, match="question is text"):
        search_index(index, texts, "where?")
    with pytest.raises(ValueError, match="pass one vector"):
        search_index(index, texts, np.ones((2, 4)))
    with pytest.raises(ValueError, match="pass what index returned"):
        search_index([vectors], texts, np.ones(4))
    with pytest.raises(ValueError, match="make no index"):
        search_index([vectors, np.array([0, 3])], texts, np.ones(4))
    for top in (0, -1, 1.5, True):
        with pytest.raises(ValueError, match="top is"):
            search_index(index, texts, np.ones(4), top=top)
