"""How a segment describes itself: the layout's text that it carries, and what differs between it and this build's."""

import re
from functools import cache

from symphony.native.layout import layout_text


@cache
def blocks() -> dict[str, str]:
    """This build's layout cut into its structs and enums, by name; the enums without a name are one block, `-`."""
    return cut(layout_text())


def cut(text: str) -> dict[str, str]:
    """A layout's text by struct and enum. Total: what is none of both is left out."""
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.splitlines():
        words = line.split()
        if words[:1] in (["struct"], ["enum"]) and len(words) > 1:
            lines = found.setdefault(words[1], [])
        if lines is not None and words:
            lines.append(line)
    return {name: "\n".join(lines) for name, lines in found.items()}


@cache
def layout_of(types: tuple[str, ...]) -> bytes:
    """The layout text that a segment of these types carries: stamp and directory, its structs, those inside them,
    every enum that their comments name, the one of a struct's own states, and the kinds of segments."""
    wanted = ["sym_stamp_t", "sym_region_t", *types]
    taken: dict[str, str] = {}
    while wanted:
        name = wanted.pop(0)
        block = blocks().get(name)
        if block is None or name in taken:
            continue
        taken[name] = block
        wanted += re.findall(r"\bsym_\w+", block)
        # A packed word says {state 4 | ...}; which states, the struct's own name says.
        wanted.append(name.removesuffix("_t") + "_state")
    return ("\n".join(taken.values()) + "\n").encode()


def first_difference(theirs: str) -> str:
    """Where a layout first differs from this build's: the struct and field, with both lines."""
    for name, block in cut(theirs).items():
        ours = [bare(line) for line in blocks().get(name, "").splitlines()]
        lines = [bare(line) for line in block.splitlines()]
        if not ours:
            return f"{name}, which this build does not have"
        for index, line in enumerate(lines):
            mine = ours[index] if index < len(ours) else "nothing"
            if line != mine:
                return f"{name}: it has {line!r} where this build has {mine!r}"
        if len(ours) > len(lines):
            return f"{name}: it lacks {ours[len(lines)]!r}"
    return "a part of the layout that this segment does not use"


def bare(line: str) -> str:
    """A line without its phrase, which is for people and means nothing to the memory."""
    return " ".join(line.split(" |")[0].split())
