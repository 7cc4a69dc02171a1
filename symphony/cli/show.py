"""What goes to stdout, in the three forms that every verb has: a table for people, one JSON document, JSON lines."""

import functools
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import click

FORMATS = ("table", "json", "jsonl")
SCHEMA = "symphony/1"
DEFAULT_ENGINE = "default"


@dataclass
class Settings:
    """What the options before the verb said; `named` is None unless the user chose an engine."""

    named: str | None
    output: str

    @property
    def name(self) -> str:
        return self.named or DEFAULT_ENGINE


def settled(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a verb its Settings as first argument, and let -n and -o stand after the verb too."""

    @click.option("-n", "--name", "late_name", default=None, hidden=True)
    @click.option("-o", "--output", "late_output", type=click.Choice(FORMATS), default=None, hidden=True)
    @click.pass_context
    @functools.wraps(command)
    def outer(ctx: click.Context, late_name: str | None, late_output: str | None, **options: Any) -> Any:
        given = ctx.find_object(Settings) or Settings(None, "table")
        settings = Settings(late_name or given.named, late_output or given.output)
        return command(settings, **options)

    return outer


def document(kind: str, /, **content: Any) -> None:
    """Print one JSON document: {"schema", "kind", …content}; these two names are the document's own."""
    print(as_json({"schema": SCHEMA, "kind": kind} | content | {"schema": SCHEMA, "kind": kind}, indent=True))


def line(item: Any) -> None:
    """Print one line of JSON, at once."""
    print(as_json(item), flush=True)


def listing(settings: Settings, kind: str, items: Sequence[dict[str, Any]], columns: Sequence[tuple[str, Any]]) -> None:
    """Print a list in the form asked for. `columns` are (heading, key or function of the item) of the table."""
    if settings.output == "json":
        document(kind, items=list(items))
    elif settings.output == "jsonl":
        for item in items:
            line(item)
    else:
        table([heading for heading, _ in columns], [[cell(item, key) for _, key in columns] for item in items])


def single(settings: Settings, kind: str, item: dict[str, Any], told: Callable[[], None]) -> None:
    """Print one thing: as JSON, or by calling `told` for people."""
    if settings.output == "json":
        document(kind, **item)
    elif settings.output == "jsonl":
        line(item)
    else:
        told()


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns, as wide as they need; the headings bold on a terminal."""
    body = [[printable(cell) for cell in row] for row in rows]
    widths = [max([len(head), *(len(row[k]) for row in body)]) for k, head in enumerate(headings)]
    print(bold(_row(headings, widths)))
    for row in body:
        print(_row(row, widths))


def facts(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print names and values under each other, the values aligned."""
    kept = [(name, printable(str(content))) for name, content in pairs if content is not None]
    width = max((len(name) for name, _ in kept), default=0)
    for name, content in kept:
        print(f"{bold(name.ljust(width))}  {content}")


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()


def cell(item: dict[str, Any], key: Any) -> str:
    """What stands in a column: the item's `key`, or what the function `key` makes of the item."""
    content = key(item) if callable(key) else item.get(key)
    return "" if content is None else str(content)


def printable(text: str) -> str:
    """Names and errors come from files and other processes: a control character must not reach the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def bold(text: str) -> str:
    """`text` in bold where a terminal shows colours and NO_COLOR does not forbid it."""
    return f"\x1b[1m{text}\x1b[0m" if coloured(sys.stdout) else text


def coloured(stream: Any) -> bool:
    """Whether escape sequences may go to `stream`."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def as_json(item: Any, indent: bool = False) -> str:
    """JSON text, on one line unless `indent`."""
    import json

    return json.dumps(item, indent=2 if indent else None, ensure_ascii=False, default=plain)


def plain(item: Any) -> Any:
    """JSON's form of what JSON has none for: bytes as base64, paths as text, sequences as lists."""
    if isinstance(item, (bytes, bytearray, memoryview)):
        import base64

        return base64.b64encode(item).decode()
    if isinstance(item, os.PathLike):
        return os.fspath(item)
    if hasattr(item, "tolist"):
        return item.tolist()
    raise TypeError(f"a {type(item).__name__} has no form in JSON")


def duration(seconds: float) -> str:
    """A length of time as people say it."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def size(count: float) -> str:
    """A number of bytes as people say it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
