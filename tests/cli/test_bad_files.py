"""Files that cannot be read or written: a clear word and the promised exit code, never a traceback, nothing half made."""

import json
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from symphony.cli.main import symphonyctl
from tests.cli.conftest import NAME

NOBODY = 65534


def command(*words):
    return [sys.executable, "-m", "symphony", "-n", NAME, *map(str, words)]


def without_rights(*words):
    """Run symphonyctl in a forked child that is not root: (exit code, output). Before, once as it is, for imports."""
    CliRunner().invoke(symphonyctl, [*map(str, words)])
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
            result = CliRunner().invoke(symphonyctl, [*map(str, words)])
            told = [result.exit_code, result.output]
        except BaseException as error:
            told = [-1, repr(error)]
        os.write(writer, json.dumps(told).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        told = json.load(file)
    os.waitpid(child, 0)
    return told


@pytest.fixture
def closed(tmp_path):
    """A folder that only its owner may enter; who is not root finds it shut altogether."""
    place = tmp_path / "closed"
    place.mkdir()
    (place / "melody.toml").write_text("[melody]\n")
    (place / "melody").write_text("[melody]\n")
    place.chmod(0o700 if os.getuid() == 0 else 0)
    for folder in tmp_path.parents:
        if os.getuid() == 0 and folder != folder.parent and str(folder).startswith("/tmp/pytest-"):
            folder.chmod(0o755)
    tmp_path.chmod(0o755)
    yield place
    place.chmod(0o700)


@pytest.mark.parametrize(
    ("name", "words"), [("melody.toml", "Permission denied"), ("melody", "a melody ends in .toml")]
)
def test_a_melody_that_may_not_be_read(closed, name, words):
    code, told = without_rights("melody", "check", closed / name)
    assert code == 2 and words in told and str(closed / name) in told


@pytest.mark.parametrize("words", [["status"], ["clean"], ["run", "ls"]])
def test_a_runtime_folder_that_cannot_be_reached(closed, monkeypatch, words):
    monkeypatch.setenv("SYMPHONY_RUNTIME_DIR", str(closed / "run"))
    code, told = without_rights(*words)
    assert code in (1, 3) and "cannot be reached: Permission denied; set SYMPHONY_RUNTIME_DIR" in told


@pytest.mark.parametrize("words", [["--help"], ["status"], ["-o", "json", "run", "ls"], ["melody", "ls"]])
def test_a_full_disk_under_stdout(stage, words):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command(*words), stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "symphonyctl: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("closing", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stdout_or_stderr(stage, closing):
    line = " ".join(map(str, [*command("status"), closing]))
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr


def play(melody, *words, **more):
    line = command("play", "-q", melody, "-i", "path=/", *words)
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False, **more)


@pytest.fixture
def done(stage):
    stage.on_play = lambda conductor, serial: conductor.finish(serial, {})
    return stage


def test_a_record_on_a_full_disk_makes_the_exit_code_1(done, melody):
    played = play(melody, "--record", "/dev/full")
    assert played.returncode == 1 and "the record was not written to /dev/full" in played.stderr


def test_a_record_takes_the_old_ones_place_whole(done, melody, tmp_path):
    record = tmp_path / "record"
    record.write_text("an earlier one")
    assert play(melody, "--record", record).returncode == 0
    assert json.loads(record.read_text().splitlines()[0])["step"]
    assert os.listdir(tmp_path) == ["record"] or sorted(os.listdir(tmp_path)) == sorted(["record", melody.name])


def test_a_record_goes_where_a_link_points(done, melody, tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "record")
    assert play(melody, "--record", tmp_path / "link").returncode == 0
    assert (tmp_path / "link").is_symlink() and json.loads((tmp_path / "record").read_text().splitlines()[0])


def test_a_record_may_go_into_a_pipe(done, melody):
    played = play(melody, "--record", "/dev/stdout")
    assert played.returncode == 0 and json.loads(played.stdout.splitlines()[0])["step"]


def test_a_play_that_fails_leaves_no_empty_record(done, melody, tmp_path):
    done.on_play = lambda conductor, serial: (_ for _ in ()).throw(RuntimeError("no play today"))
    assert play(melody, "--record", tmp_path / "record").returncode != 0
    assert not (tmp_path / "record").exists()
