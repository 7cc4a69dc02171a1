"""The Conductor as a process of its own, started by its Keeper: `python -m symphony.daemon --name NAME`.

Descriptor 3 is the socket to the Keeper. What the starter waits for is one JSON line, passed on by the Keeper.
"""

import argparse
import json
import logging
import os
import signal
import sys
import threading
import time
from typing import Any

from symphony.keeper.link import KeeperGone, KeeperLink
from symphony.model.errors import NothingToRecover, SymphonyError, to_wire


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="symphony.daemon")
    parser.add_argument("--name", required=True)
    parser.add_argument("--players", type=int, default=None)
    parser.add_argument("--window", type=int, default=None)
    parser.add_argument("--recover", action="store_true", help="go on from the state that a dead engine left")
    parser.add_argument("--private", action="store_true", help="nothing of it is gone on from after it has ended")
    parser.add_argument("--resume", action="store_true", help="the Keeper's: take over from a Conductor that ended")
    parser.add_argument("--spare", action="store_true", help="the Keeper's: be ready to take over")
    return parser.parse_args()


def serve(given: argparse.Namespace, keeper: KeeperLink, stop: threading.Event) -> None:
    """Start or take over, say so, and serve until told to stop."""
    from symphony.conductor.conductor import WINDOW, Conductor
    from symphony.conductor.door import Door
    from symphony.conductor.warm import warm, warm_once
    from symphony.extension.discovery import discover

    if given.spare:
        warm()
        if not keeper.stand_by():
            return
        given.resume = True
    begun = time.monotonic()
    warm_once()
    catalogue = discover()

    def conductor_of(inherited: list[Any] | None) -> Conductor:
        return Conductor(
            given.name, keeper=lambda: keeper, catalogue=catalogue, players=given.players,
            window=given.window or WINDOW, on_stop=stop.set, inherited=inherited,
            stays=not given.private,
        ).start()  # fmt: skip

    if given.resume:
        inherited = keeper.resume()
        try:
            conductor = conductor_of(inherited)
        except NothingToRecover:
            # The one before this had acknowledged nothing yet: it ended before it had a state.
            conductor = conductor_of(None)
    else:
        conductor = conductor_of([] if given.recover else None)
    try:
        door = Door(conductor, conductor.directory, held=given.resume and conductor.held)
        door.start()
        conductor.listeners.append(door.notify)
        told = {
            "ready": True, "pid": os.getpid(), "keeper_pid": keeper.pid, "name": given.name,
            "start_s": round(time.monotonic() - begun, 3), "swept": list(conductor.claim.swept.segments),
            "resumed_ms": conductor.resumed_ms, "runs": len(conductor.runs_by_serial),
        }  # fmt: skip
        conductor.clerk.submit(lambda: keeper.ready(json.dumps(told)))
        stop.wait()
        door.close()
    finally:
        conductor.close()


def main() -> int:
    logging.basicConfig(
        level=os.environ.get("SYMPHONY_LOG", "WARNING"), format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    given = arguments()
    keeper = KeeperLink.from_fd(3)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    try:
        serve(given, keeper, stop)
    except SymphonyError as error:
        try:
            keeper.error(json.dumps({"error": to_wire(error)}))
        except KeeperGone:
            print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
