"""A player under its Keeper: it dies with it, and its whole tree is ended with it."""

import os
import signal

import pytest

from symphony.keeper.link import KeeperLink
from tests.extension.test_player import ECHO, HEAD, ONE
from tests.keeper.conftest import Stage as KeeperStage
from tests.keeper.conftest import await_dead


@pytest.fixture
def kept():
    kept = KeeperStage()
    assert isinstance(kept.link, KeeperLink)
    yield kept
    kept.close()


def test_it_works_under_the_keeper_and_ends_when_asked(play, kept):
    stage = play(ECHO, keeper=kept.link)
    assert stage.call("echo", ONE, [(0, stage.put(b"kept"))]).value == b"kept"
    kept.link.end(1, grace_s=20.0)
    died = kept.await_message("died", 1)
    assert (died["status"], died["signal"]) == (0, 0)


def test_it_dies_with_a_killed_keeper(play, kept):
    stage = play(ECHO, keeper=kept.link)
    pid = kept.await_message("spawned", 1)["pid"]
    assert stage.ready
    os.kill(kept.link.pid, signal.SIGKILL)
    kept.await_message("gone")
    await_dead([pid])


def test_a_killed_player_is_told_with_what_it_printed(play, kept):
    stage = play(
        HEAD
        + """
import os, signal, sys
@app.handler()
def dies():
    print("last words", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
app.run()
""",
        keeper=kept.link,
    )
    stage.dispatch(stage.bind("dies", {}))
    died = kept.await_message("died", 1)
    assert died["signal"] == signal.SIGKILL and died["last_words"] == "last words"
    assert not stage.collect() and stage.own.working == 0
