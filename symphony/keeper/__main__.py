"""`python -m symphony.keeper`: embedded under a Conductor (--fd N --parent PID), or above one (--daemon --name X).

Words of its own come first; what follows goes to the Conductor.
"""

from __future__ import annotations

import fcntl
import os
import resource
import socket
import sys

NUMBERS = {"--hang-s": float, "--start-s": float, "--window-s": float, "--stillborn": int, "--deaths": int}
"""Of the policy by which Conductors are replaced; `symphony.keeper.policy.Policy` says what they mean."""
PARKED = 3
"""Exit status of a daemon that gave up replacing its Conductor: the engine's state stays."""


def _options(argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Our own options, and the words that go on to the Conductor. A parser of this size starts in no time."""
    takes_value = {"--fd", "--parent", "--id", "--name", "--ready-fd", "--directory", "--module", *NUMBERS}
    found: dict[str, str] = {}
    rest = list(argv)
    while rest and rest[0] in takes_value | {"--daemon", "--spare"}:
        word = rest.pop(0)
        if word in takes_value and not rest:
            raise SystemExit(f"symphony.keeper: {word} wants a value")
        found[word] = rest.pop(0) if word in takes_value else ""
    return found, rest


def main(argv: list[str]) -> int:
    options, rest = _options(argv)
    if "--daemon" in options:
        from symphony.keeper.daemon import detach

        detach()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from symphony.keeper import child, tree

    child.raise_descriptor_limit()
    tree.become_subreaper()
    keeper_id = options.get("--id") or os.urandom(8).hex()
    return _daemon(options, rest, keeper_id, child) if "--daemon" in options else _embedded(options, keeper_id, child)


def _take(text: str) -> int:
    """The descriptor of that number, moved out of the way of the number that children get theirs at."""
    given = int(text)
    fd = fcntl.fcntl(given, fcntl.F_DUPFD_CLOEXEC, 10)
    if given > 2:
        os.close(given)
    return fd


def _embedded(options: dict[str, str], keeper_id: str, child) -> int:
    from symphony.keeper.process import Keeper

    if "--fd" not in options or "--parent" not in options:
        raise SystemExit("symphony.keeper: wants --fd N --parent PID, or --daemon --name X")
    fd = _take(options["--fd"])
    child.occupy_child_fd()
    parent = int(options["--parent"])
    if os.getppid() != parent:
        return 1
    Keeper(socket.socket(fileno=fd), keeper_id, parent).run()
    return 0


def _daemon(options: dict[str, str], rest: list[str], keeper_id: str, child) -> int:
    from symphony.keeper.daemon import DaemonKeeper, Ready, conductor_argv

    ready = Ready(_take(options["--ready-fd"]) if "--ready-fd" in options else -1)
    child.occupy_child_fd()
    try:
        argv = conductor_argv(options.get("--module", "symphony.daemon"), options.get("--name", "default"), rest)
        keeper = DaemonKeeper(keeper_id, argv, options.get("--directory"), ready, _policy(options))
    except (OSError, ValueError, RuntimeError) as error:
        ready.tell("error", f"{type(error).__name__}: {error}")
        return 1
    keeper.run()
    return PARKED if keeper.parked else 0


def _policy(options: dict[str, str]):
    """Raises ValueError for what is no number."""
    from symphony.keeper.policy import Policy

    numbers = {word[2:].replace("-", "_"): kind(options[word]) for word, kind in NUMBERS.items() if word in options}
    return Policy(spare="--spare" in options, **numbers)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
