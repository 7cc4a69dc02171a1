"""What the File Explorer offers to melodies."""

from __future__ import annotations

from collections.abc import Sequence

from symphony.extension import Extension

from .reading import LIMIT_BYTES, read_text
from .walking import walk as walk_folder

app = Extension()


@app.handler("walk")
def walk(path: str, *, include: Sequence[str] = (), limit_bytes: int = LIMIT_BYTES) -> dict:
    """{"files": absolute paths of the text files under `path`, "summary": what was found and skipped}."""
    return walk_folder(path, include, limit_bytes)


@app.handler("read")
def read(file: str, *, limit_bytes: int = LIMIT_BYTES) -> dict:
    """{"text": the file's text, "summary": its size, and how many characters stand for bytes that were not UTF-8}."""
    text, summary = read_text(file, limit_bytes)
    return {"text": text, "summary": summary}


app.run()
