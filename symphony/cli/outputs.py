"""A run's outputs as people read them: passages as passages, text plain, data as JSON, arrays by shape."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from symphony.cli import show
from symphony.model import value

EXCERPT_LINES = 6
EXCERPT_WIDTH = 110
ITEMS = 20
"""Items of a list that are shown; the rest is counted."""

PASSAGE = {"score", "file", "first_line", "last_line", "text"}


def tell(outputs: Mapping[str, tuple[int, Any]]) -> None:
    """Print outputs {name: (kind, payload)} for people, the one with passages first."""
    decoded = [(name, kind, payload, value.decode(kind, payload)) for name, (kind, payload) in outputs.items()]
    decoded.sort(key=lambda each: not is_passages(each[3]))
    for name, kind, payload, content in decoded:
        if is_passages(content):
            _tell_passages(content)
        else:
            text = describe(kind, payload, content)
            head = show.bold(name) if len(outputs) > 1 else None
            print(text if head is None else f"{head}: {text}" if "\n" not in text else f"{head}:\n{text}")


def is_passages(content: Any) -> bool:
    """Whether a value is what `operators.search` gives: a list of passages with score and place."""
    if not isinstance(content, list) or not content:
        return False
    return all(isinstance(row, dict) and row.keys() >= PASSAGE for row in content)


def _tell_passages(rows: Sequence[Mapping[str, Any]]) -> None:
    for number, row in enumerate(rows, start=1):
        place = f"{row['file']}:{row['first_line']}-{row['last_line']}"
        print(f"{number:2d}.  {float(row['score']):.3f}  {show.bold(show.printable(place))}")
        for line in excerpt(str(row["text"])):
            print(f"      | {line}")
        print()


def excerpt(text: str) -> list[str]:
    """The first lines of a text that say something, cut to fit a terminal."""
    lines = [show.printable(line.expandtabs(4)).rstrip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    shown = [line if len(line) <= EXCERPT_WIDTH else line[: EXCERPT_WIDTH - 1] + "…" for line in lines[:EXCERPT_LINES]]
    if len(lines) > EXCERPT_LINES:
        shown.append("…")
    return shown


def describe(kind: int, payload: Any, content: Any) -> str:
    """One output in words: text as it is, data as JSON, an array by shape and type, bytes by size and id."""
    if kind == value.TEXT:
        return content
    if kind == value.DATA:
        short = json.dumps(content, ensure_ascii=False, default=show.plain)
        return (
            short
            if len(short) <= EXCERPT_WIDTH
            else json.dumps(content, indent=2, ensure_ascii=False, default=show.plain)
        )
    if kind == value.ARRAY:
        return f"array {'x'.join(map(str, content.shape)) or 'scalar'} {content.dtype}"
    if kind == value.BYTES:
        return f"{show.size(len(payload))} {value.identify(kind, payload)}"
    if kind == value.NONE:
        return "none"
    if kind == value.LIST:
        return _describe_list(content)
    return f"error {content.type}: {content.message}"


def _describe_list(items: Any) -> str:
    lines = [f"list of {len(items)}"]
    for number in range(min(len(items), ITEMS)):
        kind, payload = items.raw(number)
        text = describe(kind, payload, value.decode(kind, payload))
        lines.append(f"  {number}: " + text.replace("\n", "\n     "))
    if len(items) > ITEMS:
        lines.append(f"  … and {len(items) - ITEMS} more")
    return "\n".join(lines)


def as_json(kind: int, payload: Any) -> Any:
    """One output as JSON: text and data as they are, arrays and bytes described with their id, lists item by item."""
    content = value.decode(kind, payload)
    if kind in (value.TEXT, value.DATA, value.NONE):
        return content
    if kind == value.LIST:
        return [as_json(*content.raw(number)) for number in range(len(content))]
    described: dict[str, Any] = {
        "kind": value.KIND_NAMES[kind],
        "size_bytes": len(payload),
        "id": value.identify(kind, payload),
    }
    if kind == value.ARRAY:
        described |= {"shape": list(content.shape), "dtype": content.dtype.str}
    return described
