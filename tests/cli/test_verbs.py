"""The verbs over a staged engine: what they print, in which form, and with which exit code."""

import json
import os
import signal
import subprocess
import sys

import msgspec
import numpy
import pytest

from symphony.cli import leave
from symphony.model import value
from tests.cli.conftest import NAME
from tests.door.stage import small_score

DEADLINE_S = 30.0


def encoded(thing):
    made = value.encode(thing)
    return made.kind, bytes(value.payload_of(made))


def three_runs(stage):
    from symphony.client import connect

    with connect(NAME) as client:
        for number in range(3):
            client.play(small_score(f"melody-{number}"), {"path": "/data"})
    stage.finish(1, {"files": encoded(["a", "b"])})
    stage.finish(2, {}, "failed", "step 'walk' failed: OSError: gone\nTraceback: here")


# -- the forms of output ----------------------------------------------------------------------------------


def test_status_json_is_frozen(stage, ctl, golden):
    result = ctl("-n", NAME, "-o", "json", "status")
    assert result.exit_code == 0, result.output
    golden("status", result.stdout)


def test_status_for_people(stage, ctl):
    result = ctl("-n", NAME, "status")
    assert result.stdout.splitlines()[0].split() == ["name", NAME]
    assert "explorer" in result.stdout and "\x1b" not in result.stdout


def test_run_ls_in_three_forms(stage, ctl, golden):
    three_runs(stage)
    golden("run_ls", ctl("-n", NAME, "-o", "json", "run", "ls").stdout)
    rows = ctl("-n", NAME, "run", "ls").stdout.splitlines()
    assert rows[0].split()[:3] == ["run", "melody", "state"]
    assert [row.split()[2] for row in rows[1:]] == ["completed", "failed", "queued"]
    lines = ctl("run", "ls", "-n", NAME, "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line)["run"] for line in lines] == [1, 2, 3]


def test_run_show(stage, ctl, golden):
    three_runs(stage)
    golden("run_show", ctl("-n", NAME, "-o", "json", "run", "show", 2).stdout)
    told = ctl("-n", NAME, "run", "show", 2).stdout
    assert "OSError: gone" in told and "walk" in told


def test_run_cancel(stage, ctl, golden):
    three_runs(stage)
    golden("run_cancel", ctl("-n", NAME, "-o", "json", "run", "cancel", 3).stdout)
    assert stage.table[3]["state"] == "cancelled"


@pytest.mark.parametrize(("run", "code"), [(1, 0), (2, 1)])
def test_run_watch_ends_by_outcome(stage, ctl, run, code):
    three_runs(stage)
    assert ctl("-n", NAME, "run", "watch", run).exit_code == code
    lines = ctl("-n", NAME, "-o", "jsonl", "run", "watch", run).stdout.splitlines()
    assert json.loads(lines[-1])["run"] == run


def test_run_watch_in_time(stage, ctl):
    three_runs(stage)
    assert ctl("-n", NAME, "run", "watch", 3, "--timeout", "0.05").exit_code == 4


def test_control_characters_do_not_reach_the_terminal(stage, ctl):
    three_runs(stage)
    stage.table[3] = {**stage.table[3], "name": "evil\x1b[2Jname"}
    assert "\x1b" not in ctl("-n", NAME, "run", "ls").stdout


def test_version(ctl):
    found = json.loads(ctl("-o", "json", "version").stdout)
    assert found["symphony"] and found["abi"] == 1 and len(found["layout"]) == 16


def test_completion(ctl):
    assert "_SYMPHONYCTL_COMPLETE" in ctl("completion", "bash").stdout


# -- play -------------------------------------------------------------------------------------------------


def play(ctl, melody, *more):
    return ctl("-n", NAME, *more[:-1] if more and more[-1] == "-" else (), "play", melody, "-i", "path=/data", *more)


def test_play_prints_the_outputs(stage, ctl, melody):
    stage.on_play = lambda conductor, serial: conductor.finish(serial, {"files": encoded("a text\nof two lines")})
    result = play(ctl, melody)
    assert (result.exit_code, result.stdout) == (0, "a text\nof two lines\n")
    assert "small: 2 nodes done in 2.0 s" in result.stderr


def test_play_json_is_frozen(stage, ctl, melody, golden):
    outputs = {
        "array": encoded(numpy.arange(6, dtype="<f4").reshape(2, 3)),
        "bytes": encoded(b"abc"),
        "data": encoded({"b": [1, None], "a": 2.5}),
        "list": encoded(["x", b"y"]),
        "none": encoded(None),
        "text": encoded("a text"),
    }
    stage.on_play = lambda conductor, serial: conductor.finish(serial, outputs)
    golden("play", ctl("-n", NAME, "-o", "json", "play", melody, "-i", "path=/data").stdout)


def test_play_shows_passages(stage, ctl, melody):
    row = {
        "rank": 1,
        "score": 0.8125,
        "file": "src/ring.c",
        "first_line": 10,
        "last_line": 19,
        "text": "one\n\n\ttwo\nthree",
    }
    stage.on_play = lambda conductor, serial: conductor.finish(
        serial, {"n": encoded({"x": 1}), "passages": encoded([row])}
    )
    lines = play(ctl, melody).stdout.splitlines()
    assert lines[:4] == [" 1.  0.812  src/ring.c:10-19", "      | one", "      |     two", "      | three"]


def test_play_gives_typed_inputs(stage, ctl, melody, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    stage.on_play = lambda conductor, serial: conductor.finish(serial, {})
    assert ctl("-n", NAME, "play", melody, "-i", "path=sub", "-i", "top=7").exit_code == 0
    assert stage.inputs[1] == {"path": str(tmp_path / "sub"), "top": 7}


@pytest.mark.parametrize(
    "words",
    [
        ["play", "no-such-melody"],
        ["play", "missing.toml"],
        ["play", "{melody}"],
        ["play", "{melody}", "-i", "path"],
        ["play", "{melody}", "-i", "path=/", "-i", "tops=1"],
        ["play", "{melody}", "-i", "path=/", "-i", "top=many"],
        ["play", "{melody}", "-i", "path=/", "-i", "path=/"],
        ["play", "{melody}", "-i", "path=/", "--timeout", "0"],
        ["play", "{melody}", "-i", "path=/", "--record", "/nonexistent/record"],
        ["play"],
        ["dance"],
        ["run", "shows"],
        ["run", "show", "one"],
        ["run", "show", "99"],
        ["-o", "xml", "status"],
    ],
)
def test_mistakes_of_use_are_exit_code_2(stage, ctl, melody, words):
    result = ctl("-n", NAME, *(word.format(melody=melody) for word in words))
    assert result.exit_code == 2, result.output
    assert result.stderr and not result.stdout
    assert stage.plays == 0


def test_the_nearest_word_is_named(stage, ctl, melody):
    assert "'status'" in ctl("statsu").stderr
    assert "'top'" in ctl("-n", NAME, "play", melody, "-i", "path=/", "-i", "topp=1").stderr


def test_play_of_a_failed_run(stage, ctl, melody):
    stage.on_play = lambda conductor, serial: conductor.finish(
        serial, {}, "failed", "step 'walk' failed: OSError: gone\nTrace"
    )
    result = play(ctl, melody)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "OSError: gone" in result.stderr and "    Trace" in result.stderr
    document = json.loads(ctl("-n", NAME, "-o", "json", "play", melody, "-i", "path=/").stdout)
    assert (document["state"], document["outputs"]) == ("failed", None)


def test_play_that_somebody_cancels(stage, ctl, melody):
    stage.on_play = lambda conductor, serial: conductor.cancel(serial)
    assert play(ctl, melody).exit_code == 5


def test_play_in_time(stage, ctl, melody):
    assert play(ctl, melody, "--timeout", "0.05").exit_code == 4
    assert stage.table[1]["state"] == "cancelled"


def test_play_detached(stage, ctl, melody):
    result = play(ctl, melody, "--detach")
    assert (result.exit_code, result.stdout) == (0, "1\n")
    assert stage.table[1]["state"] == "queued"


def test_play_writes_the_record(stage, ctl, melody, tmp_path):
    for last in ("completed", "failed"):
        stage.on_play = lambda conductor, serial, last=last: conductor.finish(serial, {}, last)
        play(ctl, melody, "--record", tmp_path / last)
        line = json.loads((tmp_path / last).read_text())
        assert {
            "step",
            "node",
            "state",
            "attempt",
            "started_ns",
            "ended_ns",
            "extension",
            "pid",
            "inputs",
            "outputs",
        } <= set(line)


def test_ctrl_c_cancels_the_run(stage, melody):
    command = [sys.executable, "-m", "symphony", "-n", NAME, "play", str(melody), "-i", "path=/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        stage.on_play = lambda conductor, serial: process.send_signal(signal.SIGINT)
        _, messages = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130, messages
    assert "Traceback" not in messages
    assert stage.table[1]["state"] == "cancelled"


def test_sigterm_cancels_the_run(stage, melody):
    command = [sys.executable, "-m", "symphony", "-n", NAME, "play", str(melody), "-i", "path=/"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        stage.on_play = lambda conductor, serial: process.terminate()
        _, messages = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 143, messages
    assert stage.table[1]["state"] == "cancelled"


# -- how commands end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", [["status"], ["run", "ls"], ["run", "cancel", "1"], ["down"]])
def test_no_engine_is_exit_code_3(ctl, words):
    result = ctl("-n", "nobody", *words)
    assert result.exit_code == 3
    assert "symphonyctl -n nobody up" in result.stderr and not result.stdout


def test_a_named_engine_is_not_replaced_by_a_private_one(ctl, melody):
    assert ctl("-n", "nobody", "play", melody, "-i", "path=/").exit_code == 3


def test_a_name_that_cannot_be(ctl):
    assert ctl("-n", "../evil", "status").exit_code == 2


def test_a_reader_that_leaves_is_no_error(stage, tmp_path):
    three_runs(stage)
    for number in range(4, 3000):
        stage.table[number] = {**stage.table[1], "run": number}
    script = f"{sys.executable} -m symphony -n {NAME} run ls | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (leave.PIPE, "")
    assert len(done.stdout.splitlines()) == 1


def test_colours(stage, process):
    import pty

    def on_terminal(**env):
        leader, follower = pty.openpty()
        try:
            done = process("-n", NAME, "status", env={"TERM": "xterm", **env}, capture_output=False, stdout=follower)
            assert done.returncode == 0
            return os.read(leader, 65536)
        finally:
            os.close(leader)
            os.close(follower)

    assert b"\x1b[1m" in on_terminal(NO_COLOR="")
    assert b"\x1b" not in on_terminal(NO_COLOR="1")


def test_the_engines_name_from_the_environment(stage, ctl):
    assert ctl("status", env={"SYMPHONY_ENGINE": NAME}).exit_code == 0


def test_an_unknown_error_class_is_told(stage, ctl, melody):
    stage.on_play = lambda conductor, serial: 1 / 0
    result = play(ctl, melody)
    assert result.exit_code == 1 and "ZeroDivisionError" in result.stderr


def test_json_of_what_json_has_no_form_for(ctl, stage):
    stage.status = lambda: {"id": b"\x00\x01", "state": "ready"}
    assert json.loads(ctl("-n", NAME, "-o", "json", "status").stdout)["id"] == "AAE="
    assert msgspec.json.decode(ctl("-n", NAME, "-o", "jsonl", "status").stdout)["state"] == "ready"
