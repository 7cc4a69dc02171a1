"""Playing inside a program: what comes back, of every kind and size, and what is told while it goes on."""

import asyncio
import threading

import numpy as np
import pytest

from symphony.engine import Engine
from symphony.model.errors import RunNotFound, UsageError, WaitTimeout
from tests.conductor.conftest import START_S, TIMEOUT_S, melody, play

pytestmark = [pytest.mark.leaves_behind("segments", "children", "descriptors"), pytest.mark.timeout(START_S)]

TWICE = {"data": "{_first}"}
"""A value goes out of one step and into another before it comes back: through the arena, both ways."""


KINDS = {bytes: "bytes", str: "text", list: "list"}


def there_and_back(engine, what):
    steps = [("_first", "trial.echo", {"data": "{what}"}), ("back", "trial.echo", TWICE)]
    return play(engine, *steps, inputs={"what": KINDS.get(type(what), "data")}, what=what)["back"]


@pytest.mark.parametrize(
    "what",
    [
        None, True, 0, -(2**63), 2**64 - 1, 0.5, "", "text", "ä \U0001f3bb \0 end", {}, {"a": [1, None, {"b": b"c"}]}, [1, 2, 3],
        ["one", 2, None], {"deep": [[[[]]]]},
    ],
    ids=repr,
)  # fmt: skip
def test_plain_values_come_back(engine, what):
    assert there_and_back(engine, what) == what


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 4095, 4096, 4097, 262_144, 262_145, 9 << 20])
def test_bytes_of_every_size_come_back(engine, size):
    data = bytes(range(251)) * (size // 251) + bytes(size % 251)
    back = there_and_back(engine, data)
    assert bytes(back) == data


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12, dtype=np.int16).reshape(3, 4), np.zeros((0, 5)), np.array(2.5),
        np.array([True, False]), np.arange(6, dtype=">f4"), np.ones((2, 1, 3), np.complex128),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(10)[::3], np.arange(200_000, dtype=np.float32),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)  # fmt: skip
def test_arrays_come_back(engine, array):
    built = melody(arrays="list").step("_first", "trial.echo", each="{arrays}", data="{item}")
    built.step("back", "trial.echo", each="_first", data="{item}").output("back", "back")
    [back] = engine.play(built, arrays=[array]).result(TIMEOUT_S)["back"]
    assert back.dtype == array.dtype and back.shape == array.shape and np.array_equal(back, array)


@pytest.mark.parametrize(
    "items",
    [
        [b"a", b"", b"c" * 5000], ["x", "ä"], [np.arange(3), np.ones((2, 2))], [["a", "b"], ["c"]],
        [b"bytes", "text", np.arange(2)], [str(number) for number in range(5000)],
    ],
    ids=["bytes", "text", "arrays", "nested", "mixed", "many"],
)  # fmt: skip
def test_lists_come_back_with_their_kinds(engine, items):
    def same(one, other):
        if isinstance(other, np.ndarray):
            return np.array_equal(one, other)
        if isinstance(other, list):
            return len(one) == len(other) and all(map(same, one, other))
        return (bytes(one) if isinstance(other, bytes) else one) == other

    assert same(there_and_back(engine, items), items)


def test_a_result_is_the_callers_own(engine):
    data = bytes(range(256)) * 40
    run = engine.play(melody(("back", "trial.echo", {"data": "{what}"}), what="bytes"), what=data)
    first, second = run.result(TIMEOUT_S)["back"], run.result(TIMEOUT_S)["back"]
    for number in range(80):  # the run is forgotten and its memory used again
        there_and_back(engine, bytes([number]) * len(data))
    assert bytes(first) == bytes(second) == data
    with pytest.raises(RunNotFound):
        run.result()


def test_named_outputs(engine):
    built = melody(("_pair", "trial.pair", {"text": "hi", "size": 3}))
    for name in ("text", "data", "length"):
        built.output(name, f"_pair.{name}")
    result = engine.play(built).result(TIMEOUT_S)
    assert {**result, "data": bytes(result["data"])} == {"text": "hi", "data": b"\0\0\0", "length": 3}


def test_events_tell_every_move_and_the_end(engine):
    steps = [("words", "trial.words", {"count": 20})]
    built = melody(*steps).step("each", "trial.echo", each="words", data="{item}").output("out", "each")
    run = engine.play(built)
    events = list(run.events(TIMEOUT_S))
    assert events[-1]["state"] == "completed" and events[-1]["done"] == events[-1]["nodes"] == 21
    assert all(event["run"] == run.serial for event in events)
    done = [event["done"] for event in events]
    assert done == sorted(done)
    assert [step["step"] for step in events[-1]["steps"]] == ["words", "each"]
    assert list(run.events()) == [run.state()], "of an ended run only the end is told"


def test_events_in_time_or_not_at_all(engine):
    run = engine.play(melody(("held", "trial.heed", {})))
    with pytest.raises(WaitTimeout):
        list(run.events(0.2))
    with pytest.raises(WaitTimeout):
        run.result(0.1)
    run.cancel()
    assert list(run.events(TIMEOUT_S))[-1]["state"] == "cancelled"


def test_events_for_asyncio(engine):
    async def both():
        runs = [engine.play(melody(("held", "trial.nap", {"seconds": 0.2}))) for _ in range(2)]

        async def follow(run):
            return [event["state"] async for event in run]

        return await asyncio.wait_for(asyncio.gather(*map(follow, runs)), TIMEOUT_S)

    assert [states[-1] for states in asyncio.run(both())] == ["completed", "completed"]


def test_a_run_by_its_number(engine):
    run = engine.play(melody(("words", "trial.words", {"count": 2})))
    assert list(engine.run(run.serial).result(TIMEOUT_S)["words"]) == ["w0", "w1"]
    with pytest.raises(RunNotFound):
        engine.run(10**6)


def test_the_record_says_what_went_in_and_out(engine):
    built = melody(("words", "trial.words", {"count": 3, "text": "a"}))
    built.step("each", "trial.echo", each="words", data="{item}").output("out", "each")
    built.step("joined", "trial.measure", items="{each}").output("joined", "joined")
    run = engine.play(built)
    run.result(TIMEOUT_S)
    lines = run.record()
    by = {step: [line for line in lines if line["step"] == step] for step in ("words", "each", "joined")}
    assert [len(by[step]) for step in by] == [1, 3, 1]
    ids = [line["outputs"][0]["id"] for line in sorted(by["each"], key=lambda line: line["node"])]
    assert [line["inputs"][0]["id"] for line in sorted(by["each"], key=lambda line: line["node"])] == ids
    assert bytes.fromhex(by["each"][0]["outputs"][0]["hex"]) in (b"a0", b"a1", b"a2")
    assert by["joined"][0]["inputs"][0]["kind"] == "list"
    for line in lines:
        assert line["state"] == "done" and line["attempt"] == 1 and line["pid"] > 0 and line["extension"] == "trial"
        assert 0 < line["started_ns"] <= line["ended_ns"]
    assert by["words"][0]["ended_ns"] <= min(line["started_ns"] for line in by["each"])
    assert max(line["ended_ns"] for line in by["each"]) <= by["joined"][0]["started_ns"]


@pytest.mark.parametrize("batch", [None, 1, 3, 1000])
def test_each_over_each_over_lists_in_order(engine, batch):
    """A step over a fanned-out step whose outputs are lists takes their items, flattened once."""
    built = melody(("_words", "trial.words", {"count": 7}))
    built.step("_lists", "trial.words", each="_words", count=4, text="{item}")
    built.step("_out", "trial.echo", each="_lists", batch=batch, data="{item}").output("out", "_out")
    run = engine.play(built)
    out = run.result(TIMEOUT_S)["out"]
    flat = [f"w{one}{other}" for one in range(7) for other in range(4)]
    if batch is None:
        assert list(out) == flat
    else:
        assert [len(part) for part in out] == [batch] * (28 // batch) + [28 % batch] * (28 % batch > 0)
        assert [word for part in out for word in part] == flat


def test_each_over_each_over_single_values(engine):
    built = melody(("_words", "trial.words", {"count": 5}))
    built.step("_same", "trial.echo", each="_words", data="{item}")
    built.step("out", "trial.echo", each="_same", data="{item}").output("out", "out")
    assert list(engine.play(built).result(TIMEOUT_S)["out"]) == [f"w{number}" for number in range(5)]


def test_each_over_lists_of_uneven_length_and_none(engine):
    built = melody(counts="list")
    built.step("_lists", "trial.words", each="{counts}", count="{item}")
    built.step("out", "trial.measure", each="_lists", batch=4, items="{item}").output("out", "out")
    counts = [3, 0, 0, 9, 1, 0]
    parts = engine.play(built, counts=counts).result(TIMEOUT_S)["out"]
    assert [part["count"] for part in parts] == [4, 4, 4, 1]
    assert engine.play(built, counts=[0, 0]).result(TIMEOUT_S)["out"] in ([], ())
    assert engine.play(built, counts=[]).result(TIMEOUT_S)["out"] in ([], ())


def test_what_comes_after_an_empty_fan_out_still_runs(engine):
    built = melody(counts="list")
    built.step("_none", "trial.echo", each="{counts}", data="{item}")
    built.step("after", "trial.measure", items="{_none}").output("after", "after")
    assert engine.play(built, counts=[]).result(TIMEOUT_S)["after"]["count"] == 0


def test_two_threads_play_at_once(engine):
    wrong = []

    def work(number):
        for turn in range(15):
            text = f"{number}.{turn}."
            out = play(engine, ("words", "trial.words", {"count": 6, "text": text}))["words"]
            if list(out) != [f"{text}{k}" for k in range(6)]:
                wrong.append(text)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert not wrong and engine.pit.pool.validate() == []


def test_inputs_that_cannot_be_start_nothing(engine):
    built = melody(("back", "trial.echo", {"data": "{what}"}), what="data")
    before = engine.status()["counters"]["runs"]
    for given, words in (({}, "needs what"), ({"what": 1, "wat": 2}, "'wat'.*'what'"), ({"what": object()}, "travel")):
        with pytest.raises(UsageError, match=words):
            engine.play(built, **given)
    assert engine.status()["counters"]["runs"] == before


def test_several_engines_in_one_process(engine, own_runtime_directory):
    """Each has its own processes, memory and runs; none knows the others'."""
    with Engine(players=1) as second, Engine(players=1) as third:
        runs = [e.play(melody(("pid", "trial.whom", {}))) for e in (engine, second, third)]
        pids = [run.result(TIMEOUT_S)["pid"] for run in runs]
        assert len(set(pids)) == 3
        assert len({e.status()["keeper_pid"] for e in (engine, second, third)}) == 3
        second.close()
        assert third.play(melody(("pid", "trial.whom", {}))).result(TIMEOUT_S)["pid"] == pids[2]
    assert play(engine, ("words", "trial.words", {"count": 1}))["words"][0] == "w0"
