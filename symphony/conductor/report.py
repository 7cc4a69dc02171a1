"""What the engine says of itself to people: runs, status, records. Reads tables; changes nothing."""

import os
from typing import Any

import numpy as np

from symphony.melody.record import all_names, choose, record_line
from symphony.model import value
from symphony.native.layout import constants, names
from symphony.pit.tables import UNSET

STATE_SHIFT = constants["SYM_NODE_STATE_SHIFT"]
ATTEMPT_SHIFT, ATTEMPT_MASK = constants["SYM_NODE_ATTEMPT_SHIFT"], constants["SYM_NODE_ATTEMPT_MASK"]
PLAYER_SHIFT, PLAYER_MASK = constants["SYM_NODE_PLAYER_SHIFT"], constants["SYM_NODE_PLAYER_MASK"]
DISPATCHED, STORING, DONE, FAILED = (
    constants[f"SYM_NODE_{name}"] for name in ("DISPATCHED", "STORING", "DONE", "FAILED")
)
ITEM = constants["SYM_INPUT_ITEM"]
NODE_NAMES, RUN_NAMES = names("sym_node_state"), names("sym_run_state")
PLAYER_NAMES, REASONS = names("sym_player_state"), names("sym_reason")


def _rows(conductor: Any, run: Any) -> np.ndarray:
    return run.segment.table("nodes")[: int(conductor.tables.runs[run.row]["node_count"])]


def describe_run(conductor: Any, run: Any, steps: bool = True) -> dict[str, Any]:
    """A run as a dict (schema of the control door)."""
    shared = conductor.tables.runs[run.row]
    state = RUN_NAMES[int(shared["word"]) >> constants["SYM_RUN_STATE_SHIFT"]]
    described = {
        "run": run.serial, "name": run.score.name, "state": state,
        "nodes": int(shared["total_count"]) - 1, "done": max(0, int(shared["done_count"]) - 1),
        "failed": int(shared["failed_count"]), "running": int(shared["flight_count"]),
        "submitted_ns": int(shared["submitted_ns"]), "started_ns": int(shared["started_ns"]), "ended_ns": int(shared["ended_ns"]),
        "error": run.error,
    }  # fmt: skip
    if steps:
        described["steps"] = _steps(conductor, run)
    return described


def _steps(conductor: Any, run: Any) -> list[dict[str, Any]]:
    rows = _rows(conductor, run)
    owner = rows["step"].astype(np.int64)
    states = (rows["word"] >> STATE_SHIFT).astype(np.int64)
    real = (rows["word"] >> constants["SYM_NODE_FLAG_SHIFT"] & constants["SYM_NODE_GROUP"]) == 0
    count = len(run.score.steps) + 1
    per = {
        name: np.bincount(owner[real & mask], minlength=count)
        for name, mask in (
            ("nodes", states >= 0), ("done", states == DONE), ("failed", states == FAILED),
            ("running", (states == DISPATCHED) | (states == STORING)),
        )
    }  # fmt: skip
    groups = run.segment.table("groups")
    out = []
    for number, step in enumerate(run.score.steps, 1):
        group = int(rows[number]["group"])
        known = group == UNSET or bool(groups[group]["expanded"])
        numbers = {name: int(column[number]) for name, column in per.items()}
        out.append({"step": step.name, "state": _state_of(numbers, known), **numbers, "error": None})
    return out


def _state_of(numbers: dict[str, int], known: bool) -> str:
    if numbers["failed"]:
        return "failed"
    if numbers["running"]:
        return "running"
    if not known:
        return "pending"
    return "done" if numbers["done"] == numbers["nodes"] else ("running" if numbers["done"] else "pending")


def status_of(conductor: Any) -> dict[str, Any]:
    """The engine as a dict: processes, extensions with their isolation level, memory, counters."""
    tables = conductor.tables
    engine = tables.engine[0]
    return {
        "name": conductor.name, "pid": os.getpid(), "keeper_pid": conductor.keeper.pid,
        "level": 0, "level_text": "level 0: rlimits only, trusted code",
        "started_ns": int(engine["started_ns"]), "ready_ns": int(engine["ready_ns"]), "clock_ns": int(engine["clock_ns"]),
        "restarts": int(engine["restarts"]), "resumed_ns": int(engine["resumed_ns"]),
        "swept": {"segments": list(conductor.claim.swept.segments), "bytes": conductor.claim.swept.size_bytes},
        "runs": {"kept": len(conductor.runs_by_serial), "active": int(conductor.control[0]["active_count"])},
        "extensions": [_extension(conductor, hosted) for hosted in conductor.hosted.values()],
        "players": [_player(conductor, player) for player in list(conductor.players.live.values())],
        "resources": [
            {"name": name, "capacity": int(tables.resources[i]["capacity"]), "used": int(tables.resources[i]["used"])}
            for i, name in enumerate(conductor.capacity)
        ],
        "artifacts": conductor.store.totals(),
        "counters": {
            name: int(tables.counters[number]["value"]) for number, name in names("sym_counter").items()
            if number < constants["SYM_COUNTER_COUNT"]
        },
    }  # fmt: skip


def _extension(conductor: Any, hosted: Any) -> dict[str, Any]:
    row = conductor.tables.extensions[hosted.row]
    live = sum(1 for player in conductor.players.live.values() if player.hosted is hosted)
    return {
        "extension": hosted.manifest.id, "version": hosted.manifest.version, "level": int(row["level"]), "players": live,
        "players_max": hosted.players_max, "window": hosted.window, "starts": int(row["starts"]), "deaths": int(row["deaths"]),
        "parked": bool(row["parked"]),
        "last_words": hosted.last_words or None,
    }  # fmt: skip


def _player(conductor: Any, player: Any) -> dict[str, Any]:
    row = conductor.tables.players[player.row]
    return {
        "player": player.row, "extension": player.hosted.manifest.id, "pid": player.pid,
        "state": PLAYER_NAMES[int(row["state"])], "dispatched": int(row["dispatched"]), "completed": int(row["completed"]),
        "held": int(conductor.pmaps[player.row]["held"]),
    }  # fmt: skip


def record_lines(conductor: Any, run: Any) -> list[dict[str, Any]]:
    """The run's record: a line a node, in the order in which they ended."""
    rows, cold = _rows(conductor, run), run.segment.table("cold")
    called = all_names(run.score)
    lines = []
    for node in range(1, len(rows)):
        word = int(rows[node]["word"])
        if word >> constants["SYM_NODE_FLAG_SHIFT"] & constants["SYM_NODE_GROUP"]:
            continue
        lines.append(_record_line(conductor, run, rows, cold, node, word, called))
    return sorted(lines, key=lambda line: (line["ended_ns"] or 0, line["node"]))


def _record_line(conductor: Any, run: Any, rows: Any, cold: Any, node: int, word: int, called: dict) -> dict[str, Any]:
    step = run.score.steps[int(rows[node]["step"]) - 1]
    state = word >> STATE_SHIFT
    facts = {
        "step": step.name, "node": node, "state": NODE_NAMES[state], "attempt": word >> ATTEMPT_SHIFT & ATTEMPT_MASK,
        "started_ns": int(cold[node]["started_ns"]), "ended_ns": int(cold[node]["ended_ns"]),
        "extension": step.extension, "pid": int(cold[node]["pid"]),
    }  # fmt: skip
    inputs = _inputs_of(conductor, run, rows, cold, node, step) if state == DONE else []
    outputs = _outputs_of(conductor, run, rows, node, len(step.outputs)) if state == DONE else []
    return record_line(facts, called[step.name], inputs, outputs)


def _value_at(conductor: Any, ref: np.void) -> tuple[int, memoryview]:
    return int(ref["kind"]), conductor.payload_of(ref)


def _outputs_of(conductor: Any, run: Any, rows: Any, node: int, count: int) -> list[tuple[int, memoryview]]:
    table, first = run.segment.table("outputs"), int(rows[node]["output"])
    return [_value_at(conductor, table[first + k]) for k in range(count)]


def _inputs_of(conductor: Any, run: Any, rows: Any, cold: Any, node: int, step: Any) -> list[tuple[int, Any]]:
    """One value a slot; a slot of many is joined into one list."""
    table = run.segment.table("outputs")
    found = []
    for slot in step.slots:
        if slot.each:
            values = _items_of(conductor, run, rows, cold, node)
        else:
            vertex = 0 if slot.source.step == "" else _vertex(run, slot.source.step)
            group = int(rows[vertex]["group"])
            if group == UNSET:
                ref = table[int(rows[vertex]["output"]) + slot.source.output]
                values = choose(*_value_at(conductor, ref), slot.first, slot.count)
            else:
                row = run.segment.table("groups")[group]
                members = range(int(row["first"]), int(row["first"]) + int(row["count"]))
                values = [_value_at(conductor, table[int(rows[m]["output"]) + slot.source.output]) for m in members]
        found.append(values[0] if len(values) == 1 and not slot.many else _joined(values))
    return found


def _vertex(run: Any, name: str) -> int:
    if not hasattr(run, "vertices"):
        run.vertices = {step.name: number for number, step in enumerate(run.score.steps, 1)}
    return run.vertices[name]


def _items_of(conductor: Any, run: Any, rows: Any, cold: Any, node: int) -> list[tuple[int, Any]]:
    table = run.segment.table("outputs")
    group = run.segment.table("groups")[int(rows[node]["group"])]
    source = int(group["source"])
    stride = int(run.segment.table("steps")[int(rows[source]["step"])]["output_count"])
    at, inside, left = (int(cold[node][name]) for name in ("item_node", "item_first", "item_count"))
    values: list[tuple[int, Any]] = []
    while left > 0:
        kind, payload = _value_at(conductor, table[at])
        have = int(table[at]["count"]) if kind == value.LIST else 1
        amount = min(have - inside, left)
        if amount > 0:
            values += choose(kind, payload, inside, amount if kind == value.LIST else 0)
            left -= amount
            inside = 0
        else:
            inside -= have
        at += stride
    return values


def _joined(values: list[tuple[int, Any]]) -> tuple[int, bytes]:
    joined = value.join_list([value.Encoded(kind, 0, [payload], len(payload)) for kind, payload in values])
    return joined.kind, value.payload_of(joined)
