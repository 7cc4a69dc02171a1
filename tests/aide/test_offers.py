"""Manifests say what the handlers are: names, arguments, defaults, outputs; and `ask` asks for nothing else."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import symphony.aide
from symphony.extension.manifest import read_manifest

FOLDER = Path(symphony.aide.__file__).parent
EXTENSIONS = sorted(path.parent.name for path in FOLDER.glob("*/extension.toml"))


def manifest(name: str) -> dict:
    return tomllib.loads((FOLDER / name / "extension.toml").read_text())


def handlers(name: str) -> dict:
    return import_module(f"symphony.aide.{name}.extension").app.handlers


def test_all_are_here():
    assert EXTENSIONS == ["explorer", "instruments", "operators"]
    assert all(manifest(name)["extension"]["id"] == name for name in EXTENSIONS)


@pytest.mark.parametrize("name", EXTENSIONS)
def test_manifest_and_handlers_agree(name):
    declared, offered = manifest(name)["handlers"], handlers(name)
    assert set(declared) == set(offered)
    for handler, function in offered.items():
        taken = inspect.signature(function).parameters
        assert list(declared[handler]["inputs"]) == list(taken)
        for argument, kind in declared[handler]["inputs"].items():
            is_optional = isinstance(kind, dict) and "default" in kind
            assert is_optional == (taken[argument].default is not inspect.Parameter.empty), (handler, argument)
            if is_optional and kind["default"] not in ("", []):
                default = taken[argument].default
                assert kind["default"] == (list(default) if isinstance(default, tuple) else default)
        assert ("output" in declared[handler]) != ("outputs" in declared[handler])
        assert declared[handler]["about"].endswith(".")


@pytest.mark.parametrize("name", EXTENSIONS)
def test_imports_the_extension_kit_alone_of_the_project(name):
    for file in (FOLDER / name).glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [node.module]
            else:
                continue
            assert all(module == "symphony.extension" for module in modules if module.startswith("symphony")), file


@pytest.mark.parametrize("name", EXTENSIONS)
def test_the_manifest_has_no_mistakes(name):
    read = read_manifest(str(FOLDER / name))
    assert (read.id, set(read.handlers)) == (name, set(handlers(name)))
    assert read.instances_max > 1


def test_ask_fits_the_manifests():
    from symphony.melody.parse import load

    score = load(FOLDER / "melodies" / "ask.toml", catalogue={name: manifest(name) for name in EXTENSIONS})
    assert [step.use for step in score.steps] == [
        "explorer.walk",
        "operators.chunk",
        "instruments.embed",
        "instruments.embed",
        "operators.index",
        "operators.search",
    ]
    assert set(score.outputs) == {"passages", "searched", "walked"}


@pytest.mark.parametrize("name", ["explorer", "operators"])
def test_a_player_that_only_handles_text_needs_no_numpy(name):
    told = subprocess.run(
        [sys.executable, "-c", f"import sys, symphony.aide.{name}.extension; print('numpy' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=FOLDER.parents[1],
    )
    assert told.stdout == "False\n"
