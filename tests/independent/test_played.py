"""Recorded workflows, played by an engine and checked by code that shares nothing with it: the order, and every byte.

Small ones of our own making always; a few real ones where their folder is there; all of them among the slow tests
(`tests/independent/play_all.py` plays them by hand).
"""

import json
import random
import secrets
from pathlib import Path

import pytest

from tests.independent import recorded
from tests.independent.play_all import START_S, check, play, symphonyctl

pytestmark = [pytest.mark.leaves_behind("segments", "children"), pytest.mark.timeout(START_S)]

DIAMOND = recorded.REPOSITORY / "tests" / "data" / "diamond.json"
REAL = recorded.instances()
SOME = 5


def instances_of(paths):
    """A parameter an instance; where there is none, one that says why it is skipped."""
    skipped = pytest.param(None, marks=pytest.mark.skip(reason=recorded.ABSENT), id="absent")
    return [pytest.param(path, id=path.stem) for path in paths] or [skipped]


@pytest.fixture(scope="module")
def engine(own_runtime_directory):
    name = f"recorded-{secrets.token_hex(4)}"
    up = symphonyctl("-n", name, "up", "--timeout", START_S, timeout=2 * START_S)
    assert up.returncode == 0, up.stderr
    yield name
    down = symphonyctl("-n", name, "down", "--force", timeout=START_S)
    assert (down.returncode, down.stderr) == (0, "")


def play_right(engine, instance, tmp_path, tasks, size_scale=0.0):
    record = tmp_path / "record.jsonl"
    counts, fault = play(engine, instance, record, size_scale)
    assert not fault, fault
    assert counts[0] == tasks
    return [json.loads(line) for line in record.read_text().splitlines()]


def document(tasks, sizes=None):
    """A WfFormat document of (id, name, parents, files read, files made)."""
    entries = [
        {"id": identifier, "name": name, "parents": list(parents), "inputFiles": list(reads), "outputFiles": list(makes)}
        for identifier, name, parents, reads, makes in tasks
    ]  # fmt: skip
    files = [{"id": name, "sizeInBytes": size} for name, size in (sizes or {}).items()]
    specification = {"tasks": entries, "files": files}
    return {"name": "made", "schemaVersion": "1.5", "workflow": {"specification": specification}}


def chain(length):
    return [
        (f"t{i}", "link", [f"t{i - 1}"] if i else [], [f"f{i - 1}"] if i else ["given"], [f"f{i}"])
        for i in range(length)
    ]


def star(width):
    """One makes a file for each of many; one reads all that they make."""
    middle = [(f"m{i}", f"worker{i % 7}", ["first"], [f"part{i}"], [f"out{i}"]) for i in range(width)]
    parts, outs = [f"part{i}" for i in range(width)], [f"out{i}" for i in range(width)]
    return [("first", "split", [], [], parts), *middle, ("last", "join", [task[0] for task in middle], outs, [])]


def layered(rng, layers, width):
    """Random layers: files of several earlier tasks, parents without a file, tasks that make none or several."""
    tasks, made, known = [], [], []
    for layer in range(layers):
        fresh = []
        for i in range(width):
            reads = rng.sample(made, min(len(made), rng.randrange(5)))
            parents = rng.sample(known, min(len(known), rng.randrange(3)))
            makes = [f"f{layer}.{i}.{k}" for k in range(rng.choice((0, 1, 1, 2, 5)))]
            fresh.append((f"t{layer}.{i}", f"kind {rng.randrange(9)} ö", parents, reads, makes))
        tasks += fresh
        known += [task[0] for task in fresh]
        made += [name for task in fresh for name in task[4]]
    rng.shuffle(tasks)
    return tasks


def written(tmp_path, tasks, sizes=None):
    path = tmp_path / "made.json"
    path.write_text(json.dumps(document(tasks, sizes)))
    return path


def test_the_diamond(engine, tmp_path):
    lines = play_right(engine, DIAMOND, tmp_path, 5)
    assert {line["attempt"] for line in lines} == {1}


def test_the_checker_finds_a_byte_that_the_engine_did_not_make(engine, tmp_path):
    lines = play_right(engine, DIAMOND, tmp_path, 5)
    line = next(line for line in lines if line["step"] == "join_4")
    line["outputs"][0]["hex"] = "00" + line["outputs"][0]["hex"][2:]
    record = tmp_path / "spoilt.jsonl"
    record.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = check(DIAMOND, record, 0)
    assert found.returncode == 1 and "'join_4', outputs, file 'total': other bytes" in found.stderr


def test_a_chain(engine, tmp_path):
    play_right(engine, written(tmp_path, chain(400)), tmp_path, 400)


def test_a_fan_and_its_join(engine, tmp_path):
    play_right(engine, written(tmp_path, star(600)), tmp_path, 602)


@pytest.mark.parametrize("number", range(3))
def test_random_layers(engine, tmp_path, seed, number):
    tasks = layered(random.Random(seed * 10 + number), 12, 60)
    play_right(engine, written(tmp_path, tasks), tmp_path, 720)


@pytest.mark.parametrize("size_scale", [0.25, 1.0])
def test_files_of_every_size(engine, tmp_path, seed, size_scale):
    """From nothing to more than a player's arena holds: inside the record, in the arena, in pieces."""
    rng = random.Random(seed)
    tasks = layered(rng, 4, 8)
    names = [name for task in tasks for name in task[4]]
    sizes = {name: rng.choice((0, 1, 63, 64, 65, 4000, 4096, 70_000, 300_000)) for name in names}
    sizes[names[0]], sizes[names[-1]] = 9 << 20, 5 << 20
    play_right(engine, written(tmp_path, tasks, sizes), tmp_path, 32, size_scale)


@pytest.mark.parametrize("instance", instances_of(REAL[:SOME]))
def test_a_few_real_ones(engine, tmp_path, instance):
    assert not play(engine, instance, tmp_path / "record.jsonl", 0.0)[1]


@pytest.mark.slow
@pytest.mark.parametrize("instance", instances_of(REAL))
def test_every_real_one(engine, tmp_path, instance: Path):
    play_right(engine, instance, tmp_path, len(json.loads(instance.read_text())["workflow"]["specification"]["tasks"]))
