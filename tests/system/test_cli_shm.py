"""The inspector's verbs on a live engine, a dead one, and a dump; none of them disturbs what it looks at."""

import json
import os
import signal

import pytest

from symphony.pit.stale import sweep
from tests.system.stage import WALKER, assert_nothing_left, ctl, kill_all

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def played(engine, melody, folder):
    """An engine that has played once."""
    assert ctl("-n", engine, "play", "-q", melody(WALKER), "-i", f"path={folder}").returncode == 0
    return engine


def document(*words):
    done = ctl("-o", "json", *words)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == "symphony/1"
    return found


def test_a_live_engine_is_seen_whole(played):
    listed = document("-n", played, "shm", "ls")["items"]
    assert {"state", "run", "arena", "out", "in"} <= {item["kind"] for item in listed}
    assert all(item["alive"] and item["state"] == "live" for item in listed)
    regions = {region["region"] for region in document("-n", played, "shm", "show", ".state.")["regions"]}
    assert {"engine", "runs", "players", "seats", "layout"} <= regions
    [run] = document("-n", played, "shm", "show", ".state.", "runs")["rows"]
    assert (run["name"], run["word"]["state"]) == ("walker", "completed")
    nodes = document("-n", played, "shm", "show", ".run.", "nodes", "--where", "word.state=done")["rows"]
    assert len(nodes) == 2
    verified = document("-n", played, "shm", "verify")
    assert all(item["ok"] for item in verified["items"]) and len(verified["items"]) >= len(listed) - 1
    assert ctl("-n", played, "status").returncode == 0


def test_tables_for_people(played):
    assert ".state." in ctl("-n", played, "shm", "ls").stdout
    assert "sym_run_t" in ctl("-n", played, "shm", "show", ".state.").stdout
    assert "completed" in ctl("-n", played, "shm", "show", ".state.", "runs").stdout
    assert "compare-and-swap" in ctl("-n", played, "shm", "show", ".run.", "nodes", "--fields").stdout
    assert "struct sym_stamp_t" in ctl("-n", played, "shm", "show", ".state.", "layout").stdout


def test_a_dead_engine_and_a_dump_of_it(played, tmp_path):
    kill_all(played)
    listed = document("-n", played, "shm", "ls")["items"]
    assert listed and not any(item["alive"] for item in listed)
    dump = tmp_path / "state.dump"
    assert ctl("-n", played, "shm", "dump", ".state.", dump).returncode == 0
    assert ctl("-n", played, "clean").returncode == 0
    assert_nothing_left(played)
    assert document("-n", played, "shm", "ls")["items"] == []
    [run] = document("shm", "show", "--file", dump, "runs")["rows"]
    assert run["name"] == "walker"
    assert [item["ok"] for item in document("shm", "verify", "--file", dump)["items"]] == [True]
    again = ctl("-n", played, "shm", "dump", ".state.", dump)
    assert again.returncode != 0


def test_damage_is_told_and_the_rest_is_shown(played, tmp_path):
    dump = tmp_path / "state.dump"
    assert ctl("-n", played, "shm", "dump", ".state.", dump).returncode == 0
    with open(dump, "r+b") as file:
        file.write(b"\xff" * 8)
    done = ctl("shm", "verify", "--file", dump)
    assert done.returncode == 1 and "magic" in done.stdout + done.stderr
    assert ctl("shm", "show", "--file", dump, "engine").returncode == 0


@pytest.mark.parametrize(
    "words",
    [
        ["show"],
        ["show", "nothing-like-it"],
        ["show", "."],
        ["show", ".state.", "run"],
        ["show", ".state.", "runs", "--rows", "x"],
        ["show", ".state.", "runs", "--where", "colour=red"],
        ["show", ".state.", "runs", "--where", "colour"],
        ["show", "--file", "/nonexistent"],
        ["show", "--file", "/dev/null"],
        ["dump", ".state.", "/nonexistent/dump"],
    ],
)
def test_mistakes_are_told(played, words):
    done = ctl("-n", played, "shm", *words)
    assert done.returncode in (1, 2), done.stdout
    assert done.stderr and "Traceback" not in done.stderr


def test_a_stopped_engine_can_be_looked_at(played):
    [owner, *_] = sweep.owners_of(played)
    os.kill(owner.pid, signal.SIGSTOP)
    try:
        assert document("-n", played, "shm", "show", ".state.", "engine")["rows"]
    finally:
        os.kill(owner.pid, signal.SIGCONT)
