"""One line of a run's record: what a node was, when it ran, and what went in and out, so that others can check it.

Pure: the engine brings the facts and the values, this gives them names and identities.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from symphony.model.score import Score
from symphony.model.value import KIND_NAMES, LIST, Buffer, identify, item, list_count

HEX_BYTES = 64
FACTS = ("step", "node", "state", "attempt", "started_ns", "ended_ns", "extension", "pid")


class Names(NamedTuple):
    """How a step's inputs (in slot order) and outputs are called; `items`: outputs name the items of its one list."""

    inputs: list[str]
    outputs: list[str]
    items: bool


def names_of(score: Score, step: str) -> Names:
    """Names from the score's meta where it has them (recorded workflows: files), else of arguments and outputs.

    Raises ScoreError for an unknown step. Cost: linear in the steps; use `all_names` for a whole run.
    """
    return _names(score, score.step(step))


def all_names(score: Score) -> dict[str, Names]:
    """`names_of` for every step."""
    return {step.name: _names(score, step) for step in score.steps}


def _names(score: Score, step: Any) -> Names:
    meta = score.meta.get(step.name)
    if meta:
        return Names(list(meta["inputs"]), list(meta["outputs"]), True)
    inputs = [""] * len(step.slots)
    for name, argument in step.arguments.items():
        used = [argument["slot"]] if "slot" in argument else argument.get("slots", [])
        for slot in used:
            inputs[slot] = inputs[slot] or name
    return Names(inputs, list(step.outputs), False)


def choose(kind: int, payload: Buffer, first: int = 0, count: int = 0) -> list[tuple[int, Buffer]]:
    """What a ref with `first` and `count` takes of a value: the value whole (count 0), or that many items of a list.

    No copies: payloads are views into `payload`. Raises ValueDamaged, IndexError.
    """
    if count == 0:
        return [(kind, payload)]
    return [item(payload, first + number) for number in range(count)] if kind == LIST else [(kind, payload)]


def record_line(
    facts: Mapping[str, Any],
    names: Names,
    inputs: Sequence[tuple[int, Buffer]] = (),
    outputs: Sequence[tuple[int, Buffer]] = (),
) -> dict[str, Any]:
    """The record of one node, ready for JSON.

    `facts` has the keys FACTS (times in ns of CLOCK_MONOTONIC as the extension stamped them); `inputs` has one (kind,
    payload) for each slot in order, already chosen (`choose`); `outputs` one for each output, none unless the node is
    done. Raises ValueDamaged. Cost: hashes every payload once.
    """
    line = {key: facts.get(key) for key in FACTS}
    line["inputs"] = [_described(_name(names.inputs, at), *value) for at, value in enumerate(inputs)]
    if names.items and len(outputs) == 1 and outputs[0][0] == LIST:
        payload = outputs[0][1]
        outputs = [item(payload, number) for number in range(list_count(payload))]
    line["outputs"] = [_described(_name(names.outputs, at), *value) for at, value in enumerate(outputs)]
    return line


def dumps(line: Mapping[str, Any]) -> str:
    """One line of a record file, without its newline."""
    return json.dumps(line, separators=(",", ":"), ensure_ascii=False)


def _name(names: Sequence[str], at: int) -> str:
    return names[at] if at < len(names) else ""


def _described(name: str, kind: int, payload: Buffer) -> dict[str, Any]:
    size = len(payload)
    described = {"name": name, "kind": KIND_NAMES[kind], "bytes": size, "id": identify(kind, payload)}
    if size <= HEX_BYTES:
        described["hex"] = bytes(payload).hex()
    return described
