"""The embedding model is read right, knows related from unrelated, and says how to get it if it is missing."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from symphony.aide.instruments import embedding
from symphony.aide.instruments.embedding import ModelDamaged, ModelMissing, embed_texts, read_tensor

needs_model = pytest.mark.skipif(
    importlib.util.find_spec("wordllama") is None or importlib.util.find_spec("tokenizers") is None,
    reason="the embedding model is not installed: make model",
)


@needs_model
def test_vectors_have_one_form():
    vectors = embed_texts(["a ring in shared memory", "", "größe 你好 \N{SNOWMAN}", "x" * 5000])
    assert vectors.shape == (4, 256) and vectors.dtype == np.float32 and vectors.flags.c_contiguous
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [1, 0, 1, 1], atol=1e-6)
    assert embed_texts([]).shape == (0, 256)
    assert np.array_equal(embed_texts("a ring in shared memory"), vectors[:1])


@needs_model
def test_a_text_has_the_same_vector_in_any_batch():
    texts = [
        f"text number {number} about {'rings' if number % 2 else 'gardens'}" * (number % 7) for number in range(600)
    ]
    whole = embed_texts(texts)
    parts = np.concatenate([embed_texts(texts[at : at + 64]) for at in range(0, 600, 64)])
    np.testing.assert_allclose(whole, parts, atol=1e-6)


@needs_model
def test_is_the_mean_of_the_token_vectors():
    from tokenizers import Tokenizer

    folder = embedding.model_folder()
    text = "the dough rises in a warm kitchen"
    ids = Tokenizer.from_file(str(folder / embedding.TOKENIZER)).encode(text, add_special_tokens=False).ids
    raw = (folder / embedding.WEIGHTS).read_bytes()
    start = 8 + int.from_bytes(raw[:8], "little")
    table = np.frombuffer(raw[start:], np.float16).reshape(-1, 256).astype(np.float64)
    mean = table[ids].mean(axis=0)
    np.testing.assert_allclose(embed_texts(text)[0], mean / np.linalg.norm(mean), atol=1e-5)


@needs_model
@pytest.mark.parametrize(
    ("question", "related", "unrelated"),
    [
        (
            "how do I bake bread?",
            "Mix flour, water and yeast, and put the dough into the oven.",
            "The king signed the treaty.",
        ),
        ("kill a process", "send SIGTERM, then SIGKILL to the child's pid", "the painting hangs in a museum in Paris"),
        (
            "parse command line arguments",
            "parser = argparse.ArgumentParser()",
            "import socket; socket.create_connection()",
        ),
    ],
)
def test_related_texts_are_nearer_than_unrelated_ones(question, related, unrelated):
    asked, near, far = embed_texts([question, related, unrelated])
    assert asked @ near > asked @ far + 0.05


@needs_model
def test_neither_the_package_nor_a_thread_pool_is_brought_in():
    told = subprocess.run(
        [sys.executable, "-c", "import sys, os; from symphony.aide.instruments.embedding import embed_texts\n"
         "embed_texts(['a', 'b'] * 50)\n"
         "print([name for name in ('wordllama', 'huggingface_hub', 'numba', 'safetensors') if name in sys.modules])\n"
         "print(len(os.listdir('/proc/self/task')))"],
        capture_output=True, text=True, check=True, cwd=Path(embedding.__file__).parents[3],
        env={"PATH": "", "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    assert told.stdout.split("\n")[:2] == ["[]", "1"]


def test_something_that_is_not_text_is_refused():
    with pytest.raises(TypeError, match="item 1 of texts is bytes, not text"):
        embed_texts(["a", b"b"])


def test_a_missing_package_names_the_command(monkeypatch):
    monkeypatch.setattr(embedding, "PACKAGE", "wordllama_that_is_not_there")
    with pytest.raises(ModelMissing, match="not installed: run python -m pip install"):
        embedding.model_folder()


def test_the_command_named_is_the_one_that_the_script_runs():
    script = (Path(__file__).parents[2] / "tools" / "fetch_model.sh").read_text()
    for package in ("wordllama", "tokenizers"):
        version = re.search(rf"{package}==(\S+)", embedding.FETCH)[1]
        assert f"\n{package}={version}\n" in script


def test_a_package_without_the_files_names_them(monkeypatch):
    monkeypatch.setattr(embedding, "PACKAGE", "json")
    with pytest.raises(ModelMissing, match=r"l2_supercat_256\.safetensors is missing"):
        embedding.model_folder()


def safetensors(header: object, data: bytes) -> bytes:
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def test_reads_a_tensor_without_copying_it(tmp_path):
    file = tmp_path / "w.safetensors"
    values = np.arange(6, dtype=np.float32).reshape(2, 3)
    about = {
        "a": {"dtype": "F16", "shape": [1], "data_offsets": [0, 2]},
        "w": {"dtype": "F32", "shape": [2, 3], "data_offsets": [2, 26]},
    }
    file.write_bytes(safetensors(about, b"\0\0" + values.tobytes()))
    tensor = read_tensor(file, "w")
    assert np.array_equal(tensor, values) and not tensor.flags.writeable and not tensor.flags.owndata


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\1",
        (1 << 40).to_bytes(8, "little") + b"{}",
        safetensors({}, b""),
        safetensors([], b""),
        safetensors({"w": {"dtype": "I4", "shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}, bytes(4)),
        safetensors({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, bytes(4)),
        safetensors({"w": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}, bytes(4)),
        safetensors({"w": {"dtype": "F32", "shape": [1], "data_offsets": ["0", 4]}}, bytes(4)),
    ],
)
def test_damaged_weights_are_refused(tmp_path, raw):
    file = tmp_path / "w.safetensors"
    file.write_bytes(raw)
    with pytest.raises(ModelDamaged, match=r"w\.safetensors"):
        read_tensor(file, "w")
