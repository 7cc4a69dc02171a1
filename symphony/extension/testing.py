"""Run handlers in a test without an engine, through the same decoding and encoding that a player uses.

from symphony.extension.testing import Rehearsal

def test_summarize():
    with Rehearsal("path/to/the/folder") as rehearsal:
        assert rehearsal.call("summarize", text=b"One. Two. Three.", sentences=1) == b"One."
"""

from __future__ import annotations

import asyncio
from struct import Struct
from typing import Any

from symphony.extension import app as running
from symphony.extension.app import Extension
from symphony.extension.binding import bind
from symphony.extension.host import load_handlers
from symphony.extension.manifest import Manifest, read_manifest
from symphony.model import value
from symphony.model.errors import ExtensionError

_REF = Struct("<IHHQQII")
_JOB = Struct("<IIIHHQQQII")


class _Memory:
    """Stands for the channel: one granted segment with the arguments' payloads, and the log."""

    def __init__(self) -> None:
        self.bytes = bytearray(64)
        self.logged: list[tuple[int, str]] = []
        self.is_cancelled = False

    def put(self, item: Any) -> tuple[int, int, int]:
        """Kind, offset and size of an encoded argument."""
        encoded = value.encode(item)
        at = len(self.bytes)
        self.bytes += value.payload_of(encoded)
        self.bytes += bytes(-len(self.bytes) % 64)
        return encoded.kind, at, encoded.size

    def view(self, _segment: int, offset: int, size: int) -> memoryview:
        return memoryview(bytes(self.bytes))[offset : offset + size]

    def value(self, _refs: bytes, _index: int, _mode: int) -> Any:
        return NotImplemented

    def cancelled(self, _job: bytes) -> bool:
        return self.is_cancelled

    def log(self, _job: bytes | None, level: int, text: str) -> None:
        self.logged.append((level, text))


class Rehearsal:
    """The handlers of an extension, given by its folder (its manifest is read too) or as an `Extension`.

    `logged` collects (level, text) of what handlers log, `config` is what they find in `context.config`, `cancel()`
    makes `cancelled()` true. Not for several threads at once.
    """

    def __init__(self, place: str | Extension, *, config: dict[str, Any] | None = None):
        self.manifest: Manifest | None = None
        if isinstance(place, Extension):
            self.handlers = dict(place.handlers)
        else:
            self.manifest = read_manifest(str(place))
            self.handlers = load_handlers(self.manifest)
        self.config = config or {}
        self.logged: list[tuple[int, str]] = []
        self._cancelled = False

    def __enter__(self) -> Rehearsal:
        return self

    def __exit__(self, *_: object) -> None:
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def call(self, handler: str, /, **arguments: Any) -> Any:
        """What the step would give: the handler's result, encoded and decoded again; named outputs as a dict. Raises
        what the handler raises, ExtensionError and ValueRefused as in an engine."""
        memory = _Memory()
        memory.is_cancelled, memory.logged = self._cancelled, self.logged
        rows = [
            _REF.pack(1, kind, slot, at, size, 0, 0)
            for slot, (kind, at, size) in enumerate(map(memory.put, arguments.values()))
        ]
        names = self._outputs(handler)
        binding = {
            "handler": handler,
            "name": handler,
            "outputs": names,
            "slots": [{"many": False}] * len(rows),
            "arguments": {name: {"slot": slot} for slot, name in enumerate(arguments)},
        }
        declared = {name: spec.outputs for name, spec in self.manifest.handlers.items()} if self.manifest else {}
        plan = bind(binding, self.handlers, memory, declared)
        outputs = [
            value.decode(output.kind, value.payload_of(output), copy=True)
            for output in plan.encode(self._run(plan, memory, b"".join(rows)))
        ]
        return outputs[0] if len(outputs) == 1 else dict(zip(names, outputs, strict=True))

    def _outputs(self, handler: str) -> list[str]:
        if self.manifest is None:
            return [""]
        spec = self.manifest.handlers.get(handler)
        if spec is None:
            raise ExtensionError(f"{self.manifest.path} declares no handler {handler!r}")
        return list(spec.outputs)

    def _run(self, plan: Any, memory: _Memory, refs: bytes) -> Any:
        current = running.current
        before = (current.plan, current.job, current.channel, current.config)
        current.plan, current.job = plan, _JOB.pack(1, 0, 1, 1, 0, 0, 0, 0, 0, 0)
        current.channel, current.config = memory, self.config
        try:
            made = plan.call(refs)
            return asyncio.run(_gathered(made)) if plan.is_async else made
        finally:
            current.plan, current.job, current.channel, current.config = before


async def _gathered(made: Any) -> Any:
    return [item async for item in made] if hasattr(made, "__aiter__") else await made
