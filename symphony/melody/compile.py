"""From a melody as nested dicts (the form that TOML, YAML and the Python builder give) to a score, or to its mistakes.

A catalogue, if one is given, says what handlers there are: {extension id: {"handlers": {name: {"inputs": {argument:
type}, "outputs": {name: type}}}}}. A type is a text, which makes an input required, or {"type": ..., "default": ...}.
"output": type stands for one output without a name. Without a catalogue, handlers and their arguments are not checked,
and a step has the outputs that the melody mentions.
"""

import datetime
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from symphony.melody.places import Path, Place, Places
from symphony.melody.references import ITEM, NAME, Reference, StrayBrace, parse_source, split
from symphony.melody.types import base, constant_fits, fits, item_of, seconds_of, type_of
from symphony.model import limits
from symphony.model.errors import MelodyError, ScoreError
from symphony.model.score import INPUT_TYPES, InputType, Score, Slot, Source, Step, find_cycle, topological, validate
from symphony.model.words import nearest

Catalogue = Mapping[str, Mapping[str, Any]]

_TOP_KEYS = ("melody", "steps")
_MELODY_KEYS = ("name", "about", "inputs", "outputs")
_INPUT_KEYS = ("type", "default", "about")
_STEP_KEYS = (
    "use", "with", "each", "batch", "after", "retries", "backoff", "timeout", "once", "estimate", "need", "model",
    "about",
)  # fmt: skip


def compile_document(
    document: Mapping[str, Any],
    *,
    file: str | None = None,
    places: Places | None = None,
    catalogue: Catalogue | None = None,
) -> Score:
    """The score of a melody. Raises the MelodyError of the first mistake in the text; its `errors` holds them all."""
    compiler = _Compiler(document, file, places or Places(), catalogue)
    score = compiler.run()
    if compiler.problems:
        raise first_of(compiler.problems)
    assert score is not None
    return score


def first_of(problems: list[MelodyError]) -> MelodyError:
    """The mistake that stands first in the file, with all of them in its `errors`."""
    ordered = sorted(problems, key=lambda error: (error.line or 0, error.column or 0))
    ordered[0].errors = ordered
    return ordered[0]


class _Value(NamedTuple):
    """What a reference resolves to: where it comes from (None: the node's item), its type, and whether it is a join."""

    source: Source | None
    type: str
    many: bool


class _Draft:
    """One step while it is compiled."""

    def __init__(self, name: str, path: Path, table: Mapping[str, Any]) -> None:
        self.name = name
        self.path = path
        self.table = table
        self.extension = ""
        self.handler = ""
        self.inputs: Mapping[str, Any] | None = None  # declared by the catalogue
        self.outputs: dict[str, str] | None = None  # declared by the catalogue
        self.mentioned: dict[str, None] = {}  # without one: output names that the melody mentions
        self.bare: Path | None = None  # without one: where it is mentioned without an output's name
        self.plain: dict[str, Any] = {}  # the plain keys: retries, need, ...
        self.each: _Value | None = None
        self.slots: list[Slot] = []
        self.arguments: dict[str, dict[str, Any]] = {}
        self.after: list[str] = []
        self.needs: dict[str, Path] = {}  # steps needed, and where each is first named


class _Compiler:
    def __init__(
        self, document: Mapping[str, Any], file: str | None, places: Places, catalogue: Catalogue | None
    ) -> None:
        self.document = document
        self.file = file
        self.places = places
        self.catalogue = catalogue
        self.problems: list[MelodyError] = []
        self.inputs: dict[str, InputType] = {}
        self.input_order: list[str] = []
        self.drafts: dict[str, _Draft] = {}

    def run(self) -> Score | None:
        self.known_keys((), self.document, _TOP_KEYS)
        melody = self.table(("melody",), self.document.get("melody"), required=True)
        self.known_keys(("melody",), melody, _MELODY_KEYS)
        name = self.melody_name(melody)
        self.read_inputs(melody)
        self.read_steps()
        for draft in self.drafts.values():
            self.read_references(draft)
        outputs = self.read_outputs(melody)
        self.check_bare()
        order = self.order()
        if self.problems:
            return None
        steps = [self.step(self.drafts[each]) for each in order]
        outputs_at = {key: self.output_source(value) for key, value in outputs.items()}
        return self.validated(Score(name, self.inputs, self.input_order, steps, outputs_at))

    def validated(self, score: Score) -> Score | None:
        try:
            return validate(score)
        except ScoreError as error:
            self.problem(("melody",), error.message)
            return None

    # Mistakes

    def problem(self, path: Path, text: str, near: str | None = None, *, key: bool = False) -> None:
        place: Place | None = self.places.key(path) if key else self.places.value(path)
        line, column = place or (None, None)
        if place is None and not self.places.keys and path:
            text = f"{'.'.join(str(part) for part in path)}: {text}"
        self.problems.append(MelodyError(text, file=self.file, line=line, column=column, nearest=near))

    def unknown(self, path: Path, what: str, word: str, valid: Iterable[str], *, key: bool = False) -> None:
        valid = list(valid)
        near = nearest(word, valid)
        listed = f"; there are: {', '.join(valid)}" if near is None and 0 < len(valid) <= 12 else ""
        self.problem(path, f"unknown {what} {word!r}{listed}", near, key=key)

    def known_keys(self, path: Path, table: Mapping[str, Any], valid: tuple[str, ...]) -> None:
        for key in table:
            if key not in valid:
                self.unknown((*path, key), "key", str(key), valid, key=True)

    def expected(self, path: Path, what: str, value: Any) -> None:
        shown = repr(value) if isinstance(value, str | int | float | bool) else f"a {_word(value)}"
        self.problem(path, f"{path[-1]} must be {what}, not {shown[:60]}")

    def table(self, path: Path, value: Any, *, required: bool = False) -> Mapping[str, Any]:
        if isinstance(value, Mapping):
            return value
        if value is not None:
            self.expected(path, "a table", value)
        elif required:
            self.problem(path[:-1], f"the table [{path[-1]}] is missing")
        return {}

    # The melody's own table

    def melody_name(self, melody: Mapping[str, Any]) -> str:
        name = melody.get("name")
        if isinstance(name, str) and name.strip() and name.isprintable():
            return name
        if name is not None:
            self.expected(("melody", "name"), "a name", name)
        elif melody:
            self.problem(("melody",), "the melody needs a name")
        return "melody"

    def read_inputs(self, melody: Mapping[str, Any]) -> None:
        path: Path = ("melody", "inputs")
        for name, declared in self.table(path, melody.get("inputs")).items():
            if self.good_name((*path, name), "input", name):
                kind = self.input_type((*path, name), declared)
                self.inputs[name] = kind
                self.input_order.append(name)

    def good_name(self, path: Path, what: str, name: Any) -> bool:
        if not isinstance(name, str) or NAME.fullmatch(name) is None:
            self.problem(path, f"{what} name {name!r} must be letters, digits, _ and -, at most 64", key=True)
        elif name == ITEM:
            self.problem(path, f"'item' is the item of a fan-out; name this {what} otherwise", key=True)
        else:
            return True
        return False

    def input_type(self, path: Path, declared: Any) -> InputType:
        if isinstance(declared, str):
            self.check_input_type(path, declared)
            return InputType(declared)
        if not isinstance(declared, Mapping):
            self.expected(path, 'a type ("text") or a table ({ type = "int", default = 5 })', declared)
            return InputType("data")
        self.known_keys(path, declared, _INPUT_KEYS)
        kind = declared.get("type", "text")
        if not isinstance(kind, str):
            self.expected((*path, "type"), "a type", kind)
            return InputType("data")
        if not self.check_input_type((*path, "type"), kind) or "default" not in declared:
            return InputType(kind, required="default" not in declared)
        default = declared["default"]
        if not constant_fits(default, kind):
            self.problem((*path, "default"), f"default {default!r} is {type_of(default)}, the input is {kind}")
        return InputType(kind, _plain(default), required=False)

    def check_input_type(self, path: Path, kind: str) -> bool:
        if kind not in INPUT_TYPES:
            self.unknown(path, "type", kind, INPUT_TYPES)
        return kind in INPUT_TYPES

    # Steps: names and handlers first, so that every reference finds its step

    def read_steps(self) -> None:
        steps = self.table(("steps",), self.document.get("steps"), required=True)
        for name, table in steps.items():
            path: Path = ("steps", name)
            if not self.good_name(path, "step", name):
                continue
            if name in self.inputs:
                self.problem(path, f"step {name!r} has the name of an input", key=True)
            draft = _Draft(name, path, self.table(path, table))
            self.drafts[name] = draft
            self.known_keys(path, draft.table, _STEP_KEYS)
            self.read_use(draft)
            draft.plain = _Plain(self, draft).fields()
        if not steps and "steps" in self.document:
            self.problem(("steps",), "the melody has no steps")

    def read_use(self, draft: _Draft) -> None:
        use = draft.table.get("use")
        path = (*draft.path, "use")
        if use is None:
            self.problem(draft.path, f'step {draft.name!r} needs use = "extension.handler"', key=True)
            return
        extension, dot, handler = use.rpartition(".") if isinstance(use, str) else ("", "", "")
        if not dot or not extension or not handler:
            self.expected(path, 'a handler ("explorer.walk")', use)
            return
        draft.extension, draft.handler = extension, handler
        if self.catalogue is not None:
            self.look_up(draft, path)

    def look_up(self, draft: _Draft, path: Path) -> None:
        assert self.catalogue is not None
        extension = self.catalogue.get(draft.extension)
        if extension is None:
            self.unknown(path, "extension", draft.extension, self.catalogue)
            return
        handlers = extension.get("handlers", {})
        if draft.handler not in handlers:
            self.unknown(path, f"handler of {draft.extension!r}:", draft.handler, handlers)
            return
        declared = handlers[draft.handler]
        draft.inputs = declared.get("inputs", {})
        outputs = declared.get("outputs") or {"": declared.get("output", "any")}
        draft.outputs = {name: _declared_type(kind) for name, kind in outputs.items()}

    # References

    def read_references(self, draft: _Draft) -> None:
        self.read_each(draft)
        self.read_with(draft)
        self.read_after(draft)

    def read_each(self, draft: _Draft) -> None:
        each = draft.table.get("each")
        path = (*draft.path, "each")
        if each is None:
            if "batch" in draft.table:
                self.problem((*draft.path, "batch"), "batch needs each", key=True)
            return
        reference, braced = parse_source(each) if isinstance(each, str) else (None, False)
        if reference is None:
            self.expected(path, 'a step\'s output ("walk.files") or a run input ("{files}")', each)
            return
        if not braced and reference.name in self.inputs and reference.name not in self.drafts:
            self.problem(path, f"unknown step {reference.name!r}", f"{{{reference.name}}}")
            return
        value = self.resolve(draft, path, reference)
        if value is None:
            return
        kind = item_of(value.type)
        if kind is None and not value.many:
            self.problem(path, f"each needs a list, {str(reference)!r} is {value.type}")
            return
        draft.each = _Value(value.source, self.items_of(reference, value, kind), value.many)

    def items_of(self, reference: Reference, value: _Value, kind: str | None) -> str:
        """The type of a fan-out's items; over a fanned-out step whose outputs are lists they are flattened once."""
        if not value.many:
            return kind or "any"
        outputs = self.drafts[reference.name].outputs
        if outputs is None or value.source is None:
            return "any"
        declared = list(outputs.values())[value.source.output]
        return (item_of(declared) or "any") if base(declared) == "list" else declared

    def resolve(self, draft: _Draft, path: Path, reference: Reference) -> _Value | None:
        """What a reference means in this step; None (and a problem) if it means nothing."""
        name = reference.name
        if name == ITEM:
            return self.item(draft, path, reference)
        if name in self.drafts:
            return self.output_of(draft, path, reference)
        if name in self.inputs:
            if reference.output:
                self.problem(path, f"input {name!r} has no outputs, {str(reference)!r} names one")
                return None
            return _Value(Source("", self.input_order.index(name)), self.inputs[name].type, False)
        valid = [*self.drafts, *self.inputs, *([ITEM] if "each" in draft.table else [])]
        self.unknown(path, "step" if reference.output else "step or input", name, valid)
        return None

    def item(self, draft: _Draft, path: Path, reference: Reference) -> _Value | None:
        if reference.output:
            self.problem(path, f"{{{reference}}}: an item has no outputs; the handler gets it whole")
        elif "each" not in draft.table:
            self.problem(path, "{item} needs each on this step")
        else:
            batch = "batch" in draft.table
            return _Value(None, "list" if batch else draft.each.type if draft.each else "any", batch)
        return None

    def output_of(self, draft: _Draft, path: Path, reference: Reference) -> _Value | None:
        source = self.drafts[reference.name]
        number = self.output_number(source, path, reference)
        if number is None:
            return None
        draft.needs.setdefault(source.name, path)
        many = "each" in source.table
        kind = list(source.outputs.values())[number] if source.outputs is not None else "any"
        return _Value(Source(source.name, number), "list" if many else kind, many)

    def output_number(self, source: _Draft, path: Path, reference: Reference) -> int | None:
        if source.outputs is None:
            if not reference.output:
                source.bare = source.bare or path
                return 0
            source.mentioned.setdefault(reference.output)
            return list(source.mentioned).index(reference.output)
        names = list(source.outputs)
        if not reference.output and len(names) == 1:
            return 0
        if not reference.output:
            self.problem(path, f"{reference.name!r} has several outputs", f"{reference.name}.{names[0]}")
        elif reference.output in names:
            return names.index(reference.output)
        elif names == [""]:
            self.problem(path, f"step {reference.name!r} has one output without a name", reference.name)
        else:
            self.unknown(path, f"output of step {reference.name!r}:", reference.output, names)
        return None

    # Arguments

    def read_with(self, draft: _Draft) -> None:
        path = (*draft.path, "with")
        given = self.table(path, draft.table.get("with"))
        for name, value in given.items():
            if draft.inputs is not None and name not in draft.inputs:
                self.unknown((*path, name), f"argument of {draft.table['use']!r}:", str(name), draft.inputs, key=True)
                continue
            wanted = _declared_type(draft.inputs[name]) if draft.inputs is not None else "any"
            argument = self.argument(draft, (*path, name), value, wanted)
            if argument is not None:
                draft.arguments[str(name)] = argument
        for name, declared in (draft.inputs or {}).items():
            if name not in given and _is_required(declared):
                where = path if "with" in draft.table else draft.path
                self.problem(
                    where, f"{draft.table['use']!r} needs the argument {name!r} ({_declared_type(declared)})", key=True
                )

    def argument(self, draft: _Draft, path: Path, value: Any, wanted: str) -> dict[str, Any] | None:
        if isinstance(value, str):
            return self.text_argument(draft, path, value, wanted)
        if isinstance(value, list | tuple) and any(_is_placeholder(entry) for entry in value):
            return self.list_argument(draft, path, value, wanted)
        literal = self.constant(path, value)
        if not constant_fits(literal, wanted):
            self.problem(path, f"argument {path[-1]!r} is {type_of(literal)}, the handler takes {wanted}")
        return {"value": literal}

    def text_argument(self, draft: _Draft, path: Path, text: str, wanted: str) -> dict[str, Any] | None:
        parts = self.split(path, text)
        if parts is None:
            return None
        if len(parts) == 1 and isinstance(parts[0], Reference):
            value = self.resolve(draft, path, parts[0])
            if value is None:
                return None
            self.check_fit(path, parts[0], value, wanted)
            return {"slot": self.slot(draft, value)}
        if not fits("text", wanted):
            self.problem(path, f"argument {path[-1]!r} is text, the handler takes {wanted}")
        if not any(isinstance(part, Reference) for part in parts):
            return {"value": "".join(str(part) for part in parts)}
        return self.format_argument(draft, path, parts)

    def split(self, path: Path, text: str) -> list[str | Reference] | None:
        try:
            return split(text)
        except StrayBrace as error:
            self.problem(path, str(error))
            return None

    def check_fit(self, path: Path, reference: Reference, value: _Value, wanted: str) -> None:
        if fits(value.type, wanted):
            return
        why = ""
        if value.many:
            why = ", one batch of items" if value.source is None else f": step {reference.name!r} is fanned out"
        self.problem(path, f"{{{reference}}} is {value.type}{why}; the handler takes {path[-1]!r} as {wanted}")

    def slot(self, draft: _Draft, value: _Value) -> int:
        slot = Slot(each=True, many=value.many) if value.source is None else Slot(value.source, many=value.many)
        if slot not in draft.slots:
            draft.slots.append(slot)
        return draft.slots.index(slot)

    def format_argument(self, draft: _Draft, path: Path, parts: list[str | Reference]) -> dict[str, Any] | None:
        template, slots = "", []
        for part in parts:
            if isinstance(part, str):
                template += part.replace("{", "{{").replace("}", "}}")
                continue
            value = self.resolve(draft, path, part)
            if value is None:
                return None
            slot = self.slot(draft, value)
            if slot not in slots:
                slots.append(slot)
            template += f"{{{slots.index(slot)}}}"
        return {"format": template, "slots": slots}

    def list_argument(self, draft: _Draft, path: Path, value: Iterable[Any], wanted: str) -> dict[str, Any] | None:
        """A list of placeholders: the handler gets a list of those values."""
        slots: list[int] = []
        for number, entry in enumerate(value):
            where = (*path, number)
            if not _is_placeholder(entry):
                self.problem(where, "a list is either placeholders or constants, not both")
                return None
            found = self.text_argument(draft, where, entry, "any")
            if found is None:
                return None
            slots.append(found["slot"])
        if not fits("list", wanted):
            self.problem(path, f"argument {path[-1]!r} is list, the handler takes {wanted}")
        return {"slots": slots}

    def constant(self, path: Path, value: Any) -> Any:
        """A constant as it travels; placeholders deep inside one are refused, they would be taken literally."""
        if isinstance(value, str):
            parts = self.split(path, value)
            if parts and any(isinstance(part, Reference) for part in parts):
                self.problem(
                    path,
                    "a placeholder inside a table or a nested list is not filled; pass it as an argument of its own",
                )
            return "".join(str(part) for part in parts or [])
        if isinstance(value, Mapping):
            return {key: self.constant((*path, key), entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [self.constant((*path, number), entry) for number, entry in enumerate(value)]
        return _plain(value)

    def read_after(self, draft: _Draft) -> None:
        path = (*draft.path, "after")
        after = draft.table.get("after", [])
        if not isinstance(after, list | tuple):
            self.expected(path, "a list of step names", after)
            return
        for number, name in enumerate(after):
            where = (*path, number)
            if not isinstance(name, str):
                self.expected(path, "a list of step names", after)
            elif name not in self.drafts:
                self.unknown(where, "step", name, self.drafts)
            else:
                draft.needs.setdefault(name, where)
                draft.after.append(name)

    # Outputs and order

    def read_outputs(self, melody: Mapping[str, Any]) -> dict[str, Reference]:
        path: Path = ("melody", "outputs")
        found = {}
        for name, text in self.table(path, melody.get("outputs")).items():
            where = (*path, name)
            reference, _ = parse_source(text) if isinstance(text, str) else (None, False)
            if reference is None:
                self.expected(where, 'a step\'s output ("search.passages")', text)
            elif reference.name not in self.drafts:
                self.unknown(where, "step", reference.name, self.drafts)
            elif self.output_number(self.drafts[reference.name], where, reference) is not None:
                found[str(name)] = reference
        return found

    def check_bare(self) -> None:
        for draft in self.drafts.values():
            if draft.bare is not None and len(draft.mentioned) > 1:
                self.problem(
                    draft.bare, f"{draft.name!r} has several outputs", f"{draft.name}.{next(iter(draft.mentioned))}"
                )

    def output_source(self, reference: Reference) -> Source:
        number = self.output_number(self.drafts[reference.name], ("melody", "outputs"), reference)
        return Source(reference.name, number or 0)

    def order(self) -> list[str]:
        needs = {name: list(draft.needs) for name, draft in self.drafts.items()}
        cycle = find_cycle(needs)
        if not cycle:
            return topological(needs)
        where = self.drafts[cycle[1]].needs[cycle[0]]
        self.problem(where, f"the steps form a cycle: {' -> '.join(cycle)}")
        return []

    def step(self, draft: _Draft) -> Step:
        return Step(
            name=draft.name, use=draft.table["use"], extension=draft.extension, handler=draft.handler,
            slots=draft.slots, arguments=draft.arguments, each=draft.each.source if draft.each else None,
            after=draft.after, outputs=list(draft.outputs if draft.outputs is not None else draft.mentioned) or [""],
            **draft.plain,
        )  # fmt: skip


class _Plain:
    """The keys of a step that are plain numbers, flags and names."""

    def __init__(self, compiler: _Compiler, draft: _Draft) -> None:
        self.compiler = compiler
        self.table = draft.table
        self.path = draft.path

    def fields(self) -> dict[str, Any]:
        """Fields of a Step by name."""
        once, retries = self.flag("once"), self.whole("retries", 0, limits.RETRIES)
        if once and retries:
            text = "once = true never runs a step twice: it cannot have retries"
            self.compiler.problem((*self.path, "retries"), text, key=True)
        return {
            "model": self.text("model"), "batch": self.whole("batch", 1, limits.BATCH), "retries": retries,
            "once": once, "backoff_s": self.duration("backoff"), "timeout_s": self.duration("timeout"),
            "estimate_s": self.duration("estimate"), "need": self.need(),
        }  # fmt: skip

    def take(self, key: str, default: Any, good: Callable[[Any], bool], what: str) -> Any:
        value = self.table.get(key)
        if value is None:
            return default
        if good(value):
            return value
        self.compiler.expected((*self.path, key), what, value)
        return default

    def whole(self, key: str, low: int, high: int) -> int:
        what = f"a whole number from {low} to {high}"
        return int(self.take(key, 0, lambda value: type(value) is int and low <= value <= high, what))

    def text(self, key: str) -> str:
        return str(self.take(key, "", lambda value: isinstance(value, str) and value != "", "a name"))

    def flag(self, key: str) -> bool:
        return bool(self.take(key, False, lambda value: isinstance(value, bool), "true or false"))

    def duration(self, key: str) -> float:
        what = 'a duration ("2s", "500ms", "5m")'
        return seconds_of(self.take(key, 0.0, lambda value: seconds_of(value) is not None, what)) or 0.0

    def need(self) -> dict[str, int]:
        path = (*self.path, "need")
        found = {}
        for name, amount in self.compiler.table(path, self.table.get("need")).items():
            if type(amount) is int and 0 <= amount < 1 << 32:
                found[str(name)] = amount
            else:
                self.compiler.expected((*path, name), "a whole number of 0 or more", amount)
        return found


def _declared_type(declared: Any) -> str:
    if isinstance(declared, Mapping):
        declared = declared.get("type", "any")
    return str(declared)


def _is_required(declared: Any) -> bool:
    if isinstance(declared, Mapping):
        return bool(declared.get("required", "default" not in declared))
    return True


def _is_placeholder(value: Any) -> bool:
    if not isinstance(value, str):
        return False
    try:
        parts = split(value)
    except StrayBrace:
        return False
    return len(parts) == 1 and isinstance(parts[0], Reference)


def _plain(value: Any) -> Any:
    """Dates and times have no type of their own between steps: they travel as text."""
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    return [_plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return "table"
    return "list" if isinstance(value, list | tuple) else type(value).__name__
