"""What runs while processes are killed: fan-outs whose bytes are compared, and steps whose effects are counted."""

import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import symphony
from symphony.melody.builder import Melody
from symphony.model.errors import EngineLost, RunFailed, SymphonyError

WAIT_S = 120.0
MAYBE_CUT_OFF = ("outcome unknown", "its player died", "no player could be started")
"""How a run may end by a player's death: said, never silent."""


def echoing() -> Melody:
    """A fan-out over a list of bytes, each given back as it came."""
    built = Melody("echoing")
    built.input("items", "list")
    built.step("echo", "marker.echo", each="{items}", data="{item}")
    built.output("back", "echo")
    return built


def marking() -> Melody:
    """A fan-out of effects that must not happen twice."""
    built = Melody("marking")
    built.input("path", "text")
    built.input("tokens", "list")
    built.step("mark", "marker.mark", each="{tokens}", once=True, path="{path}", token="{item}")
    built.output("marked", "mark")
    return built


class Load:
    """One client thread: plays one melody after the other and judges what comes back."""

    def __init__(self, engine: str, folder: Path, seed: int, number: int) -> None:
        self.engine, self.number = engine, number
        self.random = random.Random(f"{seed}.{number}")
        self.marks = folder / f"marks.{number}"
        self.seen: Counter[str] = Counter()
        self.faults: list[str] = []
        self.expected: list[str] = []
        self.cut_off: set[str] = set()
        self._stop = threading.Event()
        self.thread = threading.Thread(target=self._serve, name=f"load-{number}")

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self._stop.set()
        self.thread.join()

    def _serve(self) -> None:
        turn = 0
        while not self._stop.is_set():
            turn += 1
            try:
                (self._echo if self.random.random() < 0.6 else self._mark)(turn)
            except Exception as error:
                self.faults.append(f"load {self.number}: {type(error).__name__}: {error}")
                self._stop.wait(0.2)

    def _play(self, melody: Melody, inputs: dict[str, Any]) -> dict[str, Any] | None:
        """Outputs, or None for a run that ended as a player's death allows. The same request is asked for again as
        long as the engine is away: what was acknowledged must be the same run."""
        request = self.random.randbytes(16)
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                with symphony.connect(self.engine) as client:
                    return client.play(melody, inputs, request_id=request).result(timeout=WAIT_S)
            except RunFailed as error:
                if any(words in str(error) for words in MAYBE_CUT_OFF):
                    self.seen["cut off by a player's death, and said so"] += 1
                    return None
                raise
            except (EngineLost, SymphonyError) as error:
                if time.monotonic() > deadline or isinstance(error, RunFailed):
                    raise
                self.seen["asked again"] += 1
                self._stop.wait(0.05)

    def _echo(self, turn: int) -> None:
        size = self.random.choice((64, 64, 64, 3000, 20_000))
        items = [self.random.randbytes(size) for _ in range(self.random.choice((1, 20, 400)))]
        outputs = self._play(echoing(), {"items": items})
        if outputs is not None:
            back = [bytes(item) for item in outputs["back"]]
            if back != items:
                self.faults.append(
                    f"load {self.number}, turn {turn}: {len(items)} items of {size} bytes came back torn"
                )
            self.seen["nodes compared"] += len(items)
            self.seen["runs"] += 1

    def _mark(self, turn: int) -> None:
        tokens = [f"{self.number}.{turn}.{k}" for k in range(self.random.choice((1, 10, 100)))]
        outputs = self._play(marking(), {"path": str(self.marks), "tokens": tokens})
        if outputs is None:
            self.cut_off.update(tokens)
            return
        self.expected += tokens
        self.seen["runs"] += 1
        if [str(item) for item in outputs["marked"]] != tokens:
            self.faults.append(f"load {self.number}, turn {turn}: the answers of {len(tokens)} effects are not theirs")

    def judge(self) -> None:
        """Count the effects: each acknowledged once, none twice."""
        done = Counter(self.marks.read_text().split()) if self.marks.exists() else Counter()
        lost = [token for token in self.expected if not done[token]]
        doubled = [token for token, times in done.items() if times > 1]
        self.seen["effects"] += sum(done.values())
        self.seen["lost"] += len(lost)
        self.seen["doubled"] += len(doubled)
        if lost or doubled:
            self.faults.append(f"load {self.number}: lost {lost[:5]}, doubled {doubled[:5]}")
