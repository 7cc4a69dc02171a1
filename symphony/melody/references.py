"""Texts of a melody that point at values: "{path}", "{item}", "walk.files", and texts with placeholders in them."""

import re
from typing import NamedTuple

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")
ITEM = "item"

_REFERENCE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_-]*)(?:\.([A-Za-z_][A-Za-z0-9_-]*))?\s*")
_PARTS = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class Reference(NamedTuple):
    """A name, and the output named after the dot ("" if there is none)."""

    name: str
    output: str

    def __str__(self) -> str:
        return f"{self.name}.{self.output}" if self.output else self.name


class StrayBrace(ValueError):
    """A brace that neither opens nor closes a placeholder."""


def parse_reference(text: str) -> Reference | None:
    """The reference that a text is ("walk" or "walk.files"), or None."""
    found = _REFERENCE.fullmatch(text)
    return Reference(found.group(1), found.group(2) or "") if found else None


def parse_source(text: str) -> tuple[Reference | None, bool]:
    """A reference with or without braces around it, and whether it had them."""
    braced = text.startswith("{") and text.endswith("}") and len(text) > 1
    return parse_reference(text[1:-1] if braced else text), braced


def split(text: str) -> list[str | Reference]:
    """A text as its literal pieces (braces unescaped) and the references between them, in order.

    Raises StrayBrace for a brace that is neither written twice nor part of a placeholder.
    """
    parts: list[str | Reference] = []
    literal, at = "", 0
    for found in _PARTS.finditer(text):
        literal += text[at : found.start()]
        at = found.end()
        if found.group() in ("{{", "}}"):
            literal += found.group()[0]
            continue
        reference = parse_reference(found.group(1)) if found.group(1) is not None else None
        if reference is None:
            raise StrayBrace(f"{found.group()[:40]!r} is no placeholder; write {{{{ and }}}} for braces that stay")
        parts += [literal, reference] if literal else [reference]
        literal = ""
    literal += text[at:]
    return [*parts, literal] if literal or not parts else parts
