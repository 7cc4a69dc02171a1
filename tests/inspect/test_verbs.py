"""`symphonyctl shm`: its three forms, its frozen JSON, its exit codes; and `symphony-inspect`, the same program."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from symphony.cli.inspect import inspect
from symphony.cli.main import symphonyctl

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def shm(engine_name):
    """Run `symphonyctl shm` in this process, for this test's engine."""
    return lambda *words: CliRunner().invoke(symphonyctl, ["-n", engine_name, *map(str, words)])


def form_of(content):
    """A document's form: its keys, and the types of what stands there. A list is as its first item."""
    if isinstance(content, dict):
        return {key: form_of(each) for key, each in content.items()}
    if isinstance(content, list):
        return [form_of(content[0])] if content else []
    return type(content).__name__


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ls", ["shm", "ls"]),
        ("show", ["shm", "show", "state"]),
        ("show_rows", ["shm", "show", "state", "runs"]),
        ("verify", ["shm", "verify"]),
    ],
)
def test_the_form_of_json_is_frozen(state, shm, name, words):
    result = shm("-o", "json", *words)
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["schema"] == "symphony/1" and document["kind"] == " ".join(words[:2])
    text = json.dumps(form_of(document), indent=2) + "\n"
    path = GOLDEN / f"{name}.json"
    if os.environ.get("SYMPHONY_GOLDEN") == "write":
        path.write_text(text)
    assert text == path.read_text(), f"{name}: the frozen form of -o json changed"


def test_lines_of_json(state, run, shm):
    lines = [json.loads(line) for line in shm("-o", "jsonl", "shm", "show", "run", "nodes").stdout.splitlines()]
    assert [line["row"] for line in lines] == [0, 1, 2, 3, 4]
    kinds = {json.loads(line)["kind"] for line in shm("-o", "jsonl", "shm", "ls").stdout.splitlines()}
    assert kinds == {"state", "run"}


def test_tables_for_people(state, run, shm):
    assert state.name in shm("shm", "ls").stdout
    assert "sym_run_t" in shm("shm", "show", "state").stdout
    rows = shm("shm", "show", "run", "nodes", "--where", "word.state=done").stdout.splitlines()
    assert rows[0].split()[:2] == ["row", "word.state"] and len(rows) == 4
    assert "compare-and-swap" in shm("shm", "show", "run", "nodes", "--fields").stdout
    assert shm("shm", "show", "run", "layout").stdout.startswith("struct sym_stamp_t 256")
    assert shm("shm", "show", "run", "nodes", "--rows", "2").stdout.splitlines()[1].split() == ["word.state", "pending"]


def test_more_rows_than_asked_for_are_said(run, shm):
    result = shm("shm", "show", "run", "nodes", "--limit", "2")
    assert len(result.stdout.splitlines()) == 3 and "--limit 0" in result.stderr
    assert shm("shm", "show", "run", "nodes", "--limit", "0").stderr == ""


def test_what_does_not_hold_ends_with_one(run, shm):
    assert shm("shm", "verify").exit_code == 0
    run.table.nodes["step"][1] = 99
    result = shm("shm", "verify", "run")
    assert result.exit_code == 1
    assert "damaged" in result.stdout and "node 1: is of step 99 of 3" in result.stdout


def test_a_dump_is_read_like_a_segment(state, shm, tmp_path):
    assert shm("shm", "dump", "state", tmp_path / "copy").exit_code == 0
    shown = json.loads(shm("-o", "json", "shm", "show", "--file", tmp_path / "copy", "runs").stdout)
    assert shown["rows"][0]["word"]["state"] == "running"
    assert shm("shm", "verify", "--file", tmp_path / "copy").exit_code == 0
    assert shm("shm", "dump", "state", tmp_path / "copy").exit_code == 2


@pytest.mark.parametrize(
    "words",
    [
        ["show", "nothing"], ["show"], ["show", "inspect"], ["show", "run", "knots"], ["verify", "nothing"],
        ["show", "run", "nodes", "--rows", "x"], ["show", "run", "nodes", "--where", "colour=red"],
        ["show", "--file", "/nonexistent"], ["dump", "run", "/nonexistent/copy"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_mistakes_are_told(state, run, shm, words):
    result = shm("shm", *words)
    assert result.exit_code in (1, 2) and result.stdout == "" and result.stderr.count("\n") >= 1
    assert "Traceback" not in result.stderr


def test_control_characters_of_a_name_stay_away_from_the_terminal(state, shm):
    state.table.runs[0]["name"][:6] = list(b"a\x1b[2Jb")
    assert "\x1b" not in shm("shm", "show", "state", "runs").stdout


def test_symphony_inspect_is_the_same(state, engine_name):
    result = CliRunner().invoke(inspect, ["-n", engine_name, "-o", "json", "show", "state", "runs"])
    assert json.loads(result.stdout)["rows"][0]["serial"] == 4


def test_the_program_starts_light(state, engine_name):
    program = (
        "import sys\nfrom symphony.cli.main import symphonyctl\n"
        "symphonyctl(sys.argv[1:], standalone_mode=False)\n"
        "assert not {'numpy', 'numba', 'rich'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", program, "-n", engine_name, "shm", "show", "state", "runs"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
