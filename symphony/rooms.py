"""The five rooms as an embedding program sees them: `engine.pit`."""

import threading
import time
from typing import Any

from symphony.conductor.tables import OWNER_SELF
from symphony.model.errors import PoolRefused, WaitTimeout
from symphony.native.layout import constants
from symphony.pit.dag.room import RawGraph, Tracker
from symphony.pit.dag.validate import validate
from symphony.pit.pool.room import Pool
from symphony.pit.stale.sweep import Plan, Swept, plan, sweep

LOOK_S = 0.002


class Arbiter:
    """`engine.pit.arbiter`: the named capacities and what is taken of them by nodes in flight."""

    def __init__(self, conductor: Any) -> None:
        self._conductor = conductor

    def resources(self) -> list[dict[str, Any]]:
        """A line a resource: name, capacity, used, decisions granted and put off."""
        rows = self._conductor.tables.resources
        return [
            {"name": name, **{key: int(rows[i][key]) for key in ("capacity", "used", "granted", "refused")}}
            for i, name in enumerate(self._conductor.capacity)
        ]

    def explain(self, need: dict[str, int]) -> str | None:
        """Why this vector would not be granted now; None when it would."""
        have = {line["name"]: line for line in self.resources()}
        for name, amount in need.items():
            if name not in have:
                return f"this engine has no capacity of {name!r}"
            line = have[name]
            if amount > line["capacity"]:
                return f"{amount} of {name!r} is more than the capacity of {line['capacity']}"
            if line["used"] + amount > line["capacity"]:
                return f"{line['used']} of {line['capacity']} of {name!r} are used"
        return None


class Stale:
    """`engine.pit.stale`: what dead engines left."""

    def plan(self) -> Plan:
        """What is there of this user's engines, live and dead. Changes nothing."""
        return plan()

    def sweep(self) -> Swept:
        """Take away what dead engines left; never a live one's, never another user's."""
        return sweep(plan())


class _Graphs:
    """What the tracker needs of the engine: memory and a row for a raw graph."""

    def __init__(self, conductor: Any) -> None:
        self._conductor = conductor

    def submit_graph(self, prepared: Any) -> RawGraph:
        segment, geometry, row, address = self._conductor.enter_graph(prepared)
        return RawGraph(segment, geometry, row, address, self._conductor.tables.runs, self._conductor.leave_graph)

    def validate_run(self, serial: int) -> list:
        run = self._conductor.find(serial)
        return validate(run.segment, self._conductor.tables.runs[run.row])


class Pit:
    """`engine.pit`: pool, dag, artifact, arbiter, stale. Valid while the engine is open."""

    def __init__(self, conductor: Any) -> None:
        self._conductor = conductor
        self.pool = Pool(conductor.tables, OWNER_SELF, self._model, self._load)
        self.dag = Tracker(_Graphs(conductor))
        self.artifact = conductor.store
        self.arbiter = Arbiter(conductor)
        self.stale = Stale()

    def _model(self, name: str) -> int | None:
        """The row of a model: an extension is a model of its own name, and hosts those that its manifest names."""
        for extension, manifest in self._conductor.catalogue.items():
            if name == extension or name in manifest.models:
                return self._conductor.host(extension).model
        return None

    def _load(self, name: str, timeout: float) -> None:
        model = self._model(name)
        conductor = self._conductor
        ready = constants["SYM_MODEL_READY"]
        if int(conductor.tables.models[model]["state"]) == ready:
            return
        hosted = conductor.hosted_by_model[model]
        conductor.clerk.submit(lambda: conductor.players.start(hosted))
        deadline, pause = time.monotonic() + timeout, threading.Event()
        while int(conductor.tables.models[model]["state"]) != ready:
            if hosted.failed_starts:
                raise PoolRefused(f"{name!r} could not be started: {hosted.last_words}", reason=hosted.last_words)
            if time.monotonic() > deadline:
                raise WaitTimeout(f"{name!r} was not ready in {timeout} s")
            pause.wait(LOOK_S)
