"""extension.toml: what an extension is, read without importing any of it. A mistake is named with its file, line,
column and the nearest valid word; all mistakes of a file are collected."""

from __future__ import annotations

import os
import re
import tomllib
from typing import Any

import msgspec

from symphony.model.errors import ManifestError

FILE = "extension.toml"
KINDS = ("instrument", "operator", "motif")
ACTIVATIONS = ("first-use", "start", "event")
RESTARTS = ("on-failure", "always", "never")
INPUT_TYPES = ("any", "array", "bool", "bytes", "data", "float", "int", "list", "path", "text")
OUTPUT_TYPES = ("any", "array", "bool", "bytes", "data", "float", "int", "list", "none", "path", "text")
RESOURCES = ("memory_bytes", "cpu", "processes", "files", "time_s")
PERMISSIONS = ("read", "write", "ports", "hosts", "environment", "call", "observe")
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,30}")
_VERSION = re.compile(r"\d+(\.\d+){0,3}([a-z0-9.+-]*)")
INSTANCES_MOST = 256
WINDOW_MOST = 4096


class Port(msgspec.Struct, frozen=True):
    """An input of a handler."""

    type: str = "any"
    default: Any = None
    required: bool = True


class HandlerSpec(msgspec.Struct, frozen=True):
    """A step that melodies may name. `outputs` maps names to types; a single value's name is ""."""

    name: str
    inputs: dict[str, Port] = {}
    outputs: dict[str, str] = msgspec.field(default_factory=lambda: {"": "any"})
    about: str = ""
    model: str = ""
    once: bool = False


class Manifest(msgspec.Struct, frozen=True):
    """One extension, as its author describes it. `directory` is where the file lies, `path` the file."""

    id: str
    directory: str
    path: str
    entry: str
    name: str = ""
    version: str = "0"
    kind: str = "operator"
    about: str = ""
    activation: str = "first-use"
    handlers: dict[str, HandlerSpec] = {}
    instances_min: int = 1
    instances_max: int = 1
    window: int = 0
    models: tuple[str, ...] = ()
    resources: dict[str, float] = {}
    permissions: dict[str, Any] = {}
    environment: dict[str, str] = {}
    dependencies: dict[str, str] = {}
    config: dict[str, Any] = {}
    restart: str = "on-failure"
    isolation: int = 0


def read_manifest(place: str) -> Manifest:
    """The manifest of a folder (or the path of the file itself). Raises ManifestError, whose `facts["errors"]` lists
    every mistake as text; cost about a millisecond."""
    path = place if place.endswith(".toml") else os.path.join(place, FILE)
    try:
        with open(path, "rb") as file:
            text = file.read(1 << 20).decode()
    except FileNotFoundError:
        raise ManifestError(f"{path}: there is no {FILE}", file=path) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot be read: {error}", file=path) from None
    return parse(text, path)


def parse(text: str, path: str = FILE) -> Manifest:
    """The manifest in `text`; `path` is named in mistakes and says where the entry lies."""
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+), column (\d+)", str(error))
        line, column = (int(found[1]), int(found[2])) if found else (text.count("\n") + 1, 1)
        raise _error([(str(error).split(" (at")[0], line, column, None)], path) from None
    reader = _Reader(text, path)
    manifest = reader.manifest(data)
    if reader.mistakes:
        raise _error(reader.mistakes, path)
    return manifest


def _error(mistakes: list[tuple[str, int, int, str | None]], path: str) -> ManifestError:
    lines = []
    for problem, line, column, nearest in mistakes:
        hint = f"; did you mean {nearest!r}?" if nearest else ""
        lines.append(f"{path}:{line}:{column}: {problem}{hint}")
    _, line, column, nearest = mistakes[0]
    return ManifestError("\n".join(lines), file=path, line=line, column=column, nearest=nearest, errors=lines)


class _Reader:
    """Walks the parsed file against what may stand in it, and collects what may not."""

    def __init__(self, text: str, path: str):
        self.text = text
        self.path = path
        self.mistakes: list[tuple[str, int, int, str | None]] = []

    def wrong(self, place: tuple[str, ...], problem: str, nearest: str | None = None) -> None:
        line, column = locate(self.text, place)
        self.mistakes.append((problem, line, column, nearest))

    def known(self, table: Any, place: tuple[str, ...], words: tuple[str, ...]) -> dict[str, Any]:
        """The table itself; every key that is not one of `words` is a mistake."""
        if not isinstance(table, dict):
            self.wrong(place, f"{'.'.join(place)} has to be a table")
            return {}
        for key in table:
            if key not in words:
                self.wrong((*place, key), f"unknown key {key!r}{_in(place)}", _nearest(key, words))
        return table

    def text_of(
        self,
        table: dict[str, Any],
        place: tuple[str, ...],
        key: str,
        default: str = "",
        among: tuple[str, ...] = (),
        pattern: re.Pattern | None = None,
    ) -> str:
        found = table.get(key, default)
        if not isinstance(found, str):
            self.wrong((*place, key), f"{key} has to be text")
            return default
        if among and found not in among:
            problem = f"{key} cannot be {found!r}; it is one of {', '.join(among)}"
            self.wrong((*place, key), problem, _nearest(found, among))
        if pattern is not None and found and not pattern.fullmatch(found):
            self.wrong((*place, key), f"{key} cannot be {found!r}: it has to match {pattern.pattern}")
        return found

    def number_of(
        self, table: dict[str, Any], place: tuple[str, ...], key: str, default: int, most: int, least: int = 1
    ) -> int:
        if key not in table:
            return default
        found = table[key]
        if isinstance(found, bool) or not isinstance(found, int) or not least <= found <= most:
            self.wrong((*place, key), f"{key} has to be a whole number from {least} to {most}")
            return default
        return found

    def manifest(self, data: dict[str, Any]) -> Manifest:
        top = self.known(
            data, (), ("extension", "handlers", "resources", "permissions", "environment", "dependencies", "config")
        )
        place = ("extension",)
        if "extension" not in top:
            self.wrong((), "there is no [extension] table", None)
        head = self.known(
            top.get("extension", {}),
            place,
            (
                "id",
                "name",
                "version",
                "kind",
                "about",
                "entry",
                "activation",
                "instances",
                "window",
                "models",
                "restart",
                "isolation",
            ),
        )
        for key in ("id", "entry"):
            if "extension" in top and not head.get(key):
                self.wrong(place, f"[extension] has no {key!r}")
        instances = self.known(head.get("instances", {}), (*place, "instances"), ("min", "max"))
        least = self.number_of(instances, (*place, "instances"), "min", 1, INSTANCES_MOST, 0)
        most = self.number_of(instances, (*place, "instances"), "max", max(1, least), INSTANCES_MOST)
        if least > most:
            self.wrong((*place, "instances"), f"instances: min is {least}, more than max, {most}")
        return Manifest(
            id=self.text_of(head, place, "id", pattern=_ID),
            directory=os.path.dirname(os.path.abspath(self.path)),
            path=self.path,
            entry=self.text_of(head, place, "entry"),
            name=self.text_of(head, place, "name", str(head.get("id", ""))),
            version=self.text_of(head, place, "version", "0", pattern=_VERSION),
            kind=self.text_of(head, place, "kind", "operator", KINDS),
            about=self.text_of(head, place, "about"),
            activation=self.text_of(head, place, "activation", "first-use", ACTIVATIONS),
            handlers=self.handlers(top.get("handlers", {})),
            instances_min=least,
            instances_max=most,
            window=self.number_of(head, place, "window", 0, WINDOW_MOST),
            models=self.texts(head.get("models", []), (*place, "models")),
            resources=self.resources(top.get("resources", {})),
            permissions=self.known(top.get("permissions", {}), ("permissions",), PERMISSIONS),
            environment=self.text_table(top.get("environment", {}), "environment"),
            dependencies=self.text_table(top.get("dependencies", {}), "dependencies"),
            config=top.get("config", {}) if isinstance(top.get("config", {}), dict) else {},
            restart=self.text_of(head, place, "restart", "on-failure", RESTARTS),
            isolation=self.number_of(head, place, "isolation", 0, 3, 0),
        )

    def handlers(self, table: Any) -> dict[str, HandlerSpec]:
        found: dict[str, HandlerSpec] = {}
        if not isinstance(table, dict):
            self.wrong(("handlers",), "handlers are tables: [handlers.NAME]")
            return found
        for name, entry in table.items():
            place = ("handlers", name)
            spec = self.known(entry, place, ("about", "inputs", "outputs", "output", "model", "once"))
            if "output" in spec and "outputs" in spec:
                self.wrong((*place, "output"), "a handler has `output`, one value, or `outputs`, named ones; not both")
            found[name] = HandlerSpec(
                name=name,
                inputs=self.inputs(spec.get("inputs", {}), (*place, "inputs")),
                outputs=self.outputs(spec, place),
                about=self.text_of(spec, place, "about"),
                model=self.text_of(spec, place, "model"),
                once=spec.get("once") is True,
            )
        return found

    def type_of(self, table: dict[str, Any], place: tuple[str, ...], key: str, among: tuple[str, ...]) -> str:
        """A type's name; list[TYPE] says what its items are."""
        name = self.text_of(table, place, key, "any")
        plain = name
        while plain.startswith("list[") and plain.endswith("]"):
            plain = plain[5:-1]
        self.text_of({key: plain}, place, key, "any", among)
        return name

    def inputs(self, table: Any, place: tuple[str, ...]) -> dict[str, Port]:
        found: dict[str, Port] = {}
        if not isinstance(table, dict):
            self.wrong(place, "inputs is a table of names and types")
            return found
        for name, entry in table.items():
            here = (*place, name)
            port = {"type": entry} if isinstance(entry, str) else self.known(entry, here, ("type", "default"))
            kind = self.type_of({name: port.get("type", "any")}, place, name, INPUT_TYPES)
            found[name] = Port(kind, port.get("default"), "default" not in port)
        return found

    def outputs(self, spec: dict[str, Any], place: tuple[str, ...]) -> dict[str, str]:
        if "outputs" not in spec:
            return {"": self.type_of(spec, place, "output", OUTPUT_TYPES)}
        table = spec["outputs"]
        if not isinstance(table, dict) or not table:
            self.wrong((*place, "outputs"), "outputs is a table of names and types")
            return {"": "any"}
        if len(table) > 16:
            self.wrong((*place, "outputs"), f"{len(table)} outputs; at most 16 are possible")
        return {name: self.type_of(table, (*place, "outputs"), name, OUTPUT_TYPES) for name in table}

    def texts(self, entry: Any, place: tuple[str, ...]) -> tuple[str, ...]:
        if not isinstance(entry, list) or not all(isinstance(item, str) for item in entry):
            self.wrong(place, f"{place[-1]} is a list of texts")
            return ()
        return tuple(entry)

    def text_table(self, entry: Any, name: str) -> dict[str, str]:
        if not isinstance(entry, dict) or not all(isinstance(item, str) for item in entry.values()):
            self.wrong((name,), f"{name} is a table of texts")
            return {}
        return dict(entry)

    def resources(self, entry: Any) -> dict[str, float]:
        table = self.known(entry, ("resources",), RESOURCES)
        for key, amount in table.items():
            if isinstance(amount, bool) or not isinstance(amount, int | float) or amount <= 0:
                self.wrong(("resources", key), f"{key} has to be a number greater than 0")
        return dict(table)


def _in(place: tuple[str, ...]) -> str:
    return f" in [{'.'.join(place)}]" if place else ""


def _nearest(word: str, words: tuple[str, ...]) -> str | None:
    from symphony.model.words import nearest

    return nearest(word, words)


def locate(text: str, place: tuple[str, ...]) -> tuple[int, int]:
    """Line and column, from 1, of a key path in a TOML text: of its own line if it has one, else of the nearest table
    or inline table above it. (tomllib keeps no positions.)"""
    best = (1, 1, 0)
    table: tuple[str, ...] = ()
    for number, line in enumerate(text.split("\n"), 1):
        header = re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line)
        if header:
            table = _parts(header[1])
            best = _better(best, number, header.start(1) + 1, table, place)
            continue
        key = re.match(r"\s*([A-Za-z0-9_\-.\"' ]+?)\s*=", line)
        if key:
            best = _along(best, number, line, key, (*table, *_parts(key[1])), place)
    return best[0], best[1]


def _along(
    best: tuple[int, int, int], number: int, line: str, key: re.Match, path: tuple[str, ...], place: tuple[str, ...]
) -> tuple[int, int, int]:
    """The position of `path`'s key, and of the keys inside its inline tables that lie on the way to `place`."""
    best = _better(best, number, key.start(1) + 1, path, place)
    at = key.end()
    while path == place[: len(path)] and len(path) < len(place):
        inner = re.compile(rf"(?<![\w-])[\"']?{re.escape(place[len(path)])}[\"']?\s*=").search(line, at)
        if inner is None:
            break
        path, at = place[: len(path) + 1], inner.end()
        best = _better(best, number, inner.start() + 1, path, place)
    return best


def _better(
    best: tuple[int, int, int], line: int, column: int, path: tuple[str, ...], place: tuple[str, ...]
) -> tuple[int, int, int]:
    agrees = len(path) if path == place[: len(path)] else 0
    return (line, column, agrees) if agrees > best[2] else best


def _parts(key: str) -> tuple[str, ...]:
    return tuple(part.strip().strip("\"'") for part in key.split("."))


def catalogue() -> dict[str, dict[str, Any]]:
    """What melodies are checked against: {extension id: {"handlers": {name: {"inputs": {argument: type}, "outputs":
    {name: type}}}}}. An extension whose manifest has mistakes is left out; `extension check` names them."""
    from symphony.extension.discovery import discover

    return {key: entry(manifest) for key, manifest in discover(mistakes=[]).items()}


def entry(manifest: Manifest) -> dict[str, Any]:
    """One extension's entry in the catalogue."""
    handlers = {}
    for name, spec in manifest.handlers.items():
        inputs = {
            key: port.type if port.required else {"type": port.type, "default": port.default}
            for key, port in spec.inputs.items()
        }
        handlers[name] = {"inputs": inputs, "outputs": dict(spec.outputs)}
    return {"handlers": handlers}
