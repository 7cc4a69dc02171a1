"""A melody written in Python: the same tables as in TOML, put together by calls, and the same score."""

from collections.abc import Mapping, Sequence
from typing import Any

from symphony.melody.compile import Catalogue, compile_document
from symphony.model.errors import MelodyError
from symphony.model.score import Score

_REQUIRED = object()


class Melody:
    """Collects inputs, steps and outputs; every call returns the melody itself. Not for several threads at once.

    Melody("count").input("path", "path").step("walk", "explorer.walk", path="{path}").output("files", "walk.files")
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._inputs: dict[str, Any] = {}
        self._steps: dict[str, dict[str, Any]] = {}
        self._outputs: dict[str, str] = {}

    def input(self, name: str, type: str = "text", *, default: Any = _REQUIRED) -> "Melody":
        """Declare a run input; with a default it need not be given. Raises MelodyError if it is declared already."""
        _once("input", name, self._inputs)
        self._inputs[name] = type if default is _REQUIRED else {"type": type, "default": default}
        return self

    def step(
        self,
        name: str,
        use: str,
        *,
        with_: Mapping[str, Any] | None = None,
        each: str | None = None,
        batch: int | None = None,
        after: Sequence[str] = (),
        retries: int | None = None,
        backoff: str | float | None = None,
        timeout: str | float | None = None,
        once: bool | None = None,
        estimate: str | float | None = None,
        need: Mapping[str, int] | None = None,
        model: str | None = None,
        **arguments: Any,
    ) -> "Melody":
        """Add a step that calls handler `use`. The handler's arguments are keywords, or stand in `with_` where their
        names are taken here. Raises MelodyError for a name that stands twice; everything else is checked by `score`.
        """
        _once("step", name, self._steps)
        given = {
            "use": use, "with": {**(with_ or {}), **arguments} or None, "each": each, "batch": batch,
            "after": list(after) or None, "retries": retries, "backoff": backoff, "timeout": timeout, "once": once,
            "estimate": estimate, "need": dict(need) if need else None, "model": model,
        }  # fmt: skip
        self._steps[name] = {key: value for key, value in given.items() if value is not None}
        return self

    def output(self, name: str, source: str) -> "Melody":
        """Declare a run output: `source` names a step, or one of its outputs ("search.passages")."""
        _once("output", name, self._outputs)
        self._outputs[name] = source
        return self

    def document(self) -> dict[str, Any]:
        """The melody as nested dicts, as `tomllib` would give them."""
        melody = {"name": self.name, "inputs": dict(self._inputs), "outputs": dict(self._outputs)}
        return {"melody": melody, "steps": {name: dict(step) for name, step in self._steps.items()}}

    def score(self, catalogue: Catalogue | None = None, *, file: str | None = None) -> Score:
        """The score; raises the MelodyError of the first mistake, which holds all of them in `errors`."""
        return compile_document(self.document(), file=file, catalogue=catalogue)


def _once(what: str, name: str, table: Mapping[str, Any]) -> None:
    if name in table:
        raise MelodyError(f"{what} {name!r} stands twice")
