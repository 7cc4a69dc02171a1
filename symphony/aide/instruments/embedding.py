"""A small embedding model, read where its package put it: WordLlama's token vectors, averaged over a text.

The package is never imported and its own dependencies are not needed: its weights are one safetensors file, mapped and
read here; `tokenizers` cuts the text. Nothing is fetched at run time.
"""

from __future__ import annotations

import importlib.util
import json
import math
import mmap
import os
import threading
from collections.abc import Sequence
from functools import cache
from operator import index as as_index
from pathlib import Path
from typing import Any

# The library's own threads would compete with the other players for the cores.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import numpy as np

PACKAGE = "wordllama"
WEIGHTS = "weights/l2_supercat_256.safetensors"
TOKENIZER = "tokenizers/l2_supercat_tokenizer_config.json"
TENSOR = "embedding.weight"
WIDTH = 256
FETCH = "python -m pip install --no-deps wordllama==0.4.0.post1 tokenizers==0.23.3 (in a clone: make model)"
HEADER_LIMIT_BYTES = 1 << 20
BATCH = 256  # texts whose tokens are held at once

_DTYPES = {"F16": np.float16, "F32": np.float32}
_loading = threading.Lock()


class ModelMissing(RuntimeError):
    """The model's package, or a file of it, is not installed. The message names the command that fetches it."""


class ModelDamaged(RuntimeError):
    """The weights are not what they should be. The message names the file."""


def model_folder() -> Path:
    """The folder of the model's package, found without importing it. Raises `ModelMissing`."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise ModelMissing(f"embed: the package {PACKAGE}, which holds the weights, is not installed: run {FETCH}")
    folder = Path(next(iter(found.submodule_search_locations)))
    for name in (WEIGHTS, TOKENIZER):
        if not (folder / name).is_file():
            raise ModelMissing(f"embed: {folder / name} is missing (another version of {PACKAGE}?): run {FETCH}")
    return folder


def read_tensor(file: Path, name: str) -> np.ndarray:
    """The tensor `name` of a safetensors file, as a read-only array over the mapped file. Raises `ModelDamaged`.

    Format: u64 length of the header, header in JSON {name: {dtype, shape, data_offsets [begin, end)}}, data.
    """
    with open(file, "rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        length = int.from_bytes(opened.read(8), "little")
        if not 2 <= length <= min(HEADER_LIMIT_BYTES, size - 8):
            raise ModelDamaged(
                f"embed: {file} says its header has {length} bytes: not a safetensors file, or cut short"
            )
        dtype, shape, begin = _tensor(file, opened.read(length), name, size - 8 - length)
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    return np.ndarray(shape, dtype, mapped, 8 + length + begin)


def _tensor(file: Path, header: bytes, name: str, data_bytes: int) -> tuple[np.dtype, tuple[int, ...], int]:
    """dtype, shape and first byte of a tensor, bounded by the data that the file holds."""
    try:
        about = json.loads(header)[name]
        dtype = np.dtype(_DTYPES[about["dtype"]])
        shape = tuple(as_index(length) for length in about["shape"])
        begin, end = (as_index(offset) for offset in about["data_offsets"])
    except (ValueError, KeyError, TypeError) as error:
        raise ModelDamaged(f"embed: {file} holds no readable tensor {name}: {error!r}") from None
    if min((0, *shape)) < 0 or not 0 <= begin <= end <= data_bytes or end - begin != dtype.itemsize * math.prod(shape):
        raise ModelDamaged(
            f"embed: tensor {name} of {file} lies outside of the file or has another size than its shape"
        )
    return dtype, shape, begin


class Model:
    """Token vectors and their tokenizer. Nothing in it changes after loading: any thread may call `embed`."""

    def __init__(self, folder: Path) -> None:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ModelMissing(f"embed: the package tokenizers cannot be imported ({error}): run {FETCH}") from None
        weights = read_tensor(folder / WEIGHTS, TENSOR)
        if weights.ndim != 2 or weights.shape[1] != WIDTH:
            raise ModelDamaged(
                f"embed: tensor {TENSOR} of {folder / WEIGHTS} has shape {weights.shape}, expected (n, {WIDTH})"
            )
        # Private, 4 bytes a number: a sum over half precision would convert each row at each use.
        self.weights = weights.astype(np.float32)
        self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """One unit vector a text: float32 (len(texts), 256), C order, owned by the caller.

        The mean of the text's token vectors, L2-normalised. A text without tokens has the zero vector.
        Cost: about 0.2 ms for 800 characters, nearly all of it in the tokenizer.
        """
        vectors = np.zeros((len(texts), WIDTH), dtype=np.float32)
        for first in range(0, len(texts), BATCH):
            encoded = self.tokenizer.encode_batch_fast(list(texts[first : first + BATCH]), add_special_tokens=False)
            for row, tokens in enumerate(encoded, start=first):
                if tokens.ids:
                    self._mean(tokens.ids, vectors[row])
        lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
        vectors /= np.where(lengths > 0, lengths, 1)[:, None]
        return vectors

    def _mean(self, ids: list[int], vector: np.ndarray) -> None:
        # A product with ones sums faster than sum(axis=0), and `clip` spares the check of each index.
        rows = self.weights.take(np.array(ids, dtype=np.int64), axis=0, mode="clip")
        np.matmul(np.full(len(ids), 1 / len(ids), dtype=np.float32), rows, out=vector)


@cache
def _load() -> Model:
    return Model(model_folder())


def model() -> Model:
    """The process's one model, loaded at first use: 0.2 s, 32 MiB private. Raises `ModelMissing`, `ModelDamaged`."""
    with _loading:
        return _load()


def embed_texts(texts: Any) -> np.ndarray:
    """Vectors of one text or a sequence of texts: float32 (n, 256), rows of length 1, one text giving one row.

    Raises `TypeError` if something in it is not text, and what `model` raises.
    """
    listed = [texts] if isinstance(texts, str) else list(texts)
    for number, text in enumerate(listed):
        if not isinstance(text, str):
            raise TypeError(f"embed: item {number} of texts is {type(text).__name__}, not text")
    return model().embed(listed)
