"""A crash loop is slowed down and then given up; what the engine left in memory stays where it is."""

import signal

import pytest

from symphony.keeper.policy import Backoff, Deaths, Policy
from tests.keeper.conftest import await_dead, is_live


def parked(daemon, processes):
    await_dead([*processes, daemon.keeper])
    daemon.keeper = 0
    log = daemon.log()
    assert "parked: " in log and "symphonyctl -n stage up --recover" in log
    return (daemon.folder / "engine" / "parked").read_text()


def test_conductors_that_never_serve_again_are_given_up(daemon):
    state = daemon.folder / "state"
    state.write_text("what the engine left")
    actor = daemon.start("--stillborn", "2")
    child = actor.ask("spawn", token=1)
    actor.ask("ready")
    assert daemon.told() == "ready\n"
    actor.kill()
    for _ in range(3):
        actor = daemon.next()
        assert is_live(child)
        actor.ask("exit", status=4)
    why = parked(daemon, [child, actor.pid])
    assert why.startswith("Conductors that died before they were ready, in 60 s: 3")
    assert "status 4" in why and state.read_text() == "what the engine left"


def test_too_many_deaths_of_any_kind_are_given_up(daemon):
    actor = daemon.start("--deaths", "3")
    child = actor.ask("spawn", token=1)
    for number in (1, 2, 3):
        actor.ask("ready")
        actor.ask("status")
        actor.kill(signal.SIGSEGV)
        if number < 3:
            actor = daemon.next()
            actor.ask("resume")
    why = parked(daemon, [child, actor.pid])
    assert why.startswith("Conductors that died in 60 s: 3") and "signal 11" in why


def test_the_spare_of_a_parked_engine_ends_too(daemon):
    actor = daemon.start("--deaths", "1", "--spare")
    actor.ask("ready")
    spare = daemon.next()
    spare.ask("stand_by")
    actor.kill()
    parked(daemon, [actor.pid, spare.pid])


def test_waits_double_up_to_ten_seconds_and_begin_anew_after_service():
    backoff = Backoff(60.0)
    waits = [backoff.after(0.0) for _ in range(12)]
    assert waits[:4] == [0.01, 0.02, 0.04, 0.08] and waits[-2:] == [10.0, 10.0]
    assert backoff.after(59.9) == 10.0
    assert [backoff.after(60.0), backoff.after(1.0)] == [0.01, 0.02]


@pytest.mark.parametrize(
    ("deaths", "parked_at"),
    [
        ([(t, False) for t in range(10)], 5.0),  # the sixth within the minute
        ([(t * 12.5, False) for t in range(10)], None),  # five within any minute
        ([(t * 6.0, True) for t in range(12)], 54.0),  # the tenth within the minute
        ([(t * 7.0, True) for t in range(20)], None),  # nine within any minute
        ([(t, t % 2 == 0) for t in range(12)], 9.0),
    ],
)
def test_when_it_is_given_up(deaths, parked_at):
    history = Deaths(Policy())
    for moment, served in deaths:
        history.add(moment, served)
        if history.verdict(moment):
            assert moment == parked_at
            return
    assert parked_at is None
