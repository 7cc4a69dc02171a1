"""Recorded workflows become scores whose slots are the files that travel; a damaged instance is told where."""

import copy
import json
from pathlib import Path

import pytest

from symphony.melody import parse, wfformat
from symphony.model.errors import MelodyError
from symphony.model.score import Slot, Source, dump, load
from tests.independent import recorded

HERE = Path(__file__).parents[1]
DIAMOND = HERE / "data" / "diamond.json"


def test_a_small_instance():
    score = parse.load(DIAMOND)
    assert score.name == "diamond" and not score.inputs
    steps = {step.name: step for step in score.steps}
    assert list(steps) == ["split_1", "count_2", "count_3", "join_4", "report_5"]
    split, join, report = steps["split_1"], steps["join_4"], steps["report_5"]
    assert split.arguments == {"task": {"value": "split"}, "seconds": {"value": 1.5}, "sizes": {"value": [64, 64]}}
    assert split.use == "operators.work" and split.estimate_s == 1.5 and split.outputs == [""]
    assert steps["count_2"].slots == [Slot(Source("split_1"), first=1, count=1)]
    assert join.slots == [
        Slot(Source("count_2"), first=0, count=1), Slot(Source("count_3"), first=0, count=1),
        Slot(Source("split_1"), first=0, count=1),
    ]  # fmt: skip
    assert join.arguments["inputs"] == {"slots": [0, 1, 2]} and "inputs" not in split.arguments
    assert report.arguments["sizes"] == {"value": [64]}
    assert score.outputs == {"report_5": Source("report_5")}
    assert score.meta["join_4"] == {"inputs": ["a.count", "b.count", "b.part"], "outputs": ["total"], "name": "join"}
    assert score.meta["report_5"]["outputs"] == ["report_5"]
    assert load(dump(score)) == score


def test_scales():
    split = parse.load(DIAMOND, time_scale=0.5, size_scale=0.1).steps[0]
    assert split.arguments["seconds"] == {"value": 0.75} and split.arguments["sizes"] == {"value": [210, 190]}
    assert split.estimate_s == 0.75
    assert parse.load(DIAMOND, time_scale=0).steps[0].arguments["seconds"] == {"value": 0.0}
    for scales in ({"time_scale": -1}, {"size_scale": float("nan")}, {"time_scale": float("inf")}):
        with pytest.raises(MelodyError, match="scale must be 0 or more"):
            parse.load(DIAMOND, **scales)


def test_a_parent_without_a_file_is_waited_for():
    document = json.loads(DIAMOND.read_text())
    document["workflow"]["specification"]["tasks"][4]["parents"].append("split_1")
    report = wfformat.loads(json.dumps(document)).steps[-1]
    assert report.after == ["split_1"] and report.dependencies() == ["join_4", "split_1"]


def test_a_file_without_a_parent_is_waited_for():
    document = json.loads(DIAMOND.read_text())
    for task in document["workflow"]["specification"]["tasks"]:
        task["parents"] = []
    assert wfformat.loads(json.dumps(document)).steps == parse.load(DIAMOND).steps


def changed(change):
    document = copy.deepcopy(json.loads(DIAMOND.read_text()))
    specification = document["workflow"]["specification"]
    change(document, specification, {task["id"]: task for task in specification["tasks"]})
    return json.dumps(document, indent=1)


def assign(where, **values):
    where.update(values)


BAD = {
    "not an instance": (lambda d, s, t: d.pop("workflow"), "w.json: not a WfFormat instance"),
    "version": (
        lambda d, s, t: assign(d, schemaVersion="1.3"), "w.json:4:2: WfFormat '1.3' is not read here, only 1.5"
    ),
    "no specification": (
        lambda d, s, t: d["workflow"].pop("specification"), "workflow.specification must be an object, it is missing"
    ),
    "no tasks": (lambda d, s, t: s["tasks"].clear(), "the instance has no tasks"),
    "task of another kind": (lambda d, s, t: s["tasks"].append(3), "tasks[5] must be an object, it is 3"),
    "no id": (lambda d, s, t: t["join_4"].pop("id"), "tasks[3].id must be a text, it is missing"),
    "name of another kind": (
        lambda d, s, t: assign(t["join_4"], name=[]), "tasks[3].name must be a text, it is a list"
    ),
    "parents of another kind": (
        lambda d, s, t: assign(t["join_4"], parents="x"), "tasks[3].parents must be a list, it is the text 'x'"
    ),
    "file of another kind": (
        lambda d, s, t: t["join_4"]["inputFiles"].append({}), "tasks[3].inputFiles[4] must be a text, it is an object"
    ),
    "unknown parent": (
        lambda d, s, t: t["join_4"]["parents"].append("count_9"),
        "w.json:62:7: task 'join_4' has the unknown parent 'count_9'; did you mean 'count_3'?",
    ),
    "duplicate id": (
        lambda d, s, t: assign(t["count_3"], id="count_2"), "w.json:42:12: two tasks have the id 'count_2'"
    ),
    "two producers": (
        lambda d, s, t: t["count_3"]["outputFiles"].append("total"),
        "file 'total' has two producers: 'count_3' and 'join_4'",
    ),
    "cycle": (lambda d, s, t: t["split_1"]["parents"].append("join_4"), "the tasks form a cycle: "),
    "own input": (
        lambda d, s, t: t["join_4"]["inputFiles"].append("total"), "the tasks form a cycle: join_4 -> join_4"
    ),
    "run time": (
        lambda d, s, t: assign(d["workflow"]["execution"]["tasks"][1], runtimeInSeconds=-1),
        "workflow.execution.tasks[1].runtimeInSeconds must be a number of 0 or more, it is -1",
    ),
    "size": (
        lambda d, s, t: assign(s["files"][0], sizeInBytes=True),
        "workflow.specification.files[0].sizeInBytes must be a number of 0 or more, it is True",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), BAD.values(), ids=BAD)
def test_each_mistake(change, message):
    with pytest.raises(MelodyError) as caught:
        wfformat.loads(changed(change), file="w.json")
    assert message in str(caught.value)
    assert str(caught.value).startswith("w.json:")


def test_a_cycle_is_told_with_its_path():
    text = changed(lambda d, s, t: t["split_1"]["parents"].append("report_5"))
    with pytest.raises(
        MelodyError, match=r"w.json:\d+:\d+: .* cycle: split_1 -> count_2 -> join_4 -> report_5 -> split_1"
    ):
        wfformat.loads(text, file="w.json")


def test_files_that_are_none(tmp_path):
    with pytest.raises(MelodyError, match=r"gone.json: cannot read the instance: No such file"):
        parse.load(tmp_path / "gone.json")
    (tmp_path / "bad.json").write_text('{"name": "x",\n  oops}')
    with pytest.raises(MelodyError, match=r"bad.json:2:3: not JSON: "):
        parse.load(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_bytes(b"\xff")
    with pytest.raises(MelodyError, match="not UTF-8 at byte 0"):
        parse.load(tmp_path / "bad.json")
    for text in ("[" * 100_000, "[]", "3", "null", "{}"):
        with pytest.raises(MelodyError, match="not a WfFormat instance"):
            wfformat.loads(text)


def test_every_real_instance_compiles():
    files = recorded.instances()
    if not files:
        pytest.skip(recorded.ABSENT)
    tasks = 0
    for path in files:
        score = parse.load(path, time_scale=0)
        assert load(dump(score)) == score
        specification = json.loads(path.read_text())["workflow"]["specification"]
        needs = {task["id"]: set(task["parents"]) for task in specification["tasks"]}
        assert {step.name: set(step.dependencies()) for step in score.steps} == needs
        for step in score.steps:
            assert not step.after, "in these instances every edge shares a file"
            taken = [score.meta[slot.source.step]["outputs"][slot.first] for slot in step.slots]
            assert taken == score.meta[step.name]["inputs"] == sorted(taken)
        tasks += len(score.steps)
    assert (len(files), tasks) == (43, 11_552)
