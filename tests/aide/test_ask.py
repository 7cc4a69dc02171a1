"""The melody `ask` as one process: the peer program finds what stands in the tree, with the right lines."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from symphony.aide.explorer import extension as explorer
from symphony.aide.instruments import extension as instruments
from symphony.aide.operators import extension as operators
from symphony.model import value

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "perf" / "one_process.py"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("wordllama") is None or importlib.util.find_spec("tokenizers") is None,
    reason="the embedding model is not installed: make model",
)

TREE = {
    "bread.md": "# Baking bread\n\nMix flour, water, salt and yeast. Let the dough rise and bake it in the oven.\n",
    "net/server.py": '"""Sockets."""\n\n\ndef serve(port):\n    """Accept connections of clients."""\n    go(port)\n',
    "history.txt": "The king signed the treaty after the war, and the armies went home.\n",
    "picture.png": b"\x89PNG\0\0\0\0",
    ".gitignore": "secret.txt\n",
    "secret.txt": "Mix flour and water and bake bread in the oven.\n",
}


def run(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, PROGRAM, *words], capture_output=True, text=True, check=True, env=environment
    )


def play(*words: str) -> dict:
    return json.loads(run("--json", *words).stdout)


@pytest.mark.parametrize(
    ("question", "place"),
    [
        ("how do I bake a loaf of bread?", ("bread.md", 1, 3)),
        ("accept a network connection from a client", ("net/server.py", 1, 6)),
        ("what did the king do at the end of the war?", ("history.txt", 1, 1)),
    ],
)
def test_finds_the_passage(tree, question, place):
    root = tree(TREE)
    result = play(str(root), question, "--top", "2")
    assert len(result["passages"]) == 2
    best = result["passages"][0]
    assert (best["file"], best["first_line"], best["last_line"]) == place
    lines = (root / best["file"]).read_text().split("\n")
    assert best["text"] == "\n".join(lines[best["first_line"] - 1 : best["last_line"]])
    assert result["walked"]["skipped"] == {"binary": 1, "ignored": 1}
    assert result["searched"]["passages"] == 4
    assert set(result["stages_s"]) == {"walk", "chunk", "embed", "query", "index", "search"}


def test_an_empty_folder_has_no_passages(tree):
    result = play(str(tree({})), "anything")
    assert result["passages"] == [] and result["walked"]["files"] == 0


def test_people_can_read_it(tree):
    told = run(str(tree(TREE)), "bake bread")
    assert told.stdout.startswith("1. bread.md:1-3  score 0.")
    assert "4 files, 4 passages; skipped: {'binary': 1, 'ignored': 1}" in told.stderr


def travelled(result: object, kind: str | None = None) -> object:
    """A result as the next step gets it: encoded, and decoded as views."""
    encoded = value.encode(result, kind=kind)
    return value.decode(encoded.kind, memoryview(value.payload_of(encoded)))


def test_every_stage_takes_what_the_one_before_gave_as_it_travels(tree):
    root = tree({**TREE, "empty.txt": ""})
    walked = explorer.walk(str(root))
    files = travelled(walked["files"], "list")
    assert travelled(walked["summary"], "data") == walked["summary"]
    groups = [travelled(operators.chunk(file, root=str(root)), "list") for file in files]
    assert [len(group) for group in groups] == [1, 1, 0, 1, 1]
    texts = value.ListView(value.payload_of(value.encode([text for group in groups for text in group])))
    batches = [travelled(instruments.embed(texts[at : at + 3]), "array") for at in (0, 3)]
    index = travelled(operators.index(batches, passages=groups), "list")
    assert all(not part.flags.writeable for part in index)
    query = travelled(instruments.embed("how do I bake a loaf of bread?"), "array")
    found = operators.search(index, groups, query, top=2)
    passages = travelled(found["passages"], "data")
    assert passages == found["passages"] and passages[0]["file"] == "bread.md"
    assert travelled(found["summary"], "data") == {"passages": 4, "groups": 5, "groups_empty": 1, "width": 256}


def test_nothing_found_travels_too(tree):
    walked = explorer.walk(str(tree({})))
    assert len(travelled(walked["files"], "list")) == 0
    index = travelled(operators.index([], passages=[]), "list")
    found = operators.search(index, [], instruments.embed("anything"))
    assert travelled(found["passages"], "data") == []
