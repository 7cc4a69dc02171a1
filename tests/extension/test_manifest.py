"""Manifests are read without running anything, and mistakes are named where they stand."""

import sys

import pytest

from symphony.extension.discovery import discover
from symphony.extension.manifest import catalogue, locate, parse, read_manifest
from symphony.model.errors import ManifestError

GOOD = """
[extension]
id = "good"
name = "Good"
version = "1.2"
kind = "instrument"
entry = "good.py"
window = 16
instances = { min = 1, max = 4 }
models = ["speaker"]

[handlers.say]
about = "Says it."
inputs = { text = "text", loud = { type = "bool", default = false } }
outputs = { sound = "array", words = "list[text]" }

[handlers.hush]

[resources]
memory_bytes = 1048576

[environment]
QUIET = "1"
"""


def test_a_good_manifest_is_read_whole():
    manifest = parse(GOOD, "/somewhere/extension.toml")
    assert (manifest.id, manifest.kind, manifest.window, manifest.instances_max) == ("good", "instrument", 16, 4)
    assert manifest.directory == "/somewhere" and manifest.models == ("speaker",)
    say = manifest.handlers["say"]
    assert say.inputs["text"].required and not say.inputs["loud"].required and say.inputs["loud"].default is False
    assert say.outputs == {"sound": "array", "words": "list[text]"}
    assert manifest.handlers["hush"].outputs == {"": "any"}
    assert manifest.environment == {"QUIET": "1"} and manifest.resources == {"memory_bytes": 1048576}


@pytest.mark.parametrize(
    ("old", "new", "line", "column", "nearest", "text"),
    [
        ("window = 16", "windw = 16", 8, 1, "window", "unknown key 'windw' in [extension]"),
        ('kind = "instrument"', 'kind = "instrumnt"', 6, 1, "instrument", "kind cannot be 'instrumnt'"),
        ('entry = "good.py"', "", 2, 2, None, "no 'entry'"),
        ("[handlers.hush]", "[handlers.hush]\noutptu = 3", 18, 1, "output", "unknown key 'outptu' in [handlers.hush]"),
        ('{ type = "bool", default', '{ type = "bool", defalt', 14, 51, "default", "unknown key 'defalt'"),
        ('text = "text"', 'text = "txt"', 14, 12, "text", "text cannot be 'txt'"),
        ('words = "list[text]"', 'words = "list[txt]"', 15, 30, "text", "words cannot be 'txt'"),
        ("max = 4", "max = 0", 9, 24, None, "max has to be a whole number from 1"),
        ('id = "good"', 'id = "No Good"', 3, 1, None, "id cannot be 'No Good'"),
        ("[resources]", "[resurces]", 19, 2, "resources", "unknown key 'resurces'"),
        ("window = 16", "window = = 16", 8, 10, None, "Invalid value"),
    ],
)
def test_a_mistake_is_named_where_it_stands(old, new, line, column, nearest, text):
    assert old in GOOD
    with pytest.raises(ManifestError) as caught:
        parse(GOOD.replace(old, new), "x/extension.toml")
    facts = caught.value.facts
    assert text in str(caught.value)
    assert (facts["line"], facts["column"], facts["nearest"]) == (line, column, nearest)
    assert str(caught.value).startswith(f"x/extension.toml:{line}:{column}: ")


def test_all_mistakes_are_collected():
    with pytest.raises(ManifestError) as caught:
        parse("[extension]\nid = 3\nentyr = 'x'\n[handlers.a]\noutput = 'nothing'\n")
    assert len(caught.value.facts["errors"]) >= 3


def test_places_inside_inline_tables():
    text = "a = 1\n[b.c]\nd = { e = { f = 1 } }\n"
    assert locate(text, ("b", "c", "d", "e", "f")) == (3, 13)
    assert locate(text, ("b", "c", "missing")) == (2, 2)


def test_no_manifest(tmp_path):
    with pytest.raises(ManifestError, match=r"there is no extension\.toml"):
        read_manifest(str(tmp_path))


def test_discovery_reads_folders_and_what_ships(tmp_path, monkeypatch):
    for name in ("one", "two", "broken"):
        (tmp_path / name).mkdir()
        text = f"[extension]\nid = '{name}'\nentry = 'never.py'\n" if name != "broken" else "["
        (tmp_path / name / "extension.toml").write_text(text)
        (tmp_path / name / "never.py").write_text("raise AssertionError('imported')")
    monkeypatch.setenv("SYMPHONY_EXTENSION_PATH", str(tmp_path))
    mistakes = []
    before = set(sys.modules)
    found = discover(mistakes=mistakes)
    assert {"one", "two", "explorer", "operators", "instruments"} <= set(found)
    assert len(mistakes) == 1 and "broken" in str(mistakes[0])
    with pytest.raises(ManifestError):
        discover()
    assert not {name for name in set(sys.modules) - before if name.startswith("symphony.aide")}
    assert catalogue()["explorer"]["handlers"]["walk"]["inputs"]["path"] == "path"


def test_the_first_of_an_id_wins(tmp_path):
    (tmp_path / "extension.toml").write_text("[extension]\nid = 'explorer'\nentry = 'mine.py'\n")
    assert discover([str(tmp_path)])["explorer"].entry == "mine.py"


def test_an_installed_package_is_found_without_an_import(tmp_path, monkeypatch):
    package = tmp_path / "loud_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "extension.toml").write_text("[extension]\nid = 'loud'\nentry = 'loud_package.handlers'\n")
    info = tmp_path / "loud_package-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: loud-package\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[symphony.extensions]\nloud = loud_package\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert discover()["loud"].directory == str(package)
