"""What the instruments offer to melodies."""

from __future__ import annotations

from typing import Any

from symphony.extension import Extension

from .embedding import embed_texts

app = Extension()


@app.handler("embed")
def embed(texts: Any) -> Any:
    """Unit vectors of one text or a list of texts: float32 (n, 256)."""
    return embed_texts(texts)


app.run()
