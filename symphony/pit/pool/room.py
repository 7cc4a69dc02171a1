"""The Pool Manager as Python sees it: named calls with handles, and the bound form for the hot path."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from symphony.model.errors import PoolRefused, StaleHandle, UsageError
from symphony.model.priority import Priority
from symphony.native._door import bind
from symphony.native.kernels import loading
from symphony.native.layout import names
from symphony.pit.pool.validate import validate

with loading():
    from symphony.pit.pool.entry import allocate_seat, release_seat
    from symphony.pit.pool.machine import NO_SEATS, NOTHING_FREE, STALE, TOKEN_SEAT_BITS, WAITERS_FIRST

REASONS = {
    NOTHING_FREE: "every seat of it is held",
    WAITERS_FIRST: "others wait for it already",
    NO_SEATS: "it has no instance: load it first (pool.load)",
    STALE: "this holding of the seat is over",
}
_MODEL_STATES = names("sym_model_state")


@dataclass(frozen=True, slots=True)
class ModelHandle:
    """A seat that is held. `generation` is the seat's, so that a handle used after its release is an error."""

    model: str
    instance: int
    generation: int
    state: str
    token: int


class Pool:
    """`engine.pit.pool`. Every method is safe from any thread; a seat may be released by any thread of the process.

    `tables` needs the attributes models, seats, instances, owners, engine (arrays over the state segment) and
    `address(name)`; `find` gives the row of a model by name, or None; `start` has a player of a model started.
    """

    def __init__(
        self, tables: Any, owner: int, find: Callable[[str], int | None], start: Callable[[str, float], None]
    ) -> None:
        self._tables, self._owner, self._find, self._start = tables, owner, find, start
        base, seats = tables.address("models"), tables.address("seats")
        self._allocate = bind(allocate_seat.address, base, seats, owner)
        self._release = bind(release_seat.address, base, seats, owner)
        self._bound = lambda model: bind(allocate_seat.address, base, seats, owner, model)

    def allocate(self, model: str, priority: Priority = Priority.NORMAL) -> ModelHandle:
        """Hold a seat of any ready instance of `model`. Raises PoolRefused with the reason when none is free.

        Cost well under a microsecond; no waiting: a request that finds nothing is refused.
        """
        row = self._row(model)
        token = self._allocate(row)
        if token < 0:
            raise PoolRefused(
                f"no seat of {model!r}: {REASONS.get(token, token)}", reason=REASONS.get(token, str(token))
            )
        seat = token & ((1 << TOKEN_SEAT_BITS) - 1)
        instance = int(self._tables.seats[seat]["instance"])
        state = _MODEL_STATES[int(self._tables.instances[instance]["state"])]
        return ModelHandle(model, instance, token >> TOKEN_SEAT_BITS, state, token)

    def release(self, held: ModelHandle | int) -> None:
        """Give a seat back, by its handle or token. Raises StaleHandle when it is held no more, or by another."""
        token = held if isinstance(held, int) else held.token
        if self._release(token) < 0:
            raise StaleHandle(f"seat token {token}: {REASONS[STALE]}")

    def bind(self, model: str, priority: Priority = Priority.NORMAL) -> Callable[[], int]:
        """The hot form: `allocate = pool.bind("embedder")`; `allocate()` gives a token, or a negative code (`reason`).

        About 50 ns a call. `pool.bind_release()` gives its counterpart.
        """
        return self._bound(self._row(model))

    def bind_release(self) -> Callable[[int], int]:
        """`release(token)`: positive, or a negative code when the token is stale. About 50 ns."""
        return self._release

    @staticmethod
    def reason(code: int) -> str:
        """What a negative code of a bound call means."""
        return REASONS.get(code, f"code {code}")

    def load(self, model: str, timeout: float = 60.0) -> None:
        """Have at least one instance of a model ready. Raises WaitTimeout, PoolRefused when it cannot be started."""
        self._row(model)
        self._start(model, timeout)

    def models(self) -> list[dict[str, Any]]:
        """A line a model: name, state, seats, how many are held."""
        t = self._tables
        lines = []
        for row in range(int(t.engine[0]["models_used"])):
            model = t.models[row]
            first, count = int(model["seat_first"]), int(model["seat_count"])
            words = t.seats["word"][first : first + count] >> 61
            name = bytes(model["name"]).split(b"\0")[0].decode()
            lines.append({"model": name, "state": _MODEL_STATES[int(model["state"])], "seats": count,
                          "free": int((words == 1).sum()), "held": int((words == 3).sum())})  # fmt: skip
        return lines

    def validate(self) -> list[tuple[str, str, str]]:
        """Violations of the pool's invariants; empty when it is consistent."""
        t = self._tables
        return validate(t.engine[0], t.models, t.instances, t.seats, t.owners)

    def _row(self, model: str) -> int:
        row = self._find(model)
        if row is None:
            raise UsageError(f"the engine knows no model {model!r}")
        return row
