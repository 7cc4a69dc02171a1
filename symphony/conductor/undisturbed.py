"""Ctrl-C at the wrong moment: what has been made and not yet been named could not be taken back.

Python raises KeyboardInterrupt between any two instructions of its main thread, so also between the making of a folder,
a segment or a process and the assignment that tells who has to remove it.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Put off Ctrl-C until the block, which has to be bounded in time, has ended.

    Outside the main thread it does nothing, since no interrupt is raised there. A handler that is not Python's is left
    alone.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return
    came: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        if came:
            signal.raise_signal(signal.SIGINT)
