"""`python -m symphony.extension.host FOLDER`: the process of one extension, a player.

Started by the Keeper with its socket to the Conductor as descriptor 3. It says it is ready once the handlers are
imported, then takes one dispatch after the other from its ring until it is told to stop, its Conductor is gone or
SIGTERM comes; a handler under way is finished first. It dies with its Keeper.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import socket
import sys
from typing import Any

from msgspec import msgpack

from symphony.extension import failure
from symphony.extension.app import Cancelled, Extension, current
from symphony.extension.binding import Plan, bind, failing
from symphony.extension.manifest import Manifest, read_manifest
from symphony.extension.memory import ConductorGone, Grants, map_channel
from symphony.model.errors import ExtensionError
from symphony.native import _door

IDLE_NS = 2_000_000_000  # between looks at the socket while nothing comes
GRANTS_EVERY = 4096  # steps between looks at it while much comes
PLANS_KEPT = 1024
DRAIN_S = 10.0
OK, FAILED, CANCELLED = 1, 2, 3
INLINE_BYTES = 4096

_REGIONS = (
    "out_channel",
    "dispatch",
    "dispatch_data",
    "dispatch_bytes",
    "command_head",
    "in_channel",
    "command",
    "command_data",
    "command_bytes",
    "dispatch_head",
    "arena",
    "arena_bytes",
)


class Stop(BaseException):
    """Raised by SIGTERM between two steps."""


class Host:
    """One player: its channel, its handlers, and the plans of the steps it has met."""

    def __init__(self, manifest: Manifest, grants: Grants, hello: dict[str, Any], fds: list[int]):
        geometry = hello["geometry"]
        out, own = map_channel(fds, geometry)
        offsets = tuple(geometry[name] for name in _REGIONS)
        self.channel = _door.PlayerChannel(out, own, offsets, fds[2], self.bind, grants.missing)
        grants.channel = self.channel
        self.manifest = manifest
        self.grants = grants
        self.stopping = False
        self._declared = {name: spec.outputs for name, spec in manifest.handlers.items()}
        self._handlers: dict[str, Any] = {}
        self._plans: dict[bytes, Plan] = {}
        self._runner: Any = None
        current.channel, current.extension = self.channel, manifest.id
        current.config = hello.get("config") or {}

    def load(self) -> None:
        """Import the handlers; what the manifest declares must be there."""
        self._handlers = load_handlers(self.manifest)
        missing = sorted(set(self.manifest.handlers) - set(self._handlers))
        if missing:
            raise ExtensionError(f"{self.manifest.path}: the module does not define the declared handlers {missing}")
        self.channel.ready()

    def bind(self, blob: memoryview, step: int) -> Plan:
        """The plan of a binding, shared by all runs of the same step. Never raises: what cannot be bound fails."""
        key = bytes(blob)
        plan = self._plans.get(key)
        if plan is None:
            if len(self._plans) >= PLANS_KEPT:
                self._plans.clear()
            try:
                plan = bind(msgpack.decode(key), self._handlers, self.channel, self._declared)
            except Exception as error:  # the binding is the melody's: its step fails, not the player
                plan = failing(f"step {step}", error)
            self._plans[key] = plan
        return plan

    def serve(self) -> None:
        """Until told to stop."""
        step, complete, serving = self.channel.next, self.channel.complete, current
        countdown = GRANTS_EVERY
        while not self.stopping:
            taken = step(IDLE_NS)
            if taken is None:
                self.grants.take()
                continue
            if taken is False:
                return
            job, plan, refs = taken
            if type(plan) is not Plan or plan.is_async:
                self._unusual(job, plan, refs)
                continue
            serving.plan, serving.job = plan, job
            try:
                result = plan.call(refs)
                quick = plan.quick
                if quick is None or not (quick is object or type(result) is quick) or not complete(job, result):
                    self._send(job, plan, result)
            except BaseException as error:  # whatever a handler raises is its step's failure
                self._fail(job, error, skip=2)
            serving.job = result = None
            countdown -= 1
            if not countdown:
                countdown = GRANTS_EVERY
                self.grants.take()

    def _unusual(self, job: bytes, plan: Any, refs: bytes) -> None:
        if plan is False:
            if self._runner is not None:
                self._runner.cancel(job)
        elif plan is None:
            self._fail(job, Cancelled("its run was cancelled before it began"))
        elif isinstance(plan, BaseException):
            self._fail(job, plan)
        else:
            if self._runner is None:
                from symphony.extension.asynchronous import Runner

                self._runner = Runner(self._answer)
            self._runner.start(job, plan, refs)

    def _answer(self, job: bytes, plan: Plan, result: Any, error: BaseException | None) -> None:
        """Of an async step, in the loop's thread."""
        try:
            if error is None:
                self._send(job, plan, result)
                return
        except BaseException as raised:
            error = raised
        self._fail(job, error, skip=1)

    def _send(self, job: bytes, plan: Plan, result: Any) -> None:
        outputs = plan.encode(result)
        if len(outputs) == 1:
            kind, count, pieces, size = outputs[0]
            if size <= INLINE_BYTES and len(pieces) == 1 and self.channel.complete(job, pieces[0], kind, count):
                return
        self.channel.finish(job, OK, outputs)

    def _fail(self, job: bytes, error: BaseException, skip: int = 0) -> None:
        cancelled = isinstance(error, Cancelled) or type(error).__name__ == "CancelledError"
        outcome = CANCELLED if cancelled else FAILED
        self.channel.finish(job, outcome, (failure.describe(error, skip),))

    def terminate(self, _number: int, _frame: object) -> None:
        self.stopping = True
        if current.job is None:
            raise Stop

    def end(self) -> None:
        if self._runner is not None:
            self._runner.finish(DRAIN_S)
        sys.stdout.flush()
        sys.stderr.flush()


def load_handlers(manifest: Manifest) -> dict[str, Any]:
    """Import what the manifest's entry names, a module or a file beside it, and collect its handlers."""
    before = len(Extension.registered)
    if manifest.entry.endswith(".py"):
        path = os.path.join(manifest.directory, manifest.entry)
        sys.path.insert(0, os.path.dirname(path))
        spec = importlib.util.spec_from_file_location(f"symphony_extension_{manifest.id.replace('-', '_')}", path)
        if spec is None or spec.loader is None:
            raise ExtensionError(f"{manifest.path}: the entry {path} is not a Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        sys.path.insert(0, manifest.directory)
        module = importlib.import_module(manifest.entry)
    apps = Extension.registered[before:] or [item for item in vars(module).values() if isinstance(item, Extension)]
    if not apps:
        raise ExtensionError(f"{manifest.path}: {manifest.entry} makes no Extension, or does not call its run()")
    handlers: dict[str, Any] = {}
    for app in apps:
        handlers.update(app.handlers)
    return handlers


def main(argv: list[str]) -> int:
    if len(argv) != 1:
        print("usage: python -m symphony.extension.host FOLDER (an engine starts it)", file=sys.stderr)
        return 2
    keeper = os.environ.get("SYMPHONY_KEEPER_PID")
    if keeper and not _door.die_with(int(keeper)):
        return 1
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.stdout.reconfigure(line_buffering=True)
    connection = socket.socket(fileno=3)
    os.set_inheritable(3, False)
    grants = Grants(connection)
    try:
        hello, fds = grants.hello()
        host = Host(read_manifest(argv[0]), grants, hello, fds)
        signal.signal(signal.SIGTERM, host.terminate)
        host.load()
        host.serve()
    except (Stop, ConductorGone):
        return 0
    host.end()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
