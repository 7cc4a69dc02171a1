"""What an extension author imports. Light on purpose: a player must be ready in tens of milliseconds, so neither NumPy
nor numba nor any room of the Pit is imported here; NumPy comes with the first array.

    from symphony.extension import Extension, ArtifactView, cancelled, log, context

    app = Extension()

    @app.handler("summarize")
    def summarize(text: ArtifactView, *, sentences: int = 3) -> bytes: ...

    app.run()
"""

from symphony.extension.app import Cancelled, Extension, cancelled, context, log
from symphony.extension.views import ArtifactView, Items
from symphony.model.value import ErrorValue, ListView

__all__ = ["ArtifactView", "Cancelled", "ErrorValue", "Extension", "Items", "ListView", "cancelled", "context", "log"]
