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

from symphony.keeper.link import KeeperGone, KeeperLink
from symphony.model.errors import SymphonyError, to_wire


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="symphony.daemon")
    parser.add_argument("--name", required=True)
    parser.add_argument("--players", type=int, default=None)
    parser.add_argument("--window", type=int, default=None)
    return parser.parse_args()


def serve(given: argparse.Namespace, keeper: KeeperLink, stop: threading.Event) -> None:
    """Start, say so, and serve until told to stop."""
    from symphony.conductor.conductor import WINDOW, Conductor
    from symphony.conductor.door import Door
    from symphony.extension.discovery import discover

    begun = time.monotonic()
    conductor = Conductor(
        given.name, keeper=lambda: keeper, catalogue=discover(), players=given.players, window=given.window or WINDOW,
        on_stop=stop.set,
    )  # fmt: skip
    conductor.start()
    try:
        door = Door(conductor, conductor.directory)
        door.start()
        conductor.listeners.append(door.notify)
        told = {
            "ready": True, "pid": os.getpid(), "keeper_pid": keeper.pid, "name": given.name,
            "start_s": round(time.monotonic() - begun, 3), "swept": list(conductor.claim.swept.segments),
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
