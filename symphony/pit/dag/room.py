"""The DAG Tracker as Python sees it: raw graphs that the caller drives, and the check of any run."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from symphony.model.errors import RoomError, UsageError
from symphony.native.kernels import loading
from symphony.native.layout import constants, names
from symphony.pit.dag import graph as graphs
from symphony.pit.dag.validate import Violation, validate
from symphony.pit.tables import GROUP, INPUT, NONE, STEP

with loading():
    from symphony.pit.dag.machine import move_run, rebuild
    from symphony.pit.dag.raw import complete_many, hand_out, play_through

RUNNING = constants["SYM_RUN_RUNNING"]
CANCELLING, CANCELLED = constants["SYM_RUN_CANCELLING"], constants["SYM_RUN_CANCELLED"]
_NODE_STATES, _RUN_STATES = names("sym_node_state"), names("sym_run_state")


class RawGraph:
    """A graph without a melody: its submitter's thread is its driver and alone may call `ready` and `complete`.

    Any thread, and any process with the map, may read `state`. Owns a segment and a row of the table of runs until
    `close`.
    """

    def __init__(
        self,
        segment: Any,
        geometry: dict,
        row: int,
        row_address: int,
        table: np.ndarray,
        close: Callable[[Any, int], None],
    ) -> None:
        self.segment, self.row = segment, row
        self._table, self._close = table, close
        self._maps = graphs.new_map(1)
        graphs.attach_map(self._maps[0], segment, geometry, row, row_address)
        self._words = segment.table("nodes")["word"]
        now = time.monotonic_ns()
        move_run(self._maps, 0, RUNNING, constants["SYM_REASON_SUBMITTED"], now)
        rebuild(self._maps, 0, now)

    def ready(self, limit: int = 1 << 20) -> np.ndarray:
        """Hand out up to `limit` ready nodes, longest way to the end first: int64 indexes, an owned array.

        Handing out commits: each is handed out once. Cost some 50 ns a node.
        """
        out = np.empty(min(limit, len(self)), np.int64)
        return out[: hand_out(self._maps, 0, out, time.monotonic_ns())]

    def complete(self, nodes: int | Sequence[int] | np.ndarray) -> np.ndarray:
        """Complete nodes that were handed out; returns (and hands out) the nodes that became ready by it.

        Raises RoomError, naming the node, when one was not handed out or is complete already; those before it in the
        sequence are complete then. A node costs some 100 ns in batches.
        """
        given = np.atleast_1d(np.asarray(nodes, np.int64))
        verdict = complete_many(self._maps, 0, given, time.monotonic_ns())
        if verdict < 0:
            node = int(given[-1 - verdict])
            raise RoomError(f"node {node} cannot be completed: it is {self.state_of(node)}")
        return self.ready()

    def play_through(self) -> int:
        """Complete everything that is left, in the order of rank; how many nodes. Compiled."""
        return play_through(self._maps, 0, time.monotonic_ns())

    @property
    def state(self) -> str:
        """Of the whole run: running, completed, cancelled."""
        return _RUN_STATES[int(self._table[self.row]["word"]) >> constants["SYM_RUN_STATE_SHIFT"]]

    def state_of(self, node: int) -> str:
        """Of one node: pending, dispatched, done."""
        if not 0 <= node < len(self):
            return "none of this graph"
        return _NODE_STATES[int(self._words[node]) >> constants["SYM_NODE_STATE_SHIFT"]]

    def rebuild(self) -> None:
        """Make counts, marks and ready sets again from the words (what recovery does). O(V + E)."""
        rebuild(self._maps, 0, time.monotonic_ns())

    def validate(self) -> list[Violation]:
        """Violations of the tracker's invariants; empty when the graph is consistent."""
        return validate(self.segment, self._table[self.row])

    def close(self) -> None:
        """Free its segment and its row. Idempotent."""
        if self.segment is not None:
            if self.state == "running":
                for state in (CANCELLING, CANCELLED):
                    move_run(self._maps, 0, state, constants["SYM_REASON_CANCELLED"], time.monotonic_ns())
            segment, self.segment, self._words = self.segment, None, None
            self._close(segment, self.row)

    def __len__(self) -> int:
        return int(self._maps[0]["vertex_count"])

    def __enter__(self) -> "RawGraph":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def raw_graph(edges: Any, nodes: int, estimates_ns: Any = None) -> graphs.Graph:
    """A checked description of a raw graph. Raises UsageError for shapes that are none."""
    if nodes < 1:
        raise UsageError(f"a graph needs a node at least, not {nodes}")
    pairs = np.asarray(edges, np.int64).reshape(-1, 2) if len(edges) else np.zeros((0, 2), np.int64)
    kinds = np.zeros(nodes, np.int64)
    times = np.zeros(1, np.int64)
    if estimates_ns is not None:
        times, kinds = np.unique(np.asarray(estimates_ns, np.int64), return_inverse=True)
        if len(kinds) != nodes:
            raise UsageError(f"{len(kinds)} estimates were given for {nodes} nodes")
    steps = np.zeros(len(times), STEP)
    steps["group"], steps["estimate_ns"] = NONE, times
    return graphs.Graph(kinds.astype(np.uint32), pairs, steps, np.zeros(0, INPUT), np.zeros(0, GROUP), [0])


class Tracker:
    """`engine.pit.dag`. `submit` is safe from any thread; each graph is its submitter's to drive."""

    def __init__(self, host: Any) -> None:
        self._host = host

    def submit(self, edges: Any, nodes: int, *, estimates_ns: Any = None) -> RawGraph:
        """A raw graph of `nodes` nodes, 0 to nodes - 1, and `edges` ((source, target) pairs, any integer array (E, 2)).

        `estimates_ns` (one a node) give the order among ready nodes. Raises ScoreError: an edge out of range, a cycle
        with its path, a limit; NoSpace. Cost O(V + E).
        """
        return self._host.submit_graph(graphs.prepare(raw_graph(edges, nodes, estimates_ns)))

    def validate(self, run: int) -> list[Violation]:
        """Violations in a run of a melody, by its number (it may be going on: then differences of a moment can show)."""
        return self._host.validate_run(run)
