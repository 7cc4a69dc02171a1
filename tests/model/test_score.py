"""A score that anybody may have sent keeps every rule, or is refused by name."""

import random
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.model import score as scores
from symphony.model.errors import ScoreError
from symphony.model.score import InputType, Score, Slot, Source, Step


def step(name, **fields):
    return Step(**{"name": name, "use": "x.y", "extension": "x", "handler": "y", **fields})


def good():
    first = step("walk", slots=[Slot(Source("", 0))], arguments={"path": {"slot": 0}}, outputs=["files", "summary"])
    second = step(
        "chunk", each=Source("walk", 0), batch=4, slots=[Slot(each=True, many=True), Slot(Source("walk", 1))],
        arguments={"a": {"slot": 0}, "b": {"format": "{{{0}}}", "slots": [1]}, "c": {"value": {"k": [1]}},
                   "d": {"slots": [0, 1]}},
        need={"cpu": 1}, retries=2, backoff_s=0.5,
    )  # fmt: skip
    third = step("join", slots=[Slot(Source("chunk"), many=True)], after=["walk"])
    return Score(
        "good", {"path": InputType("path")}, ["path"], [first, second, third], {"all": Source("join")},
        meta={"walk": {"inputs": [], "outputs": ["f"], "name": "n"}},
    )  # fmt: skip


def changed(number, **fields):
    steps = list(good().steps)
    steps[number] = msgspec.structs.replace(steps[number], **fields)
    return msgspec.structs.replace(good(), steps=steps)


def test_a_good_score_survives_the_wire():
    assert scores.load(scores.dump(good())) == good()


def test_binding_is_what_an_extension_needs():
    binding = msgspec.msgpack.decode(good().steps[1].binding())
    assert binding["handler"] == "y" and binding["name"] == "chunk" and binding["outputs"] == [""]
    assert binding["slots"] == [{"many": True, "each": True}, {"many": False, "each": False}]
    assert binding["arguments"]["b"] == {"format": "{{{0}}}", "slots": [1]}


def test_dependencies_and_model():
    walk, chunk, join = good().steps
    assert (walk.dependencies(), chunk.dependencies(), join.dependencies()) == ([], ["walk"], ["chunk", "walk"])
    assert walk.pool_model == "x"
    assert step("a", model="embedder").pool_model == "embedder"


BAD = {
    "no steps": (msgspec.structs.replace(good(), steps=[], outputs={}), "steps: 0 is not between 1"),
    "version": (msgspec.structs.replace(good(), version=2), "version 2"),
    "name": (msgspec.structs.replace(good(), name="a\nb"), "melody name"),
    "input order": (msgspec.structs.replace(good(), input_order=[]), "input_order"),
    "input type": (msgspec.structs.replace(good(), inputs={"path": InputType("pth")}), "did you mean 'path'"),
    "output of input": (msgspec.structs.replace(good(), outputs={"x": Source("", 0)}), "must come from a step"),
    "output of nobody": (msgspec.structs.replace(good(), outputs={"x": Source("jion")}), "did you mean 'join'"),
    "output number": (msgspec.structs.replace(good(), outputs={"x": Source("walk", 2)}), "number 2"),
    "twice": (msgspec.structs.replace(good(), steps=[*good().steps, good().steps[0]]), "stands twice"),
    "use": (changed(0, use="x.z"), "use 'x.z'"),
    "batch": (changed(0, batch=3), "batch needs each"),
    "batch size": (changed(1, batch=-1), "batch: -1"),
    "retries": (changed(1, retries=1 << 40), "retries"),
    "backoff": (changed(1, backoff_s=float("nan")), "backoff_s"),
    "timeout": (changed(1, timeout_s=float("inf")), "timeout_s"),
    "estimate": (changed(1, estimate_s=-1.0), "estimate_s"),
    "need": (changed(1, need={"cpu": -1}), "need cpu"),
    "needs": (changed(1, need={str(number): 1 for number in range(9)}), "kinds of need"),
    "outputs": (changed(2, outputs=[]), "outputs: 0"),
    "many outputs": (changed(2, outputs=[str(number) for number in range(17)]), "outputs: 17"),
    "equal outputs": (changed(2, outputs=["a", "a"]), "different names"),
    "nameless output": (changed(2, outputs=["a", ""]), "different names"),
    "slot without source": (changed(0, slots=[Slot()]), "has no source"),
    "slot of nobody": (changed(0, slots=[Slot(Source("gone"))]), "unknown step 'gone'"),
    "slot number": (changed(0, slots=[Slot(Source("", 1))]), "number 1 of the run's inputs"),
    "negative output": (changed(0, slots=[Slot(Source("", -1))]), "number -1"),
    "slot range": (changed(2, slots=[Slot(Source("chunk"), first=1 << 40)]), "32 bits"),
    "item without each": (changed(0, slots=[Slot(each=True)]), "needs each"),
    "item not many": (changed(1, slots=[Slot(each=True), Slot(Source("walk", 1))]), "exactly when"),
    "after": (changed(2, after=["wlak"]), "did you mean 'walk'"),
    "argument form": (changed(0, arguments={"a": {"slut": 0}}), "must be a slot"),
    "argument forms": (changed(0, arguments={"a": {"slot": 0, "value": 1}}), "must be a slot"),
    "argument slot": (changed(0, arguments={"a": {"slot": 1}}), "names slot 1"),
    "argument slot type": (changed(0, arguments={"a": {"slot": True}}), "names slot True"),
    "argument slots": (changed(0, arguments={"a": {"slots": [0, 7]}}), "names slot 7"),
    "format": (changed(0, arguments={"a": {"format": "{0.__class__}", "slots": [0]}}), "stray"),
    "format field": (changed(0, arguments={"a": {"format": "{1}", "slots": [0]}}), "{1} has no slot"),
    "format type": (changed(0, arguments={"a": {"format": 3, "slots": [0]}}), "a format is a text"),
    "constant": (changed(0, arguments={"a": {"value": "x" * (1 << 21)}}), "over the limit"),
    "order": (msgspec.structs.replace(good(), steps=good().steps[::-1]), "stands before"),
}  # fmt: skip


@pytest.mark.parametrize(("score", "message"), BAD.values(), ids=BAD)
def test_each_rule(score, message):
    with pytest.raises(ScoreError) as caught:
        scores.load(scores.dump(score))
    assert message in str(caught.value)


def test_cycle_is_told_with_its_path():
    steps = [step(name, slots=[Slot(Source(needs))]) for name, needs in (("a", "c"), ("b", "a"), ("c", "b"))]
    with pytest.raises(ScoreError, match="form a cycle: a -> b -> c -> a"):
        scores.validate(Score("m", steps=steps))


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_a_score(payload):
    try:
        scores.load(payload)
    except ScoreError:
        pass


@given(st.data())
def test_a_damaged_score_is_refused_or_valid(data):
    payload = bytearray(scores.dump(good()))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        score = scores.load(payload)
    except ScoreError:
        return
    scores.validate(score)


@given(st.text(alphabet="{}01a ", max_size=12))
def test_formats_are_filled_or_refused(template):
    try:
        fields = scores.format_fields(template)
    except ScoreError:
        return
    filled = scores.fill(template, [f"<{number}>" for number in range(max(fields, default=0) + 1)])
    assert all(f"<{number}>" in filled for number in fields)


def test_bind():
    values = [["a"], 7]
    assert scores.bind(good().steps[1].arguments, values) == {
        "a": ["a"], "b": "{7}", "c": {"k": [1]}, "d": [["a"], 7],
    }  # fmt: skip
    assert scores.fill("{{{0}}} {{x}}", [7]) == "{7} {x}"


def test_topological_keeps_the_written_order_where_it_may():
    assert scores.topological({"c": [], "a": ["b"], "b": [], "d": ["a", "a"]}) == ["c", "b", "a", "d"]


def test_cycles_are_found_in_random_graphs():
    seed = random.randrange(1 << 32)
    print("seed", seed)
    dice = random.Random(seed)
    for _ in range(200):
        count = dice.randrange(1, 12)
        needs = {str(n): [str(dice.randrange(count)) for _ in range(dice.randrange(3))] for n in range(count)}
        cycle = scores.find_cycle(needs)
        if not cycle:
            order = scores.topological(needs)
            assert all(order.index(of) < order.index(name) for name, sources in needs.items() for of in sources)
            continue
        assert cycle[0] == cycle[-1] and len(cycle) > 1
        assert all(before in needs[after] for before, after in pairwise(cycle))
        with pytest.raises(ScoreError):
            scores.topological(needs)


def test_a_long_chain_is_no_recursion():
    needs = {str(n): [str(n - 1)] if n else [] for n in range(50_000)}
    assert scores.find_cycle(needs) == []
    assert len(scores.topological(dict(reversed(needs.items())))) == 50_000
