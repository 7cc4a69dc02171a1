"""symphonyctl over real engines: up to down, every exit code, and nothing left whatever happens in between."""

import contextlib
import json
import os
import signal
import subprocess
import time

import pytest

import symphony
from symphony.pit.stale import sweep
from tests.system.stage import (
    DEADLINE_S,
    SLEEPER,
    WALKER,
    assert_nothing_left,
    command,
    ctl,
    kill_all,
    private_engines,
    processes_of,
)

# A first start after a change of a kernel compiles it.
pytestmark = pytest.mark.timeout(400)


def test_up_play_and_down(name, melody, folder):
    up = ctl("-n", name, "-o", "json", "up", timeout=300)
    assert up.returncode == 0, up.stderr
    told = json.loads(up.stdout)
    assert told["name"] == name and {told["pid"], told["keeper_pid"]} <= processes_of(name)
    status = json.loads(ctl("-n", name, "-o", "json", "status").stdout)
    assert (status["pid"], status["keeper_pid"], status["level"]) == (told["pid"], told["keeper_pid"], 0)
    played = ctl("-n", name, "-o", "json", "play", melody(WALKER), "-i", f"path={folder}")
    assert played.returncode == 0, played.stderr
    document = json.loads(played.stdout)
    assert (document["state"], document["outputs"]["summary"]["files"]) == ("completed", 2)
    runs = json.loads(ctl("-n", name, "-o", "json", "run", "ls").stdout)["items"]
    assert [(run["run"], run["name"], run["state"]) for run in runs] == [(document["run"], "walker", "completed")]
    assert "walk" in ctl("-n", name, "run", "show", document["run"]).stdout
    down = ctl("-n", name, "down")
    assert (down.returncode, down.stderr) == (0, "")
    assert_nothing_left(name)


def test_a_name_in_use(engine):
    again = ctl("-n", engine, "up")
    assert again.returncode == 2 and "already" in again.stderr
    assert ctl("-n", engine, "status").returncode == 0


def test_two_starts_at_once(name):
    crowd = [
        subprocess.Popen(command("-n", name, "up"), stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(3)
    ]
    codes = []
    for process in crowd:
        process.communicate(timeout=DEADLINE_S)
        codes.append(process.returncode)
    assert sorted(codes) == [0, 2, 2]
    assert ctl("-n", name, "status").returncode == 0
    assert ctl("-n", name, "down").returncode == 0
    assert_nothing_left(name)


def test_no_engine(name, melody):
    for words in (["status"], ["down"], ["run", "ls"], ["play", melody(SLEEPER)]):
        assert ctl("-n", name, *words).returncode == 3


def test_play_without_an_engine(melody, folder, no_private_engine):
    played = ctl("-o", "json", "play", melody(WALKER), "-i", f"path={folder}", timeout=300)
    assert played.returncode == 0, played.stderr
    assert json.loads(played.stdout)["outputs"]["summary"]["files"] == 2


def test_play_tells_progress_on_stderr_and_only_there(melody, folder, no_private_engine):
    played = ctl("play", melody(WALKER), "-i", f"path={folder}", timeout=300)
    assert "walk: done" in played.stderr and "starting one" in played.stderr
    quiet = ctl("play", "-q", melody(WALKER), "-i", f"path={folder}", timeout=300)
    assert "walk: done" not in quiet.stderr


def test_a_failed_run(engine, melody, folder):
    missing = ctl("-n", engine, "play", melody(WALKER), "-i", f"path={folder}/nothing")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "nothing" in missing.stderr and "walk" in missing.stderr
    assert ctl("-n", engine, "play", melody(WALKER), "-i", f"path={folder}").returncode == 0


@pytest.mark.parametrize(
    "words", [["no-such.toml"], ["ask"], ["ask", "-i", "path=.", "-i", "question=?", "-i", "top=x"]]
)
def test_mistakes_of_use_start_nothing(words, no_private_engine):
    before = private_engines()
    played = ctl("play", *words)
    assert played.returncode == 2 and played.stderr
    assert private_engines() == before


def test_a_timeout(engine, melody):
    played = ctl("-n", engine, "play", melody(SLEEPER), "--timeout", "0.5")
    assert played.returncode == 4, played.stderr
    states = [run["state"] for run in json.loads(ctl("-n", engine, "-o", "json", "run", "ls").stdout)["items"]]
    assert states == ["cancelled"]


def test_a_cancelled_run(engine, melody):
    with subprocess.Popen(command("-n", engine, "play", melody(SLEEPER)), stderr=subprocess.PIPE, text=True) as playing:
        with symphony.connect(engine) as client:
            wait_for_running(client)
        assert ctl("-n", engine, "run", "cancel", 1).returncode == 0
        _, told = playing.communicate(timeout=DEADLINE_S)
    assert playing.returncode == 5, told


def wait_for_running(client):
    deadline = time.monotonic() + DEADLINE_S
    while not (client.runs() and client.run(1)["running"]):
        assert time.monotonic() < deadline
    return client.run(1)


def test_detached(engine, melody):
    played = ctl("-n", engine, "play", melody(SLEEPER), "-i", "seconds=0", "--detach")
    assert (played.returncode, played.stdout) == (0, "1\n")
    assert ctl("-n", engine, "run", "watch", 1).returncode == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_play_leaves_nothing(melody, no_private_engine, number, code):
    before = private_engines()
    with subprocess.Popen(command("play", melody(SLEEPER)), stderr=subprocess.PIPE, text=True) as playing:
        mine = wait_for_private(before)
        with symphony.connect(mine) as client:
            wait_for_running(client)
        playing.send_signal(number)
        _, told = playing.communicate(timeout=DEADLINE_S)
    assert playing.returncode == code, told
    assert "Traceback" not in told
    assert_nothing_left(mine)


def wait_for_private(before):
    deadline = time.monotonic() + DEADLINE_S
    while True:
        for fresh in private_engines() - before:
            with contextlib.suppress(symphony.SymphonyError):
                symphony.connect(fresh).close()
                return fresh
        assert time.monotonic() < deadline


def test_a_start_that_is_interrupted_leaves_nothing(name):
    with subprocess.Popen(command("-n", name, "up"), stderr=subprocess.PIPE, text=True) as starting:
        deadline = time.monotonic() + DEADLINE_S
        while not processes_of(name):
            assert time.monotonic() < deadline
        starting.send_signal(signal.SIGINT)
        _, told = starting.communicate(timeout=DEADLINE_S)
    if starting.returncode == 0:  # it was ready first
        ctl("-n", name, "down")
    else:
        assert starting.returncode == 130, told
    assert_nothing_left(name)


def test_a_killed_play_takes_its_engine_with_it(melody, no_private_engine):
    before = private_engines()
    with subprocess.Popen(command("play", melody(SLEEPER)), stderr=subprocess.DEVNULL) as playing:
        mine = wait_for_private(before)
        with symphony.connect(mine) as client:
            wait_for_running(client)
        playing.kill()
    assert_nothing_left(mine)


def test_after_a_kill_of_everything_the_next_up_sweeps_and_says_so(engine, melody, folder):
    assert ctl("-n", engine, "play", melody(WALKER), "-i", f"path={folder}").returncode == 0
    kill_all(engine)
    assert [entry.state for entry in sweep.plan(instance=engine).entries] == [sweep.DEAD]
    assert ctl("-n", engine, "status").returncode == 3
    up = ctl("-n", engine, "up")
    assert up.returncode == 0 and "took away" in up.stderr
    assert ctl("-n", engine, "down").returncode == 0
    assert_nothing_left(engine)


def test_clean_after_a_kill_of_everything(engine):
    kill_all(engine)
    told = ctl("-n", engine, "clean", "--dry-run")
    assert told.returncode == 0 and "dead" in told.stdout
    assert sweep.plan(instance=engine).entries
    assert ctl("-n", engine, "clean").returncode == 0
    assert_nothing_left(engine)


def test_clean_leaves_a_living_engine_alone(engine):
    told = json.loads(ctl("-n", engine, "-o", "json", "clean").stdout)
    assert [(item["engine"], item["state"], item["taken"]) for item in told["items"]] == [(engine, "live", False)]
    assert ctl("-n", engine, "status").returncode == 0


def test_down_by_force_ends_a_stopped_engine(engine):
    pid = json.loads(ctl("-n", engine, "-o", "json", "status").stdout)["pid"]
    os.kill(pid, signal.SIGSTOP)
    done = ctl("-n", engine, "down", "--force", "--timeout", "2")
    assert done.returncode == 0, done.stderr
    assert_nothing_left(engine)


def test_in_the_foreground(name):
    with subprocess.Popen(command("-n", name, "up", "--foreground"), stdout=subprocess.PIPE, text=True) as staying:
        assert "ready" in staying.stdout.readline()
        assert ctl("-n", name, "status").returncode == 0
        staying.terminate()
        staying.communicate(timeout=DEADLINE_S)
    assert staying.returncode == 0
    assert_nothing_left(name)


def test_the_record(engine, melody, folder, tmp_path):
    record = tmp_path / "record.jsonl"
    assert ctl("-n", engine, "play", melody(WALKER), "-i", f"path={folder}", "--record", record).returncode == 0
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    assert [(line["step"], line["state"], line["extension"]) for line in lines] == [("walk", "done", "explorer")]
    assert 0 < lines[0]["started_ns"] <= lines[0]["ended_ns"]


def test_paths_are_the_callers(engine, melody, folder):
    played = subprocess.run(
        command("-n", engine, "-o", "json", "play", melody(WALKER), "-i", "path=tree"),
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert played.returncode == 0, played.stderr
    assert json.loads(played.stdout)["outputs"]["summary"]["files"] == 2


def test_ask_finds_what_is_asked_for(engine, tmp_path):
    (tmp_path / "cooking.md").write_text(
        "Boil the potatoes in salted water until they are soft, then mash them with butter.\n"
    )
    (tmp_path / "stars.md").write_text(
        "A telescope shows the rings of Saturn and the moons of Jupiter on a clear night.\n"
    )
    words = ["-i", f"path={tmp_path}", "-i", "question=how do I see the planets?", "-i", "top=1"]
    played = ctl("-n", engine, "-o", "json", "play", "ask", *words)
    assert played.returncode == 0, played.stderr
    assert json.loads(played.stdout)["outputs"]["passages"][0]["file"] == "stars.md"
    assert "stars.md:1-" in ctl("-n", engine, "play", "ask", *words).stdout


def test_attach_reads_without_asking(engine, melody, folder):
    assert ctl("-n", engine, "play", melody(WALKER), "-i", f"path={folder}").returncode == 0
    with symphony.connect(engine) as client, symphony.attach(engine) as viewer:
        status = client.status()
        seen = viewer.status()
        assert (seen["pid"], seen["keeper_pid"], seen["alive"], seen["ready"]) == (
            status["pid"],
            status["keeper_pid"],
            True,
            True,
        )
        [asked], [read] = client.runs(), viewer.runs()
        assert {key: asked[key] for key in read} == read
        assert viewer.rooms["dag"]["runs"].flags.writeable is False
        assert any(segment["kind"] == "run" for segment in viewer.segments())
    with pytest.raises(symphony.SymphonyError):
        symphony.attach("nobody")


def test_warmup(no_private_engine):
    done = ctl("warmup", timeout=600)
    assert done.returncode == 0 and "warm" in done.stdout
