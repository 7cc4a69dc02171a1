"""Recorded workflows in WfFormat 1.5 (wfcommons.org) as scores: every task a step that pretends to work.

A task's step is named by its id and calls `operators.work` with
  task     the task's name
  seconds  its run time x time_scale
  sizes    the bytes of each file that it makes
  inputs   the files that other tasks made, in the order of their names (files that no task made have no bytes)
Each input is a slot: item number `first` of the producer's output, which is a list with one bytes item a file, in the
order in which the instance lists the producer's output files. A task without output files makes one item named by
its id.

A file has 64 bytes at size_scale 0, otherwise its size x size_scale, but never under 64: those 64 can be checked.
"""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from symphony.model.errors import MelodyError, ScoreError
from symphony.model.score import InputType, Score, Slot, Source, Step, find_cycle, topological, validate
from symphony.model.work import WORK_BYTES

SCHEMA = "1.5"
USE = "operators.work"


def load(path: str | Path, *, time_scale: float = 1.0, size_scale: float = 0.0) -> Score:
    """The score of an instance in a file. Raises MelodyError with the file, and the place where it is known."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise MelodyError(f"cannot read the instance: {error.strerror or error}", file=str(path)) from None
    except UnicodeDecodeError as error:
        raise MelodyError(f"the instance is not UTF-8 at byte {error.start}", file=str(path)) from None
    return loads(text, file=str(path), time_scale=time_scale, size_scale=size_scale)


def loads(text: str, *, file: str = "<text>", time_scale: float = 1.0, size_scale: float = 0.0) -> Score:
    """The score of an instance's text. Raises MelodyError. Cost: linear in tasks and files."""
    for name, scale in (("time scale", time_scale), ("size scale", size_scale)):
        if not 0 <= scale < float("inf"):
            raise MelodyError(f"{name} must be 0 or more, got {scale}", file=file)
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise MelodyError(f"not JSON: {error.msg}", file=file, line=error.lineno, column=error.colno) from None
    except RecursionError:
        raise MelodyError("not a WfFormat instance: nested too deep", file=file) from None
    return _Instance(document, text, file).score(time_scale, size_scale)


def is_instance(document: Any) -> bool:
    """Whether a parsed JSON document looks like a WfFormat instance."""
    return isinstance(document, dict) and "workflow" in document and "schemaVersion" in document


class _Task:
    __slots__ = ("after", "id", "inputs", "name", "outputs", "parents", "runtime", "slots")

    def __init__(self, identifier: str, name: str, parents: list[str], inputs: list[str], outputs: list[str]) -> None:
        self.id = identifier
        self.name = name
        self.parents = parents
        self.inputs = sorted(set(inputs))
        self.outputs = outputs
        self.runtime = 0.0
        self.slots: list[tuple[str, int, str]] = []
        self.after: list[str] = []


class _Instance:
    """One document on its way to a score."""

    def __init__(self, document: Any, text: str, file: str) -> None:
        self.text = text
        self.file = file
        if not is_instance(document):
            raise self._error("not a WfFormat instance: it needs schemaVersion and workflow")
        if document["schemaVersion"] != SCHEMA:
            raise self._error(
                f"WfFormat {document['schemaVersion']!r} is not read here, only {SCHEMA}", near="schemaVersion"
            )
        self.name = self._text(document.get("name") or Path(file).stem, "name")
        workflow = self._dict(document["workflow"], "workflow")
        self.specification = self._dict(workflow.get("specification"), "workflow.specification")
        self.execution = self._dict(workflow.get("execution", {}), "workflow.execution")

    def score(self, time_scale: float, size_scale: float) -> Score:
        tasks = self._tasks()
        self._runtimes(tasks)
        self._join(tasks)
        order = self._order(tasks)
        sizes = self._sizes()
        steps = [_step(tasks[name], sizes, time_scale, size_scale) for name in order]
        followed = {source for task in tasks.values() for source in [*task.parents, *(slot[0] for slot in task.slots)]}
        ends = {name: Source(name) for name in order if name not in followed}
        meta = {task.id: _meta(task) for task in tasks.values()}
        inputs: dict[str, InputType] = {}
        try:
            return validate(Score(name=self.name, inputs=inputs, steps=steps, outputs=ends, meta=meta))
        except ScoreError as error:
            raise self._error(error.message) from None

    def _tasks(self) -> dict[str, _Task]:
        entries = self._list(self.specification.get("tasks"), "workflow.specification.tasks")
        if not entries:
            raise self._error("the instance has no tasks", near="tasks")
        found: dict[str, _Task] = {}
        for number, entry in enumerate(entries):
            where = f"tasks[{number}]"
            task = self._task(self._dict(entry, where), where)
            if task.id in found:
                raise self._error(f"two tasks have the id {task.id!r}", near=task.id, again=True)
            found[task.id] = task
        return found

    def _task(self, entry: dict[str, Any], where: str) -> _Task:
        identifier = self._text(entry.get("id"), f"{where}.id")
        return _Task(
            identifier,
            self._text(entry.get("name"), f"{where}.name"),
            self._texts(entry.get("parents", []), f"{where}.parents"),
            self._texts(entry.get("inputFiles", []), f"{where}.inputFiles"),
            self._texts(entry.get("outputFiles", []), f"{where}.outputFiles"),
        )

    def _runtimes(self, tasks: dict[str, _Task]) -> None:
        for number, entry in enumerate(self._list(self.execution.get("tasks", []), "workflow.execution.tasks")):
            where = f"workflow.execution.tasks[{number}]"
            entry = self._dict(entry, where)
            task = tasks.get(self._text(entry.get("id"), f"{where}.id"))
            if task is not None:
                task.runtime = self._number(entry.get("runtimeInSeconds", 0), f"{where}.runtimeInSeconds")

    def _sizes(self) -> dict[str, float]:
        sizes = {}
        for number, entry in enumerate(self._list(self.specification.get("files", []), "workflow.specification.files")):
            where = f"workflow.specification.files[{number}]"
            entry = self._dict(entry, where)
            name = self._text(entry.get("id"), f"{where}.id")
            sizes[name] = self._number(entry.get("sizeInBytes", 0), f"{where}.sizeInBytes")
        return sizes

    def _join(self, tasks: dict[str, _Task]) -> None:
        """Each task's slots (producer, index, file) and the parents that it waits for without taking a file."""
        producer: dict[str, tuple[str, int]] = {}
        for task in tasks.values():
            for index, name in enumerate(task.outputs):
                if name in producer:
                    first = producer[name][0]
                    raise self._error(f"file {name!r} has two producers: {first!r} and {task.id!r}", near=name)
                producer[name] = (task.id, index)
        for task in tasks.values():
            task.slots = [(*producer[name], name) for name in task.inputs if name in producer]
            sources = {source for source, _, _ in task.slots}
            for parent in task.parents:
                if parent not in tasks:
                    raise self._unknown_parent(task, parent, tasks)
            task.after = [parent for parent in dict.fromkeys(task.parents) if parent not in sources]

    def _unknown_parent(self, task: _Task, parent: str, tasks: Iterable[str]) -> MelodyError:
        from symphony.model.words import nearest

        problem = f"task {task.id!r} has the unknown parent {parent!r}"
        return self._error(problem, near=parent, nearest=nearest(parent, tasks))

    def _order(self, tasks: dict[str, _Task]) -> list[str]:
        needs = {task.id: [*(slot[0] for slot in task.slots), *task.after] for task in tasks.values()}
        cycle = find_cycle(needs)
        if cycle:
            raise self._error(f"the tasks form a cycle: {' -> '.join(cycle)}", near=cycle[0])
        return topological(needs)

    # What a document may hold: every entry is checked, with its path in the message.

    def _error(
        self, problem: str, *, near: str | None = None, nearest: str | None = None, again: bool = False
    ) -> MelodyError:
        line, column = self._locate(near, again) if near is not None else (None, None)
        return MelodyError(problem, file=self.file, line=line, column=column, nearest=nearest)

    def _locate(self, word: str, again: bool) -> tuple[int | None, int | None]:
        """The place of a string in the text: the first one, or the second that is an id."""
        quoted = re.escape(json.dumps(word, ensure_ascii=False))
        found = [match.start(1) for match in re.finditer(rf'"id"\s*:\s*({quoted})', self.text)][1:2] if again else []
        if not found:
            found = [match.start() for match in re.finditer(quoted, self.text)][:1]
        if not found:
            return None, None
        at = found[0]
        return self.text.count("\n", 0, at) + 1, at - self.text.rfind("\n", 0, at)

    def _dict(self, value: Any, where: str) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._error(f"{where} must be an object, it is {_kind(value)}")
        return value

    def _list(self, value: Any, where: str) -> list[Any]:
        if not isinstance(value, list):
            raise self._error(f"{where} must be a list, it is {_kind(value)}")
        return value

    def _text(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not value:
            raise self._error(f"{where} must be a text, it is {_kind(value)}")
        return value

    def _texts(self, value: Any, where: str) -> list[str]:
        return [self._text(entry, f"{where}[{number}]") for number, entry in enumerate(self._list(value, where))]

    def _number(self, value: Any, where: str) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e18:
            raise self._error(f"{where} must be a number of 0 or more, it is {_kind(value)}")
        return float(value)


def _kind(value: Any) -> str:
    if value is None:
        return "missing"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return f"the text {value[:40]!r}" if isinstance(value, str) else repr(value)[:40]


def _step(task: _Task, sizes: dict[str, float], time_scale: float, size_scale: float) -> Step:
    arguments: dict[str, dict[str, Any]] = {
        "task": {"value": task.name},
        "seconds": {"value": task.runtime * time_scale},
        "sizes": {"value": [scaled_bytes(sizes.get(name, 0), size_scale) for name in task.outputs] or [WORK_BYTES]},
    }
    if task.slots:
        arguments["inputs"] = {"slots": list(range(len(task.slots)))}
    slots = [Slot(Source(source), first=index, count=1) for source, index, _ in task.slots]
    extension, handler = USE.rsplit(".", 1)
    return Step(
        name=task.id, use=USE, extension=extension, handler=handler, slots=slots, after=task.after,
        arguments=arguments, estimate_s=min(task.runtime * time_scale, 31_622_400.0),
    )  # fmt: skip


def scaled_bytes(size: float, size_scale: float) -> int:
    """Bytes that a file of `size` bytes gets: 64 at least, so that its digest is there to be checked at every scale."""
    return max(WORK_BYTES, round(size * size_scale))


def _meta(task: _Task) -> dict[str, Any]:
    names = [name for _, _, name in task.slots]
    return {"inputs": names, "outputs": task.outputs or [task.id], "name": task.name}
