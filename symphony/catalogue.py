"""What can be named in a melody: the handlers of every extension that is found, in the form that melodies are checked
against. Manifests are read, nothing is imported.
"""

from collections.abc import Mapping
from typing import Any

from symphony.extension.discovery import discover
from symphony.extension.manifest import HandlerSpec, Manifest
from symphony.model.errors import ManifestError


def catalogue(mistakes: list[ManifestError] | None = None) -> dict[str, Any]:
    """{extension id: {"handlers": {name: {"inputs": …, "outputs": …}}}} of all extensions that are found.

    An extension whose manifest is wrong is left out; its error is added to `mistakes` when given.
    """
    return of_manifests(discover(mistakes=[] if mistakes is None else mistakes))


def of_manifests(manifests: Mapping[str, Manifest]) -> dict[str, Any]:
    """The same of manifests that were read already."""
    return {
        name: {"handlers": {key: _handler(handler) for key, handler in manifest.handlers.items()}}
        for name, manifest in manifests.items()
    }


def _handler(handler: HandlerSpec) -> dict[str, Any]:
    inputs = {
        name: port.type if port.required else {"type": port.type, "default": port.default}
        for name, port in handler.inputs.items()
    }
    return {"inputs": inputs, "outputs": dict(handler.outputs)}
