"""`melody` and `extension`: what they say needs no engine."""

import json

import pytest

BAD = """[melody]
name = "bad"
inputs = { path = "path" }

[steps.walk]
use = "explorer.wolk"
with = { path = "{pat}" }

[steps.chunk]
use = "operators.chunk"
each = "walk.files"
with = { fil = "{item}" }
"""
GOOD = """[melody]
name = "good"
inputs = { path = "path", top = { type = "int", default = 3 } }
outputs = { files = "walk.files" }

[steps.walk]
use = "explorer.walk"
with = { path = "{path}" }

[steps.chunk]
use = "operators.chunk"
each = "walk.files"
with = { file = "{item}", size = "{top}" }
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_check_names_every_mistake_with_its_place_and_the_nearest_word(ctl, here, golden):
    (here / "bad.toml").write_text(BAD)
    result = ctl("melody", "check", "bad.toml")
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert any("bad.toml:6:" in line and "'walk'" in line for line in lines)
    assert any("bad.toml:7:" in line and "'path'" in line for line in lines)
    assert any("bad.toml:12:" in line and "'file'" in line for line in lines)
    golden("melody_check", ctl("-o", "json", "melody", "check", "bad.toml").stdout)


def test_check_of_a_right_one(ctl, here, golden):
    (here / "good.toml").write_text(GOOD)
    assert ctl("melody", "check", "good.toml").stdout == "good: 2 steps, in order\n"
    golden("melody_check_right", ctl("-o", "json", "melody", "check", "good.toml").stdout)


def test_a_cycle_is_told_with_its_path(ctl, here):
    steps = "".join(
        f'[steps.{a}]\nuse = "operators.noop"\nwith = {{ data = "{{{b}}}" }}\n' for a, b in ("xy", "yz", "zx")
    )
    (here / "cycle.toml").write_text('[melody]\nname = "cycle"\n' + steps)
    result = ctl("melody", "check", "cycle.toml")
    assert result.exit_code == 2 and "->" in result.stderr


def test_graph(ctl, here, golden):
    (here / "good.toml").write_text(GOOD)
    assert ctl("melody", "graph", "good.toml").stdout.splitlines()[0] == "good(path: path, top: int = 3)"
    golden("melody_graph", ctl("-o", "json", "melody", "graph", "good.toml").stdout)


def test_what_ships(ctl):
    melodies = {item["name"]: item for item in json.loads(ctl("-o", "json", "melody", "ls").stdout)["items"]}
    assert "ask" in melodies and "question: text" in melodies["ask"]["inputs"]
    extensions = {item["id"]: item for item in json.loads(ctl("-o", "json", "extension", "ls").stdout)["items"]}
    assert {"explorer", "operators", "instruments"} <= extensions.keys()
    assert "walk" in extensions["explorer"]["handlers"]
    assert "explorer.walk(path: path" in ctl("extension", "show", "explorer").stdout


def test_an_unknown_extension(ctl):
    result = ctl("extension", "show", "explorr")
    assert result.exit_code == 2 and "'explorer'" in result.stderr


def test_a_manifest_with_mistakes_is_told_and_the_others_are_there(ctl, here, monkeypatch):
    (here / "broken").mkdir()
    (here / "broken" / "extension.toml").write_text('[extension]\nid = "broken"\nnmae = "x"\n')
    monkeypatch.setenv("SYMPHONY_EXTENSION_PATH", str(here))
    result = ctl("-o", "jsonl", "extension", "ls")
    assert result.exit_code == 0 and "extension.toml:3" in result.stderr
    assert "explorer" in result.stdout and "broken" not in result.stdout
