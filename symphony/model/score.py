"""The score: the one internal form of a melody, whatever it was written in, and the rules it must keep.

A client compiles a melody into a score and sends it as msgpack; the Conductor calls `load` on it, which trusts nothing:
every name is resolved, every index in range, every size bounded, the graph acyclic. Structs are frozen plain data.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import msgpack

from symphony.model import limits
from symphony.model.errors import ScoreError
from symphony.model.words import did_you_mean

VERSION = 1

INPUT_TYPES = ("path", "text", "int", "float", "bool", "data", "bytes", "list")


class Source(msgspec.Struct, frozen=True):
    """Where a value comes from: output number `output` of `step`; step "" is the run's inputs in `input_order`."""

    step: str
    output: int = 0


class Slot(msgspec.Struct, frozen=True):
    """One input of a step as the engine sees it.

    `each`: the node's own item or items of the step's fan-out (`source` is None then). `many`: the handler gets a
    list: a batch of items, or the join of a fanned-out step. `first` and `count` choose items of a list output;
    count 0: the value whole.
    """

    source: Source | None = None
    each: bool = False
    many: bool = False
    first: int = 0
    count: int = 0


class Step(msgspec.Struct, frozen=True):
    """What the author wrote once; its nodes are its executions.

    `arguments` maps a handler's argument to {"slot": k}, {"value": constant}, {"format": template, "slots": [k]} or
    {"slots": [k, ...]}: a list of those slots' values.
    `each` is what the step fans out over, in batches of `batch` items (0: single items). `outputs` names what the
    handler returns; [""] is one value without a name.
    """

    name: str
    use: str
    extension: str
    handler: str
    model: str = ""
    slots: list[Slot] = []
    arguments: dict[str, dict[str, Any]] = {}
    each: Source | None = None
    batch: int = 0
    after: list[str] = []
    retries: int = 0
    backoff_s: float = 0.0
    timeout_s: float = 0.0
    once: bool = False
    estimate_s: float = 0.0
    need: dict[str, int] = {}
    outputs: list[str] = msgspec.field(default_factory=lambda: [""])
    flags: int = 0

    @property
    def pool_model(self) -> str:
        """The pool's model that a node of this step needs; an extension is a model of its own name."""
        return self.model or self.extension

    def dependencies(self) -> list[str]:
        """Names of the steps that must be done before this one, each once, in order of first mention."""
        named = [slot.source.step for slot in self.slots if slot.source is not None]
        if self.each is not None:
            named.append(self.each.step)
        return list(dict.fromkeys(name for name in [*named, *self.after] if name))

    def binding(self) -> bytes:
        """What the extension gets once with this step: msgpack of handler, arguments, slots, outputs and name."""
        slots = [{"many": slot.many, "each": slot.each} for slot in self.slots]
        fields = {
            "handler": self.handler, "arguments": self.arguments, "slots": slots, "outputs": self.outputs,
            "name": self.name,
        }  # fmt: skip
        return msgpack.encode(fields)


class InputType(msgspec.Struct, frozen=True):
    """Type of a run's input, and its default where it is not required."""

    type: str = "text"
    default: Any = None
    required: bool = True


class Score(msgspec.Struct, frozen=True):
    """A melody ready to be played: `steps` are in an order in which every step comes after those it needs.

    `meta` carries what the record wants to know and the engine does not: step -> {"inputs": names in slot order,
    "outputs": names in item order, "name": task name}.
    """

    name: str
    inputs: dict[str, InputType] = {}
    input_order: list[str] = []
    steps: list[Step] = []
    outputs: dict[str, Source] = {}
    version: int = VERSION
    meta: dict[str, dict[str, Any]] = {}

    def step(self, name: str) -> Step:
        """The step of that name; raises ScoreError."""
        for step in self.steps:
            if step.name == name:
                return step
        raise ScoreError(f"no step {name!r}{did_you_mean(name, (step.name for step in self.steps))}")


_DECODER = msgpack.Decoder(Score)
_PIECES = re.compile(r"\{\{|\}\}|\{(\d{1,5})\}|[{}]")


def dump(score: Score) -> bytes:
    """A score as msgpack; owned by the caller."""
    return msgpack.encode(score)


def load(payload: bytes | bytearray | memoryview) -> Score:
    """The validated score of a payload that anybody may have made. Raises ScoreError. Cost: linear in its size."""
    if len(payload) > limits.SCORE_BYTES:
        raise ScoreError(f"a score of {len(payload)} bytes is over the limit of {limits.SCORE_BYTES}")
    try:
        score = _DECODER.decode(payload)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise ScoreError(f"not a score: {error}") from None
    validate(score)
    return score


def fill(template: str, values: Sequence[object]) -> str:
    """A format argument's text: `{k}` becomes str(values[k]), `{{` and `}}` a brace. Nothing else is interpreted."""

    def piece(found: re.Match[str]) -> str:
        number = found.group(1)
        return found.group(0)[0] if number is None else str(values[int(number)])

    return _PIECES.sub(piece, template)


def bind(arguments: dict[str, dict[str, Any]], values: Sequence[Any]) -> dict[str, Any]:
    """A handler's keyword arguments from a step's `arguments` and the decoded values of its slots, in slot order."""
    bound: dict[str, Any] = {}
    for name, argument in arguments.items():
        if "slot" in argument:
            bound[name] = values[argument["slot"]]
        elif "value" in argument:
            bound[name] = argument["value"]
        elif "format" in argument:
            bound[name] = fill(argument["format"], [values[slot] for slot in argument["slots"]])
        else:
            bound[name] = [values[slot] for slot in argument["slots"]]
    return bound


def format_fields(template: str) -> list[int]:
    """The numbers that a template's placeholders name; raises ScoreError for a stray brace."""
    numbers = []
    for found in _PIECES.finditer(template):
        if found.group(1) is not None:
            numbers.append(int(found.group(1)))
        elif len(found.group(0)) == 1:
            raise ScoreError(f"stray {found.group(0)!r} at {found.start()} of a format; a brace is written twice")
    return numbers


def validate(score: Score) -> Score:
    """The same score, if it keeps every rule; raises ScoreError naming step and rule otherwise."""
    _bounded("steps", len(score.steps), 1, limits.STEPS)
    _bounded("inputs", len(score.inputs), 0, limits.INPUTS)
    _bounded("outputs", len(score.outputs), 0, limits.RUN_OUTPUTS)
    if score.version != VERSION:
        raise ScoreError(f"the score has version {score.version}, this engine reads {VERSION}")
    _name("melody", score.name)
    _validate_inputs(score)
    steps = _index(score.steps)
    edges = 0
    for step in score.steps:
        _Checker(score, steps, step).run()
        edges += len(step.slots) + len(step.after) + 1
    _bounded("slots and dependencies", edges, 0, limits.EDGES)
    for name, source in score.outputs.items():
        _name("output", name)
        _check_source(source, steps, len(score.input_order), f"output {name!r}", inputs_allowed=False)
    _check_order(score.steps)
    return score


def _validate_inputs(score: Score) -> None:
    if sorted(score.input_order) != sorted(score.inputs):
        raise ScoreError("input_order must name every input once")
    for name, kind in score.inputs.items():
        _name("input", name)
        if kind.type not in INPUT_TYPES:
            raise ScoreError(f"input {name!r} has the unknown type {kind.type!r}{did_you_mean(kind.type, INPUT_TYPES)}")


def _index(steps: Iterable[Step]) -> dict[str, Step]:
    found: dict[str, Step] = {}
    for step in steps:
        _name("step", step.name)
        if step.name in found:
            raise ScoreError(f"step {step.name!r} stands twice")
        found[step.name] = step
    return found


class _Checker:
    """The rules of one step."""

    def __init__(self, score: Score, steps: dict[str, Step], step: Step) -> None:
        self.steps = steps
        self.step = step
        self.inputs = len(score.input_order)
        self.where = f"step {step.name!r}"

    def run(self) -> None:
        step = self.step
        if not step.extension or not step.handler or step.use != f"{step.extension}.{step.handler}":
            raise ScoreError(f"{self.where}: use {step.use!r} must be its extension and handler, 'explorer.walk'")
        for text in (step.use, step.model):
            if len(text.encode("utf-8", "replace")) > limits.NAME_BYTES:
                raise ScoreError(f"{self.where}: a name is longer than {limits.NAME_BYTES} bytes")
        self._numbers()
        self._outputs()
        self._slots()
        self._arguments()

    def _numbers(self) -> None:
        step = self.step
        for name, value, top in (
            ("batch", step.batch, limits.BATCH), ("retries", step.retries, limits.RETRIES),
            ("backoff_s", step.backoff_s, limits.SECONDS), ("timeout_s", step.timeout_s, limits.SECONDS),
            ("estimate_s", step.estimate_s, limits.SECONDS), ("flags", step.flags, 0xFFFFFFFF),
        ):  # fmt: skip
            _bounded(f"{self.where}: {name}", value, 0, top)
        _bounded(f"{self.where}: kinds of need", len(step.need), 0, limits.RESOURCES)
        for name, amount in step.need.items():
            _name("need", name)
            _bounded(f"{self.where}: need {name}", amount, 0, 0xFFFFFFFF)
        if step.batch and step.each is None:
            raise ScoreError(f"{self.where}: batch needs each")

    def _outputs(self) -> None:
        names = self.step.outputs
        _bounded(f"{self.where}: outputs", len(names), 1, limits.OUTPUTS)
        if len(set(names)) != len(names) or (len(names) > 1 and "" in names):
            raise ScoreError(f"{self.where}: outputs must have different names")

    def _slots(self) -> None:
        step = self.step
        _bounded(f"{self.where}: slots", len(step.slots), 0, limits.SLOTS)
        if step.each is not None:
            _check_source(step.each, self.steps, self.inputs, f"{self.where}: each")
        for number, slot in enumerate(step.slots):
            where = f"{self.where}: slot {number}"
            if not 0 <= slot.first <= 0xFFFFFFFF or not 0 <= slot.count <= 0xFFFFFFFF:
                raise ScoreError(f"{where}: first and count must fit 32 bits")
            if slot.each:
                if step.each is None or slot.source is not None or slot.first or slot.count:
                    raise ScoreError(f"{where}: an item needs each on its step, and no source of its own")
                if slot.many != (step.batch > 0):
                    raise ScoreError(f"{where}: items come as a list exactly when the step has a batch")
            elif slot.source is None:
                raise ScoreError(f"{where}: has no source")
            else:
                _check_source(slot.source, self.steps, self.inputs, where)
        for name in step.after:
            if name not in self.steps:
                raise ScoreError(f"{self.where}: after names the unknown step {name!r}{did_you_mean(name, self.steps)}")

    def _arguments(self) -> None:
        _bounded(f"{self.where}: arguments", len(self.step.arguments), 0, limits.ARGUMENTS)
        for name, argument in self.step.arguments.items():
            where = f"{self.where}: argument {name!r}"
            keys = set(argument)
            if keys == {"slot"}:
                self._slot_numbers(where, [argument["slot"]])
            elif keys == {"format", "slots"}:
                self._format(where, argument["format"], argument["slots"])
            elif keys == {"slots"}:
                self._slot_numbers(where, argument["slots"], limits.SLOTS)
            elif keys == {"value"}:
                self._constant(where, argument["value"])
            else:
                raise ScoreError(f"{where} must be a slot, slots, a value, or a format with slots")

    def _slot_numbers(self, where: str, numbers: Any, most: int = limits.ARGUMENTS) -> None:
        count = len(self.step.slots)
        if not isinstance(numbers, list) or len(numbers) > most:
            raise ScoreError(f"{where}: slots must be a list of at most {most} numbers")
        for number in numbers:
            if type(number) is not int or not 0 <= number < count:
                raise ScoreError(f"{where} names slot {number!r}, there are {count}")

    def _format(self, where: str, template: Any, numbers: Any) -> None:
        self._slot_numbers(where, numbers)
        if not isinstance(template, str) or len(template) > limits.FORMAT_BYTES:
            raise ScoreError(f"{where}: a format is a text of at most {limits.FORMAT_BYTES} characters")
        for field in format_fields(template):
            if field >= len(numbers):
                raise ScoreError(f"{where}: placeholder {{{field}}} has no slot")

    def _constant(self, where: str, value: Any) -> None:
        try:
            size = len(msgpack.encode(value))
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ScoreError(f"{where}: this value cannot travel: {error}") from None
        if size > limits.CONSTANT_BYTES:
            raise ScoreError(
                f"{where}: a constant of {size} bytes is over the limit of {limits.CONSTANT_BYTES}; pass it as an input"
            )


def _check_source(
    source: Source, steps: dict[str, Step], inputs: int, where: str, *, inputs_allowed: bool = True
) -> None:
    if source.step == "" and not inputs_allowed:
        raise ScoreError(f"{where} must come from a step")
    if source.step and source.step not in steps:
        raise ScoreError(f"{where} names the unknown step {source.step!r}{did_you_mean(source.step, steps)}")
    count = len(steps[source.step].outputs) if source.step else inputs
    if not 0 <= source.output < count:
        owner = f"step {source.step!r}" if source.step else "the run's inputs"
        raise ScoreError(f"{where} takes number {source.output} of {owner}, which has {count}")


def _bounded(what: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ScoreError(f"{what}: {value} is not between {low} and {high}")


def _name(what: str, name: str) -> None:
    if not name or len(name.encode("utf-8", "replace")) > limits.NAME_BYTES or not name.isprintable():
        raise ScoreError(f"{what} name {name[:80]!r} must be printable text of 1 to {limits.NAME_BYTES} bytes")


def _check_order(steps: Sequence[Step]) -> None:
    position = {step.name: number for number, step in enumerate(steps)}
    for number, step in enumerate(steps):
        late = next((name for name in step.dependencies() if position[name] >= number), None)
        if late is None:
            continue
        cycle = find_cycle({step.name: step.dependencies() for step in steps})
        if cycle:
            raise ScoreError(f"the steps form a cycle: {' -> '.join(cycle)}")
        raise ScoreError(f"step {step.name!r} stands before {late!r}, which it needs")


def topological(needs: dict[str, list[str]]) -> list[str]:
    """The names in an order that keeps every need, otherwise as they stand. Raises ScoreError with the cycle's path."""
    waiting = {name: len(set(of)) for name, of in needs.items()}
    dependents: dict[str, list[str]] = {name: [] for name in needs}
    for name, of in needs.items():
        for source in dict.fromkeys(of):
            dependents[source].append(name)
    return _drain(needs, waiting, dependents)


def _drain(needs: dict[str, list[str]], waiting: dict[str, int], dependents: dict[str, list[str]]) -> list[str]:
    from heapq import heapify, heappop, heappush

    number = {name: at for at, name in enumerate(needs)}
    names = list(needs)
    ready = [number[name] for name, left in waiting.items() if not left]
    heapify(ready)
    order: list[str] = []
    while ready:
        name = names[heappop(ready)]
        order.append(name)
        for dependent in dependents[name]:
            waiting[dependent] -= 1
            if not waiting[dependent]:
                heappush(ready, number[dependent])
    if len(order) < len(needs):
        raise ScoreError(f"the steps form a cycle: {' -> '.join(find_cycle(needs))}")
    return order


def find_cycle(needs: dict[str, list[str]]) -> list[str]:
    """One cycle as a path in the direction of the data, its first name repeated at the end; [] if there is none."""
    done: set[str] = set()
    for start in needs:
        path: dict[str, Any] = {}
        if start not in done:
            path[start] = iter(needs[start])
        while path:
            name = next(reversed(path))
            following = next((other for other in path[name] if other not in done), None)
            if following is None:
                done.add(name)
                del path[name]
            elif following in path:
                cycle = list(path)[list(path).index(following) :]
                return [cycle[0], *reversed(cycle)]
            else:
                path[following] = iter(needs[following])
    return []
