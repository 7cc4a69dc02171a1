"""What the operators offer to melodies. The first step that needs NumPy imports it: most players only cut text."""

from __future__ import annotations

from typing import Any

from symphony.extension import Extension, context

from . import chunking, working

app = Extension()


@app.handler("chunk")
def chunk(
    file: str,
    *,
    root: str = "",
    size: int = chunking.SIZE,
    overlap: int = chunking.OVERLAP,
    limit_bytes: int = chunking.LIMIT_BYTES,
    missing: str = "error",
) -> list[str]:
    """Passages of a text file: texts whose first line is FILE:FIRST-LAST."""
    return chunking.chunk_file(file, root, size, overlap, limit_bytes, missing)


@app.handler("chunk_text")
def chunk_text(
    text: str, *, name: str = "text", size: int = chunking.SIZE, overlap: int = chunking.OVERLAP
) -> list[str]:
    """Passages of a text that is at hand, under the name `name`."""
    return [chunking.passage(name, piece) for piece in chunking.cut(text, size, overlap)]


@app.handler("index")
def index(vectors: Any, *, passages: Any = ()) -> list:
    """An index over batches of vectors: [matrix, first row of each group of passages]."""
    from .searching import build_index

    return build_index(vectors, passages)


@app.handler("search")
def search(index: Any, passages: Any, question: Any, *, top: int = 5) -> dict:
    """{"passages": the `top` passages nearest to the question's vector, "summary": what was searched}."""
    from .searching import search_index

    return search_index(index, passages, question, top)


@app.handler("statistics")
def statistics(values: Any) -> dict:
    """Count, mean, deviation and quartiles of numbers, or of the lengths of texts."""
    from .describing import describe

    return describe(values)


@app.handler("work")
def work(task: str, *, inputs: Any = (), seconds: float = 0.0, sizes: Any = (working.WORK_BYTES,)) -> list[bytes]:
    """A recorded workflow's task: computes for `seconds`, gives one bytes item for each size."""
    return working.work(task, inputs, seconds, sizes, context.check)


@app.handler("noop")
def noop(data: Any = bytes(64)) -> Any:
    """Gives back what it got: the smallest step, to measure the engine by."""
    return data


app.run()
