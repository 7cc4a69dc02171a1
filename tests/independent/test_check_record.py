"""The checker that shares nothing with the engine says yes to a right record and finds every kind of damage.

Records are made here twice over: by hand from BLAKE3, and by the engine's own pure functions; both must pass.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from blake3 import blake3

from symphony.melody import parse
from symphony.melody.record import FACTS, Names, all_names, choose, dumps, names_of, record_line
from symphony.model import value
from symphony.model.work import work_bytes
from tests.independent import recorded

HERE = Path(__file__).parent
DIAMOND = HERE.parent / "data" / "diamond.json"
CHECKER = HERE / "check_record.py"

# Worked out by hand from diamond.json: what each file's 64 bytes are.
SPLIT = blake3(b"split").digest(length=64)
COUNT = blake3(b"count" + SPLIT).digest(length=64)
JOIN = blake3(b"join" + COUNT + COUNT + SPLIT).digest(length=64)
REPORT = blake3(b"report" + JOIN).digest(length=64)
TASKS = [
    ("split_1", [], [("b.part", SPLIT), ("a.part", SPLIT)]),
    ("count_2", [("a.part", SPLIT)], [("a.count", COUNT)]),
    ("count_3", [("b.part", SPLIT)], [("b.count", COUNT)]),
    ("join_4", [("a.count", COUNT), ("b.count", COUNT), ("b.part", SPLIT)], [("total", JOIN)]),
    ("report_5", [("total", JOIN)], [("report_5", REPORT)]),
]


def described(pairs):
    return [
        {"name": name, "kind": "bytes", "bytes": 64, "id": "b3:" + blake3(content).hexdigest(), "hex": content.hex()}
        for name, content in pairs
    ]


def by_hand():
    return [
        {
            "step": step, "node": number, "state": "done", "attempt": 1, "started_ns": 1000 * number + 1000,
            "ended_ns": 1000 * number + 1900, "extension": "operators", "pid": 4242, "inputs": described(inputs),
            "outputs": described(outputs),
        }
        for number, (step, inputs, outputs) in enumerate(TASKS)
    ]  # fmt: skip


def check(lines, tmp_path, *options, instance=DIAMOND):
    record = tmp_path / "record.jsonl"
    record.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in lines))
    command = [sys.executable, "-I", str(CHECKER), str(instance), str(record), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_it_imports_nothing_of_ours():
    assert "symphony" not in CHECKER.read_text()


def test_a_right_record_made_by_hand(tmp_path):
    code, said = check(by_hand(), tmp_path)
    assert (code, said.split(": ", 1)[1]) == (0, "5 tasks, 6 dependencies, 6 files: all right\n")
    shuffled = by_hand()[::-1]
    assert check(shuffled, tmp_path)[0] == 0


def replay(score):
    """What the engine would do at time scale 0: run every step, keep its list, and describe the node."""
    names, made, lines = all_names(score), {}, []
    for number, step in enumerate(score.steps):
        inputs = []
        for slot in step.slots:
            inputs += choose(value.LIST, made[slot.source.step], slot.first, slot.count)
        sizes = step.arguments["sizes"]["value"]
        contents = [payload for _, payload in inputs]
        outputs = [work_bytes(step.arguments["task"]["value"], contents, size) for size in sizes]
        made[step.name] = value.payload_of(value.encode(outputs))
        facts = dict(
            zip(FACTS, (step.name, number, "done", 1, 2 * number + 1, 2 * number + 2, "operators", 7), strict=True)
        )
        lines.append(record_line(facts, names[step.name], inputs, [(value.LIST, made[step.name])]))
    return lines


@pytest.mark.parametrize("scale", ["0", "0.5", "3"])
def test_a_right_record_made_by_our_functions(tmp_path, scale):
    score = parse.load(DIAMOND, time_scale=0, size_scale=float(scale))
    lines = [dumps(line) + "\n" for line in replay(score)]
    assert check(lines, tmp_path, "--size-scale", scale)[0] == 0
    if scale == "3":
        assert check(lines, tmp_path)[0] == 1
        assert '"hex"' in lines[-1] and lines[0].count('"hex"') == 0


def test_our_lines_are_the_hand_made_ones():
    ours, by = replay(parse.load(DIAMOND)), by_hand()
    for mine, theirs in zip(ours, by, strict=True):
        assert mine["inputs"] == theirs["inputs"] and mine["outputs"] == theirs["outputs"]
        assert list(mine) == list(theirs)


def test_a_real_instance(tmp_path):
    folder = recorded.folder()
    found = [folder / "makeflow" / "blast" / "blast-chameleon-small-001.json", *folder.glob("nextflow/mag-*.json")]
    if not all(path.exists() for path in found):
        pytest.skip(recorded.ABSENT)
    for path in found:
        lines = [dumps(line) + "\n" for line in replay(parse.load(path))]
        assert check(lines, tmp_path, instance=path)[0] == 0


def flip(entry):
    entry["hex"] = ("0" if entry["hex"][0] != "0" else "1") + entry["hex"][1:]


DAMAGES = {
    "missing": (lambda r: r.pop(2), "task 'count_3' is missing"),
    "twice": (lambda r: r.append(r[2]), "line 6: task 'count_3' stands twice"),
    "unknown": (lambda r: r[2].update(step="count_9"), "line 3: the instance has no task 'count_9'"),
    "not done": (lambda r: r[2].update(state="failed"), "task 'count_3' is 'failed', not done"),
    "early": (lambda r: r[3].update(started_ns=1500), "task 'join_4' started before its parent 'count_2' had ended"),
    "backwards": (lambda r: r[4].update(ended_ns=10), "task 'report_5' ended before it started"),
    "no time": (lambda r: r[4].update(ended_ns=None), "task 'report_5': ended_ns is None"),
    "no pid": (lambda r: r[4].update(pid=0), "task 'report_5': pid is 0"),
    "no attempt": (lambda r: r[4].update(attempt=True), "task 'report_5': attempt is True"),
    "no extension": (lambda r: r[4].update(extension=""), "task 'report_5': no extension"),
    "same node": (lambda r: r[4].update(node=3), "two tasks have the same node number"),
    "output byte": (lambda r: flip(r[1]["outputs"][0]), "task 'count_2', outputs, file 'a.count': other bytes"),
    "output id": (lambda r: r[1]["outputs"][0].update(id="b3:00"), "file 'a.count': other id"),
    "output size": (lambda r: r[1]["outputs"][0].update(bytes=63), "63 bytes, expected 64"),
    "output kind": (lambda r: r[1]["outputs"][0].update(kind="text"), "kind 'text'"),
    "output name": (lambda r: r[1]["outputs"][0].update(name="x"), "outputs are ['x'], expected ['a.count']"),
    "output gone": (lambda r: r[0]["outputs"].pop(), "outputs are ['b.part']"),
    "outputs gone": (lambda r: r[0].pop("outputs"), "outputs are not a list"),
    "input byte": (lambda r: flip(r[3]["inputs"][1]), "task 'join_4', inputs, file 'b.count': other bytes"),
    "input order": (lambda r: r[3]["inputs"].reverse(), "task 'join_4': inputs are"),
}  # fmt: skip


@pytest.mark.parametrize(("damage", "finding"), DAMAGES.values(), ids=DAMAGES)
def test_every_damage_is_found(tmp_path, damage, finding):
    record = by_hand()
    damage(record)
    code, said = check(record, tmp_path)
    assert code == 1
    assert finding in said


def test_what_cannot_be_read(tmp_path):
    assert check(["{oops\n"], tmp_path)[0] == 2
    assert check(["[]\n"], tmp_path)[0] == 2
    assert check(by_hand(), tmp_path, instance=tmp_path / "gone.json")[0] == 2
    (tmp_path / "cycle.json").write_text(
        json.dumps({"workflow": {"specification": {"tasks": [{"id": "a", "name": "a", "parents": ["a"]}]}}})
    )
    assert check(by_hand(), tmp_path, instance=tmp_path / "cycle.json")[0] == 2


def test_names_of_a_melody_without_files():
    text = (
        '[melody]\nname = "m"\ninputs = { path = "path" }\n[steps.a]\nuse = "x.y"\nwith = { p = "{path}" }\n'
        '[steps.b]\nuse = "x.y"\nwith = { text = "{path} of {a}", both = ["{a}"] }\n'
    )
    score = parse.parse_toml(text)
    assert names_of(score, "a") == Names(["p"], [""], False)
    assert names_of(score, "b") == Names(["text", "text"], [""], False)
    line = record_line({"step": "a", "pid": 3}, names_of(score, "a"), [(value.TEXT, b"/x")], [(value.NONE, b"")])
    assert line["inputs"] == [
        {"name": "p", "kind": "text", "bytes": 2, "id": value.identify(value.TEXT, b"/x"), "hex": "2f78"}
    ]
    assert line["outputs"][0]["hex"] == "" and line["state"] is None
