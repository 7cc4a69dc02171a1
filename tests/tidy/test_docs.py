"""What the documents say is held against the code: keys, verbs, examples, links, the page of the memory ABI."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from symphony.cli import main as cli
from symphony.extension.manifest import catalogue, parse
from symphony.extension.testing import Rehearsal
from symphony.melody.builder import Melody
from symphony.melody.compile import _INPUT_KEYS, _MELODY_KEYS, _STEP_KEYS, compile_document
from symphony.melody.parse import parse_toml

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("*/*.md"), *ROOT.glob("symphony/**/*.md"))
    if ".venv" not in path.parts and not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
ROOMS = ("pool", "dag", "artifact", "arbiter", "stale")
HEADINGS = ["Purpose", "Drawing", "Invariants", "Writers", "Limits", "When not to use"]


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name, language):
    return re.findall(rf"```{language}\n(.*?)```", read(name), re.S)


def test_the_reference_page_is_what_the_listing_says():
    subprocess.run([sys.executable, ROOT / "tools" / "gen_abi_page.py", "--check"], check=True, timeout=60)


def test_every_key_of_a_melody_is_explained():
    text = read("docs/melodies.md")
    assert not [key for key in (*_MELODY_KEYS, *_STEP_KEYS, *_INPUT_KEYS) if f"`{key}`" not in text]


def test_the_melody_of_the_page_compiles_and_its_python_form_plays_the_same_steps():
    (toml,) = blocks("docs/melodies.md", "toml")
    score = parse_toml(toml, file="words.toml", catalogue=catalogue())
    names = {}
    exec(blocks("docs/melodies.md", "python")[0], names)
    built = next(value for value in names.values() if isinstance(value, Melody)).score(catalogue())
    assert [step.name for step in built.steps] == [step.name for step in score.steps]


def test_the_extension_of_the_page_runs(tmp_path):
    (manifest,) = blocks("docs/writing-extensions.md", "toml")
    code, rehearsed = blocks("docs/writing-extensions.md", "python")
    assert parse(manifest).id == "words"
    (tmp_path / "extension.toml").write_text(manifest)
    (tmp_path / "words.py").write_text(code)
    exec(rehearsed.replace('"path/to/words"', repr(str(tmp_path))), {})
    with Rehearsal(str(tmp_path)) as rehearsal:
        assert rehearsal.call("split", text="a b") == {"words": ["a", "b"], "count": 2}


def test_every_verb_is_in_the_table():
    text = read("docs/cli.md")
    groups = {
        "run": cli.RUN_VERBS,
        "melody": cli.MELODY_VERBS,
        "extension": cli.EXTENSION_VERBS,
        "shm": cli.SHM_VERBS,
    }
    verbs = [f"`{name}" for name in cli.VERBS if name not in groups]
    verbs += [f"`{group} {name}" for group, names in groups.items() for name in names]
    assert not [verb for verb in verbs if verb not in text]


def test_the_first_page_names_targets_that_exist():
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    named = set(re.findall(r"\bmake ([a-z-]+)", read("README.md") + read("CONTRIBUTING.md")))
    assert named and named <= targets
    for toml in blocks("README.md", "toml"):
        compile_document(tomllib.loads(toml), catalogue=catalogue())


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_promises(room):
    text = read(f"symphony/pit/{room}/README.md")
    assert re.findall(r"^## (.*)$", text, re.M) == HEADINGS
    numbers = [int(number) for number in re.findall(r"^- \*\*I(\d+)\*\*", text, re.M)]
    assert numbers == list(range(1, len(numbers) + 1)) and numbers


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_page_points_at_exists(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    links = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    assert not [target for target in links if target and not (path.parent / target).exists()]
    prefix = r"(?:shm|csrc|docs|tools|perf|tests|symphony)/"
    named = re.findall(rf"`({prefix}[\w./-]+\.(?:py|h|c|txt|md|sh|toml))`", text)
    assert not [name for name in named if not (ROOT / name).exists() and not (path.parent / name).exists()]
