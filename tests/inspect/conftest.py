"""Segments for the inspector to look at: a run and an engine's state as they stand in the middle of work."""

import os
from types import SimpleNamespace

import pytest

from symphony.inspect.decode import View
from symphony.inspect.memory import open_file, open_segment
from symphony.native.layout import constants
from symphony.shmem import space
from symphony.shmem.registry import Registry
from symphony.shmem.segment import Region, Segment

NONE = 0xFFFFFFFF
GENERATION = 7


def node_word(state, *, flags=0, attempt=0, player=0):
    """{state 4 | flags 4 | attempt 12 | player 12 | run generation 32}"""
    return state << 60 | flags << 56 | attempt << 44 | player << 32 | GENERATION


@pytest.fixture
def engine_name():
    return f"inspect-{os.getpid()}"


@pytest.fixture
def registry(engine_name):
    found = Registry(engine_name)
    yield found
    for name in found.names():
        space.unlink(name)
        found.leave(name)
    found.folder.rmdir()
    found.folder.parent.rmdir()


@pytest.fixture
def make(registry, engine_name):
    """Make segments that are unlinked and closed at the end of the test."""
    made = []

    def create(kind, regions, **more):
        segment = Segment.create(registry, engine_name, kind, regions, **more)
        made.append(segment)
        return segment

    yield create
    for segment in made:
        segment.unlink()
        segment.close()


@pytest.fixture
def look():
    """A view of a segment by name, or of a file by path, closed at the end of the test."""
    opened = []

    def view(what):
        memory = open_segment(what) if str(what).startswith("/symphony.") else open_file(what)
        opened.append(memory)
        return View(memory)

    yield view
    for memory in opened:
        memory.close()


RUN_TYPES = {
    "graph": "sym_graph_t", "remaining": "u32", "edge_first": "u32", "edges": "u32", "order": "u32",
    "vertex_at": "u32", "ranks": "u64", "ready": "u64", "summary": "u64", "lanes": "sym_lane_t",
    "groups": "sym_group_t", "steps": "sym_step_t", "inputs": "sym_input_t", "story": "sym_story_t",
    "nodes": "sym_node_t", "cold": "sym_node_cold_t", "marks": "u8", "outputs": "sym_ref_t",
}  # fmt: skip
RUN_ROWS = {
    "graph": 1, "remaining": 3, "edge_first": 4, "edges": 2, "order": 3, "vertex_at": 64, "ranks": 3, "ready": 1,
    "summary": 1, "lanes": 1, "groups": 1, "steps": 3, "inputs": 2, "story": 8,
}  # fmt: skip
SPARSE_ROWS, HAVE_ROWS = 1 << 17, 100


@pytest.fixture
def run(make):
    """A run of three vertices: 0 and 1 are done, 2 stands for a group of two nodes, 3 done and 4 dispatched."""
    fixed = [Region(name, RUN_TYPES[name], rows) for name, rows in RUN_ROWS.items()]
    sparse = [Region(name, kind, SPARSE_ROWS, HAVE_ROWS) for name, kind in RUN_TYPES.items() if name not in RUN_ROWS]
    segment = make("run", fixed + sparse)
    table = SimpleNamespace(**{name: segment.table(name) for name in RUN_TYPES})
    _write_graph(table)
    done, dispatched = constants["SYM_NODE_DONE"], constants["SYM_NODE_DISPATCHED"]
    words = [
        node_word(done),
        node_word(done, attempt=1, player=2),
        node_word(constants["SYM_NODE_PENDING"], flags=constants["SYM_NODE_GROUP"]),
        node_word(done, attempt=1, player=3),
        node_word(dispatched, attempt=2, player=3),
    ]
    for node, (word, step, group) in enumerate(zip(words, [0, 1, 2, 2, 2], [NONE, NONE, 0, 0, 0], strict=True)):
        table.nodes[node] = (word, 64 * node, step, group, node, NONE)
    table.marks[:5] = [1, 1, 0, 1, 0]
    table.outputs[:3]["kind"] = constants["SYM_VALUE_TEXT"]
    return SimpleNamespace(segment=segment, name=segment.name, table=table)


def _write_graph(table):
    graph = table.graph[0]
    counts = {"vertex": 3, "group": 1, "step": 3, "lane": 1, "edge": 2, "input": 2, "output": 3, "order": 64}
    for name, count in counts.items():
        graph[f"{name}_count"] = count
    graph["run_generation"], graph["node_capacity"], graph["output_capacity"] = GENERATION, HAVE_ROWS, HAVE_ROWS
    graph["story_capacity"], graph["story_count"] = 8, 10
    table.edge_first[:] = [0, 1, 2, 2]
    table.edges[:] = [1, 2]
    table.lanes[0]["order_count"] = 3
    group = table.groups[0]
    group["template"], group["source"], group["batch"] = 2, 1, 1
    group["first"], group["count"], group["expanded"], group["remaining"] = 3, 2, 1, 1
    group["again"] = group["source_group"] = NONE
    table.steps["input_count"][1] = 2
    for step, name in enumerate([b"inputs", b"walk", b"read"]):
        table.steps[step]["name"][: len(name)] = list(name)
    for row in range(8):
        # Ten have been written into room for eight: the two oldest are gone.
        table.story[row]["sequence"] = row + 1 if row >= 2 else row + 9
        table.story[row]["node"] = row % 3
    table.story[3]["node"] = NONE
    table.story[3]["before"], table.story[3]["after"] = constants["SYM_RUN_QUEUED"], constants["SYM_RUN_RUNNING"]


STATE_TYPES = {
    "engine": ("sym_engine_t", 1), "counters": ("sym_counter_t", 16), "owners": ("sym_owner_t", 8),
    "extensions": ("sym_extension_t", 8), "players": ("sym_player_t", 8), "models": ("sym_model_t", 8),
    "instances": ("sym_instance_t", 8), "seats": ("sym_seat_t", 64), "requests": ("sym_request_t", 8),
    "resources": ("sym_resource_t", 8), "artifacts": ("sym_artifact_t", 4096), "segments": ("sym_segment_t", 4096),
    "runs": ("sym_run_t", 4096),
}  # fmt: skip


@pytest.fixture
def state(make):
    """An engine with one extension, model, instance and player, two seats (one held), one run, one artifact."""
    segment = make("state", [Region(name, kind, count) for name, (kind, count) in STATE_TYPES.items()])
    table = SimpleNamespace(**{name: segment.table(name) for name in STATE_TYPES})
    used = {"segments": 3, "models": 1, "instances": 1, "seats": 2, "players": 1, "extensions": 1, "resources": 1}
    for name, count in used.items():
        table.engine[0][f"{name}_used"] = count
    table.owners[1]["word"], table.owners[1]["pid"] = constants["SYM_OWNER_LIVE"] << 60 | 1, os.getpid()
    for name in ("extensions", "models"):
        getattr(table, name)[0]["name"][:4] = list(b"walk")
    table.models[0]["seat_count"] = 2
    table.instances[0]["state"], table.instances[0]["seat_count"] = constants["SYM_MODEL_READY"], 2
    table.players[0]["state"] = constants["SYM_PLAYER_READY"]
    table.seats[0]["word"] = constants["SYM_SEAT_HELD"] << 61 | 1 << 48 | 5
    table.seats[1]["word"] = constants["SYM_SEAT_FREE"] << 61 | 3
    for row, kind in ((1, "ARENA"), (2, "RUN")):
        table.segments[row]["word"], table.segments[row]["size_bytes"] = 1, 8192
        table.segments[row]["kind"] = constants[f"SYM_SEGMENT_{kind}"]
    run = table.runs[0]
    run["word"], run["serial"], run["segment"] = constants["SYM_RUN_RUNNING"] << 60 | GENERATION, 4, 2
    run["node_count"], run["total_count"], run["done_count"], run["flight_count"] = 5, 5, 3, 1
    artifact = table.artifacts[0]
    artifact["word"], artifact["segment"] = constants["SYM_ARTIFACT_PUBLISHED"] << 60 | 1, 1
    artifact["offset_bytes"], artifact["size_bytes"] = 4096, 4096
    return SimpleNamespace(segment=segment, name=segment.name, table=table)
