"""Checks the record of a played WfFormat instance. Shares no code with the engine: only json and blake3.

    python check_record.py INSTANCE.json RECORD.jsonl [--size-scale X]

Verifies that every task ran once and is done, that every parent ended before its child started, and that every
file's bytes, recomputed here from the task names alone, are those that the record names. A file has 64 bytes at
size scale 0, otherwise max(64, round(size x scale)): output of BLAKE3 over the task's name and its inputs' bytes in
the order of their names. Exit code 0: all right; 1: the record is wrong (each finding on stderr); 2: cannot be read.
"""

import argparse
import json
import sys
from graphlib import CycleError, TopologicalSorter

from blake3 import blake3

SHOWN = 20
LEAST_BYTES = 64


class Unreadable(Exception):
    """The instance or the record is not what it should be."""


class Task:
    def __init__(self, entry):
        self.id = entry["id"]
        self.name = entry["name"]
        self.parents = set(entry.get("parents", []))
        self.reads = sorted(set(entry.get("inputFiles", [])))
        self.makes = list(entry.get("outputFiles", []))


class Instance:
    """The workflow: tasks by id, the maker of each file, and the bytes each file must have."""

    def __init__(self, document, size_scale=0.0):
        specification = document["workflow"]["specification"]
        self.tasks = {entry["id"]: Task(entry) for entry in specification["tasks"]}
        self.sizes = {entry["id"]: entry.get("sizeInBytes", 0) for entry in specification.get("files", [])}
        self.size_scale = size_scale
        self.maker = {name: task.id for task in self.tasks.values() for name in task.makes}
        self.needs = {task.id: task.parents | self.file_parents(task) for task in self.tasks.values()}
        self.content = {}
        for identifier in TopologicalSorter(self.needs).static_order():
            self.compute(self.tasks[identifier])

    def file_parents(self, task):
        return {self.maker[name] for name in task.reads if name in self.maker}

    def made_inputs(self, task):
        return [name for name in task.reads if name in self.maker]

    def outputs(self, task):
        """(name, bytes) of each item that the task makes; a task without files makes one named by its id."""
        if not task.makes:
            return [(task.id, self.content[("task", task.id)])]
        return [(name, self.content[("file", name)]) for name in task.makes]

    def compute(self, task):
        hasher = blake3(task.name.encode("utf-8"))
        for name in self.made_inputs(task):
            hasher.update(self.content[("file", name)])
        for name in task.makes:
            size = max(LEAST_BYTES, round(self.sizes.get(name, 0) * self.size_scale))
            self.content[("file", name)] = hasher.digest(length=size)
        self.content[("task", task.id)] = hasher.digest(length=LEAST_BYTES)


def read_instance(path, size_scale):
    try:
        with open(path, encoding="utf-8") as file:
            return Instance(json.load(file), size_scale)
    except (OSError, ValueError, KeyError, TypeError, CycleError) as error:
        raise Unreadable(f"{path}: {type(error).__name__}: {error}") from error


def read_record(path):
    lines = []
    try:
        with open(path, encoding="utf-8") as file:
            for number, text in enumerate(file, 1):
                line = json.loads(text)
                if not isinstance(line, dict) or not isinstance(line.get("step"), str):
                    raise Unreadable(f"{path}:{number}: not a record line")
                lines.append((number, line))
    except (OSError, ValueError) as error:
        raise Unreadable(f"{path}: {type(error).__name__}: {error}") from error
    return lines


def by_task(instance, lines, findings):
    """The one done line of each task."""
    done = {}
    for number, line in lines:
        step = line["step"]
        if step not in instance.tasks:
            findings.append(f"line {number}: the instance has no task {step!r}")
        elif step in done:
            findings.append(f"line {number}: task {step!r} stands twice")
        else:
            done[step] = line
            if line.get("state") != "done":
                findings.append(f"line {number}: task {step!r} is {line.get('state')!r}, not done")
    findings.extend(f"task {step!r} is missing" for step in instance.tasks if step not in done)
    return done


def check_facts(step, line, findings):
    for key, least in (("node", 0), ("attempt", 1), ("pid", 1), ("started_ns", 1), ("ended_ns", 1)):
        value = line.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            findings.append(f"task {step!r}: {key} is {value!r}")
            return False
    if not isinstance(line.get("extension"), str) or not line["extension"]:
        findings.append(f"task {step!r}: no extension is named")
    if line["started_ns"] > line["ended_ns"]:
        findings.append(f"task {step!r} ended before it started")
    return True


def check_order(instance, done, findings):
    timed = {step for step, line in done.items() if check_facts(step, line, findings)}
    checked = 0
    for child, parents in instance.needs.items():
        for parent in sorted(parents):
            checked += 1
            if child in timed and parent in timed and done[parent]["ended_ns"] > done[child]["started_ns"]:
                findings.append(f"task {child!r} started before its parent {parent!r} had ended")
    nodes = [line["node"] for step, line in done.items() if step in timed]
    if len(set(nodes)) != len(nodes):
        findings.append("two tasks have the same node number")
    return checked


def check_values(step, what, listed, expected, findings):
    """Compare the record's list of values with the recomputed (name, bytes), in order."""
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        findings.append(f"task {step!r}: {what} are not a list")
        return 0
    names = [entry.get("name") for entry in listed]
    if names != [name for name, _ in expected]:
        findings.append(f"task {step!r}: {what} are {names[:5]}, expected {[name for name, _ in expected][:5]}")
        return 0
    for entry, (name, content) in zip(listed, expected, strict=True):
        check_value(step, what, entry, name, content, findings)
    return len(expected)


def check_value(step, what, entry, name, content, findings):
    where = f"task {step!r}, {what}, file {name!r}"
    if entry.get("bytes") != len(content):
        findings.append(f"{where}: {entry.get('bytes')!r} bytes, expected {len(content)}")
    elif entry.get("kind") != "bytes":
        findings.append(f"{where}: kind {entry.get('kind')!r}, expected bytes")
    elif len(content) <= LEAST_BYTES and entry.get("hex") != content.hex():
        findings.append(f"{where}: other bytes than recomputed")
    elif entry.get("id") != "b3:" + blake3(content).hexdigest():
        findings.append(f"{where}: other id than recomputed")


def check(instance, lines):
    """Findings (empty: all right), dependencies checked, files checked."""
    findings = []
    done = by_task(instance, lines, findings)
    dependencies = check_order(instance, done, findings)
    files = 0
    for step, line in done.items():
        task = instance.tasks[step]
        inputs = [(name, instance.content[("file", name)]) for name in instance.made_inputs(task)]
        check_values(step, "inputs", line.get("inputs"), inputs, findings)
        files += check_values(step, "outputs", line.get("outputs"), instance.outputs(task), findings)
    return findings, dependencies, files


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Check the record of a played WfFormat instance.")
    parser.add_argument("instance")
    parser.add_argument("record")
    parser.add_argument("--size-scale", type=float, default=0.0)
    options = parser.parse_args(arguments)
    try:
        instance = read_instance(options.instance, options.size_scale)
        lines = read_record(options.record)
    except Unreadable as error:
        print(error, file=sys.stderr)
        return 2
    findings, dependencies, files = check(instance, lines)
    for finding in findings[:SHOWN]:
        print(finding, file=sys.stderr)
    if findings:
        print(f"{options.record}: {len(findings)} findings", file=sys.stderr)
        return 1
    print(f"{options.record}: {len(instance.tasks)} tasks, {dependencies} dependencies, {files} files: all right")
    return 0


if __name__ == "__main__":
    sys.exit(main())
