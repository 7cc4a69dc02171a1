"""One operation under the stepper: every image that a kill can leave, real kills, and a verdict.

Of an operation on shared memory, *one pass* is stepped: after each of its instructions the memory is compared with
what it was, and every image that was there is judged by another process. Since the mappings and descriptors of a
killed process go with it, that is what a kill after each instruction leaves. *Real kills* then hold the pass against
the fact: a process is killed there, and what it really left is judged in the same way.

Python code on shared memory takes too many instructions to be stepped: there the child has the memory read-only, and
each instruction that writes to it is let through by itself. That is every image, too.

Of Python code that makes and removes things, a process is really killed at the entry and at the exit of every system
call; what kernel and file system then hold is judged.

Admissible is what the operation's judge finds before it and what it finds after it, in this order and nothing between;
of an operation that is a sequence of commits, also what stands between two of them (`Case.between`).
"""

import contextlib
import itertools
import random
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from symphony.shmem.segment import Segment
from tools.stepping import tracer
from tools.stepping.judge import Finding, Judge
from tools.stepping.memory import Image, Watched, digest, ranges_of

QUICK, ALL = "quick", "all"
MOST_STOPS = 4000
KILLS_QUICK, KILLS_SAMPLED, STOPS_QUICK = 1, 4, 24


class Case:
    """An operation about to be done, on real segments. `prepare` of an operation makes a fresh one each time.

    `act`: what is stepped; `segments`: what it may change. `attach` and `judge` are called in the judge's process.
    """

    act: tracer.Act
    segments: list[Segment]
    unseen = False
    """Whether nobody can tell afterwards that it was done (a claim before its commit, a rebuild)."""
    half_done = False
    """Whether it is a part of a larger operation, before or after which counts do not match the words yet."""
    least_changes = 0
    """How often the memory must change on the way, where the ends do not tell whether it was gone at all."""

    def allocated(self, segment: Segment) -> dict[str, int]:
        """Rows of each sparse region of a segment that have memory behind them."""
        return {}

    def attach(self) -> Any:
        """Map everything as a process does that comes later."""
        raise NotImplementedError

    def judge(self, there: Any) -> tuple[Any, Iterable[Any]]:
        """Recover, then (the truth, what is wrong). The truth is built of tuples, strings and numbers."""
        raise NotImplementedError

    def live(self, there: Any) -> Iterable[Any]:
        """What is wrong as it stands, without any recovery: asked before the operation and after it, never between."""
        return ()

    def between(self, before: Any, after: Any) -> list[Any]:
        """The truths that may be found, in their order. More than two only where the operation is several commits."""
        return [before, after]

    def close(self) -> None:
        for segment in self.segments:
            segment.unlink()
            segment.close()


@dataclass(frozen=True)
class Operation:
    """A row of the table. `covers`: what of the code it steps; `variants`: the states it is stepped from."""

    name: str
    covers: tuple[str, ...]
    prepare: Callable[..., Case]
    variants: Callable[[str], Iterable[dict[str, Any]]] = lambda effort: ({},)
    syscalls: bool = False
    """Whether it is killed at its system calls instead of stepped: Python code that makes and removes."""


@dataclass
class Row:
    """What came of one operation: the line of the table."""

    name: str
    cases: int = 0
    instructions: int = 0
    writes: int = 0
    stops: int = 0
    images: int = 0
    kills: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        return "before or after" if not self.wrong else f"{len(self.wrong)} wrong"


@contextmanager
def closing(case: Case) -> Iterator[Case]:
    try:
        yield case
    finally:
        case.close()


def examine(operation: Operation, home: Any, effort: str = QUICK, seed: int = 0) -> Row:
    """Step an operation from each of its states."""
    row = Row(operation.name)
    try:
        _warm(operation, home, effort)
    except Exception:
        row.wrong.append(f"{operation.name} cannot be prepared: {traceback.format_exc()}")
        return row
    for variant in operation.variants(effort):
        what = f"{operation.name} {variant}" if variant else operation.name
        row.cases += 1
        try:
            if operation.syscalls:
                rng = random.Random(f"{seed} {what}") if effort == QUICK else None
                _AtSyscalls(lambda variant=variant: operation.prepare(home, **variant), what, row, rng).run()
                continue
            with closing(operation.prepare(home, **variant)) as case:
                _InMemory(case, what, row, effort, random.Random(f"{seed} {what}")).run()
        except tracer.StepperError as error:
            row.wrong.append(f"{what}: {error}")
    return row


def _warm(operation: Operation, home: Any, effort: str) -> None:
    """One judgement in this process, on memory that is thrown away: what the judge has to compile or load, each later
    one has by its fork."""
    if operation.syscalls:
        return
    first = next(iter(operation.variants(effort)))
    # What is wrong is said when it counts.
    with closing(operation.prepare(home, **first)) as case, contextlib.suppress(Exception):
        case.judge(case.attach())


def difference(one: Any, other: Any) -> str:
    """Where two truths differ, in few words: (one's, the other's) of the first pieces that do."""
    if isinstance(one, tuple) and isinstance(other, tuple) and len(one) == len(other):
        pairs = [(a, b) for a, b in zip(one, other, strict=True) if a != b]
        if len(pairs) == 1 and pairs[0] != (one, other):
            return difference(*pairs[0])
        return ", ".join(f"{_short(a)} for {_short(b)}" for a, b in pairs[:4]) or "nothing"
    return f"{_short(one)} for {_short(other)}"


def _short(piece: Any, most: int = 160) -> str:
    text = repr(piece)
    return text if len(text) <= most else text[:most] + "…"


class _Held:
    """What is found, held against what is admissible."""

    def __init__(self, what: str, row: Row) -> None:
        self.what, self.row = what, row
        self.admissible: list[Any] = []
        self.reached = 0

    def learn(self, case: Case, before: Finding, after: Finding) -> None:
        """The two ends, found without any kill."""
        for where, found in (("before it", before), ("after it", after)):
            for problem in found.problems:
                self.blame(f"{where}, without any kill: {problem}")
        if case.unseen != (before.truth == after.truth):
            told = "shows" if case.unseen else "cannot be told from what was before"
            self.blame(f"done to its end it {told}: {difference(before.truth, after.truth)}")
        self.admissible = case.between(before.truth, after.truth)

    def hold(self, found: Finding, where: str) -> None:
        """Nothing wrong, and the truth is one of the admissible ones, none earlier than what was reached."""
        for problem in found.problems:
            self.blame(f"{where}: {problem}")
        at = next((i for i in range(self.reached, len(self.admissible)) if self.admissible[i] == found.truth), None)
        if at is not None:
            self.reached = at
        elif found.truth in self.admissible:
            self.blame(f"{where}: what was done is undone: {difference(found.truth, self.admissible[self.reached])}")
        else:
            ends = (("as before", self.admissible[self.reached]), ("as after", self.admissible[-1]))
            told = "; ".join(f"not {name}: {difference(found.truth, end)}" for name, end in ends)
            self.blame(f"{where}: neither before nor after: {told}")

    def blame(self, text: str) -> None:
        self.row.wrong.append(f"{self.what}: {text}")


class _AtSyscalls(_Held):
    """One case of Python code: a process really killed at the entry and at the exit of each system call, or, with
    `rng`, of some of them, the last ones in any case."""

    def __init__(self, prepare: Callable[[], Case], what: str, row: Row, rng: random.Random | None) -> None:
        super().__init__(what, row)
        self.prepare, self.rng = prepare, rng

    def run(self) -> None:
        with closing(self.prepare()) as warming:
            # Whatever is only looked up once is looked up here, so that every child makes the same calls.
            warming.act.function()  # type: ignore[union-attr]
        with closing(self.prepare()) as case:
            before = self._judge(case)
        with closing(self.prepare()) as case:
            tracer.run_whole(case.act)
            self.learn(case, before, self._judge(case))
        for stop in self._stops():
            with closing(self.prepare()) as case:
                number = tracer.kill_at_syscall(case.act, stop)
                if number < 0:  # it came to its end before
                    break
                self.row.stops += 1
                self.row.kills += 1
                edge = "exit" if stop % 2 else "entry"
                self.hold(self._judge(case), f"killed at the {edge} of system call {number}, stop {stop}")

    def _stops(self) -> Iterable[int]:
        """Which stops to kill it at. How many there are varies a little from process to process, so that of all of them
        the end is found by coming to it."""
        with closing(self.prepare()) as case:
            count = tracer.count_stops(case.act)
        if count == 0 or count > MOST_STOPS:
            self.blame(f"it stops at {count} entries and exits of system calls, not at some of at most {MOST_STOPS}")
        if self.rng is None:
            return itertools.count()
        last = range(max(0, count - STOPS_QUICK // 3), count)
        return sorted({*last, *self.rng.sample(range(count), min(count, STOPS_QUICK - len(last)))})

    @staticmethod
    def _judge(case: Case) -> Finding:
        judge = Judge(case)
        try:
            return judge.look()
        finally:
            judge.close()


class _InMemory(_Held):
    """One case on shared memory: the pass, the judgement of every image, the real kills."""

    def __init__(self, case: Case, what: str, row: Row, effort: str, rng: random.Random) -> None:
        super().__init__(what, row)
        self.case, self.effort, self.rng = case, effort, rng
        self.known: dict[bytes, Finding] = {}

    def run(self) -> None:
        self.watched = Watched([
            found for segment in self.case.segments for found in ranges_of(segment, self.case.allocated(segment))
        ])  # fmt: skip
        self.judge = Judge(self.case)
        try:
            self._learn_ends()
            self.watched.restore()
            steps = self._judge_pass(self._pass())
            self._kill_really(steps)
        finally:
            self.judge.close()

    def _learn_ends(self) -> None:
        """What is found before the operation, and after it was done by a process that nothing happened to."""
        self._hold_live("before it")
        before = self._look(self.watched.before)
        self.watched.restore()
        tracer.run_whole(self.case.act)
        self.after = self.watched.take()
        self._hold_live("after it")
        self.learn(self.case, before, self._look(self.after))

    def _hold_live(self, where: str) -> None:
        problems = self.judge.look(recover=False).problems
        for problem in () if self.case.half_done else problems:
            self.blame(f"{where}, nobody killed, nothing recovered: {problem}")

    def _look(self, image: Image) -> Finding:
        """The judge's finding for an image; the same image is judged once."""
        name = digest(image)
        if name not in self.known:
            self.watched.put(image)
            self.known[name] = self.judge.look()
            self.row.images += 1
        return self.known[name]

    def _pass(self) -> tracer.Trace:
        """One run, stepped where it is compiled code, else looked at wherever it writes."""
        act = self.case.act
        if isinstance(act, tracer.Native):
            self.trace, self.point = tracer.step_through(act, self.watched.copies()), "instruction"
            self.row.instructions += self.trace.points
        else:
            self.trace, self.point = tracer.watch_writes(act, self.watched.copies()), "write"
            self.row.writes += self.trace.points
        return self.trace

    def _judge_pass(self, trace: tracer.Trace) -> list[int]:
        """Judge every image of the pass. After how many instructions (writes) each was there first."""
        steps, last = [0], self.watched.before
        self.hold(self._look(last), "before the first instruction")
        for step, image in self.watched.images(trace):
            steps.append(step)
            self.hold(self._look(image), f"after {self.point} {step} of {trace.points}")
            last = image
        if len(steps) <= self.case.least_changes:
            self.blame(f"the memory changed {len(steps) - 1} times on the way, not {self.case.least_changes} at least")
        if self.effort == ALL and digest(last) != digest(self.after) and self._look(last).truth != self.admissible[-1]:
            self.blame("the stepped run ended elsewhere than one that was not stepped")
        return steps

    def _kill_really(self, steps: list[int]) -> None:
        """Real kills where the memory changed (all of it, or some), and at some points where it did not."""
        points = range(self.trace.points + 1)
        if self.effort == ALL:
            chosen = {*steps, *self.rng.sample(points, min(len(points), KILLS_SAMPLED))}
        else:
            chosen = {*self.rng.sample(steps, min(len(steps), KILLS_QUICK)), self.rng.choice(points)}
        for step in sorted(chosen):
            self.watched.restore()
            if isinstance(self.case.act, tracer.Native):
                tracer.kill_after(self.case.act, self.trace, step)
            else:
                tracer.kill_before_write(self.case.act, self.watched.copies(), step)
            self.row.kills += 1
            self.reached = 0
            self.hold(self._look(self.watched.take()), f"really killed after {self.point} {step}")
        self.watched.restore()
