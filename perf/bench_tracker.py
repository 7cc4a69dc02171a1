"""The DAG Tracker whole, compiled: nodes a second over a layered graph, beside graphlib's bare counting.

States by compare-and-swap, story and priority order are on. Segments of ended graphs are used again, so the first
graph of a size, which also meets fresh pages, is shown apart.

    python perf/bench_tracker.py [--quick] [--nodes 100000] [--edges 200000] [--layers 100] [--seed 1]
"""

from __future__ import annotations

import graphlib
import time

import numpy as np
from measure import Report, arguments, collector_off, interleaved, own_runtime, ratios, timed

from symphony import Engine


def layered(nodes: int, edges: int, layers: int, seed: int) -> np.ndarray:
    """Random edges (E, 2) from each layer to the next one, layers of equal size, nodes numbered layer by layer."""
    random = np.random.default_rng(seed)
    width = nodes // layers
    layer = random.integers(0, layers - 1, edges)
    source = layer * width + random.integers(0, width, edges)
    target = (layer + 1) * width + random.integers(0, width, edges)
    return np.stack([source, target], axis=1)


def play(engine: Engine, edges: np.ndarray, nodes: int, estimates: np.ndarray) -> float:
    """Seconds to take every node through its states."""
    with engine.pit.dag.submit(edges, nodes, estimates_ns=estimates) as graph:
        start = time.perf_counter()
        count = graph.play_through()
        spent = time.perf_counter() - start
        if count != nodes or graph.state != "completed":
            raise SystemExit(f"{count} of {nodes} nodes were played, the graph is {graph.state}")
    return spent


def check(engine: Engine, edges: np.ndarray, nodes: int, estimates: np.ndarray) -> None:
    """Once: in batches, every dependency before its dependant, and the tables consistent after it."""
    with engine.pit.dag.submit(edges, nodes, estimates_ns=estimates) as graph:
        when = np.full(nodes, -1)
        batch, turn = graph.ready(), 0
        while len(batch):
            when[batch] = turn
            batch, turn = graph.complete(batch), turn + 1
        if (when < 0).any() or (when[edges[:, 0]] >= when[edges[:, 1]]).any() or graph.validate():
            raise SystemExit("the tracker handed a node out before what it depends on")


def by_batches(engine: Engine, edges: np.ndarray, nodes: int, estimates: np.ndarray) -> float:
    """Seconds when Python drives it: what is ready is completed, up to 64 nodes a call."""
    with engine.pit.dag.submit(edges, nodes, estimates_ns=estimates) as graph:
        start = time.perf_counter()
        ahead = graph.ready()
        while len(ahead):
            more = graph.complete(ahead[:64])
            ahead = np.concatenate((ahead[64:], more))
        return time.perf_counter() - start


def sorted_by_graphlib(edges: np.ndarray, nodes: int) -> float:
    """Seconds of graphlib.TopologicalSorter over the same graph, its building not counted."""
    sorter: graphlib.TopologicalSorter = graphlib.TopologicalSorter({node: () for node in range(nodes)})
    for source, target in edges.tolist():
        sorter.add(target, source)
    sorter.prepare()

    def drain() -> None:
        while sorter.is_active():
            sorter.done(*sorter.get_ready())

    return timed(drain)


def main() -> None:
    given = arguments(
        "tracker",
        __doc__.partition("\n")[0],
        nodes={"type": int, "default": 100_000},
        edges={"type": int, "default": 200_000},
        layers={"type": int, "default": 100},
        seed={"type": int, "default": 1},
    )
    rounds = 9 if given.quick else 31
    edges = layered(given.nodes, given.edges, given.layers, given.seed)
    # A hundred different estimates: the order of rank is then not the order of the layers alone.
    estimates = np.random.default_rng(given.seed).integers(1, 100, given.nodes) * 1000
    with own_runtime(), Engine(players=1) as engine, collector_off():
        small = layered(1000, 2000, 10, given.seed)
        play(engine, small, 1000, estimates[:1000])  # the kernels are loaded by a graph of another size
        first = play(engine, edges, given.nodes, estimates)
        check(engine, edges, given.nodes, estimates)
        work = {
            "tracker": lambda: play(engine, edges, given.nodes, estimates),
            "batches": lambda: by_batches(engine, edges, given.nodes, estimates),
            "graphlib": lambda: sorted_by_graphlib(edges, given.nodes),
        }
        series = interleaved(rounds, **work)
    report = Report(
        "tracker", f"{given.nodes:,} nodes, {given.edges:,} edges, {given.layers} layers, seed {given.seed}"
    )
    report.add("tracker, compiled", [given.nodes / s / 1e6 for s in series["tracker"]], "M/s", target=">= 10")
    report.add("the first graph in fresh memory", [given.nodes / first / 1e6], "M/s")
    report.add("driven from Python, 64 a call", [given.nodes / s / 1e6 for s in series["batches"]], "M/s")
    report.add("graphlib", [given.nodes / s / 1e6 for s in series["graphlib"]], "M/s")
    report.add("tracker / graphlib", ratios(series["graphlib"], series["tracker"]), "x", target="(aim 25)")
    for name, values in series.items():
        report.keep(name, [s / given.nodes for s in values])
    report.finish(given)


if __name__ == "__main__":
    main()
