"""Which extensions there are. Only their manifests are read: nothing is imported, nothing is run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from symphony.extension.manifest import FILE, Manifest, read_manifest
from symphony.model.errors import ManifestError

GROUP = "symphony.extensions"
PATH = "SYMPHONY_EXTENSION_PATH"


def discover(folders: Iterable[str] = (), *, mistakes: list[ManifestError] | None = None) -> dict[str, Manifest]:
    """Every extension by its id. Looked for in `folders`, then in SYMPHONY_EXTENSION_PATH, then in installed packages
    (entry points), then among those that ship; the first of an id wins, so that one's own replaces a shipped one.

    A manifest with mistakes raises ManifestError, or is left out and collected if `mistakes` is given.
    """
    found: dict[str, Manifest] = {}
    for folder in _folders(folders):
        try:
            manifest = read_manifest(folder)
        except ManifestError as error:
            if mistakes is None:
                raise
            mistakes.append(error)
            continue
        found.setdefault(manifest.id, manifest)
    return found


def _folders(given: Iterable[str]) -> Iterator[str]:
    named = [*given, *filter(None, os.environ.get(PATH, "").split(os.pathsep))]
    for place in named:
        yield from _in(place)
    yield from _installed()
    yield from _in(os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "aide"))


def _in(place: str) -> Iterator[str]:
    """The folder itself if it is an extension, else those in it that are."""
    if os.path.isfile(os.path.join(place, FILE)):
        yield place
        return
    try:
        names = sorted(os.listdir(place))
    except OSError:
        return
    for name in names:
        if os.path.isfile(os.path.join(place, name, FILE)):
            yield os.path.join(place, name)


def _installed() -> Iterator[str]:
    from importlib import metadata

    for entry in metadata.entry_points(group=GROUP):
        folder = _package_folder(entry)
        if folder is not None:
            yield folder


def _package_folder(entry) -> str | None:
    """Where an entry point's package lies, found without importing it: by its distribution's files, or for an editable
    install by the search for its top-level package."""
    parts = entry.value.split(":")[0].split(".")
    places = []
    if entry.dist is not None:
        places.append(str(entry.dist.locate_file("/".join(parts))))
    from importlib.util import find_spec

    try:
        spec = find_spec(parts[0])
    except (ImportError, ValueError):
        spec = None
    for root in (spec.submodule_search_locations or ()) if spec is not None else ():
        places.append(os.path.join(root, *parts[1:]))
    return next((place for place in places if os.path.isfile(os.path.join(place, FILE))), None)
