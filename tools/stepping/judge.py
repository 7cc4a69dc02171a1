"""The judge: another process, which attaches to the case's memory as somebody who comes after the killed one would.

It is forked before anything is stepped, maps the segments itself, and for each image does what recovery does and says
what it found: the truth (what the words say and what a user can see) and what is wrong.
"""

import contextlib
import os
import pickle
import select
import signal
import struct
import traceback
from dataclasses import dataclass
from typing import Any

from tools.stepping.tracer import StepperError, kill

DEADLINE_S = 30.0


@dataclass(frozen=True)
class Finding:
    """`truth` can be compared; `problems` is empty when everything holds together."""

    truth: Any
    problems: tuple[str, ...]


class Judge:
    """One process for one case. Each `look` is one recovery of what the memory holds at that moment."""

    def __init__(self, case: Any) -> None:
        ask_out, self._ask = os.pipe2(os.O_CLOEXEC)
        self._answer, answer_in = os.pipe2(os.O_CLOEXEC)
        self._pid = os.fork()
        if self._pid == 0:
            _serve(case, ask_out, answer_in)
        os.close(ask_out)
        os.close(answer_in)

    def look(self, recover: bool = True) -> Finding:
        """Recovery and judgement of the memory as it is now; it changes the memory. Without `recover` only what is
        wrong as it stands. Raises StepperError when there is no answer in time: then the recovery does not end."""
        os.write(self._ask, b"?" if recover else b"!")
        size = struct.unpack("<I", self._read(4))[0]
        return pickle.loads(self._read(size))

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            if not select.select([self._answer], [], [], DEADLINE_S)[0]:
                raise StepperError(f"the recovery has not ended after {DEADLINE_S:.0f} s")
            more = os.read(self._answer, size - len(data))
            if not more:
                raise StepperError("the judge has ended: the recovery met a fault")
            data += more
        return data

    def close(self) -> None:
        os.close(self._ask)
        os.close(self._answer)
        kill(self._pid)


def _serve(case: Any, ask: int, answer: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        there = case.attach()
        while question := os.read(ask, 1):
            try:
                truth, problems = case.judge(there) if question == b"?" else (None, case.live(there))
                told = Finding(truth, tuple(str(problem) for problem in problems))
            except Exception:
                told = Finding(None, (traceback.format_exc(),))
            data = pickle.dumps(told)
            _write_all(answer, struct.pack("<I", len(data)) + data)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _write_all(descriptor: int, data: bytes) -> None:
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(descriptor, data) :]
