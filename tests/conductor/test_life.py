"""An engine's life inside a program: it starts and ends often, survives a fork, and leaves with the program."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import symphony
from symphony.engine import Engine
from symphony.model.errors import EngineExists, EngineLost, RoomError
from symphony.pit.stale import sweep
from tests.conductor.conftest import START_S, TIMEOUT_S, await_gone, melody, play

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.timeout(START_S)

WORDS = ("words", "trial.words", {"count": 2})

PROGRAM = """
import os, sys, time
from symphony import Engine, Melody
nap = Melody("m").step("nap", "trial.nap", seconds=600.0).output("nap", "nap")
words = Melody("m").step("words", "trial.words", count=2).output("words", "words")
"""


@pytest.fixture
def program(own_runtime_directory, extensions):
    """Start a program that embeds an engine; it is killed at the end if it still runs."""
    started = []

    def start(body, *words):
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", PROGRAM + textwrap.dedent(body), *words], cwd=ROOT, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process, code):
    out, err = process.communicate(timeout=START_S)
    assert process.returncode == code, err
    return out, err


def nothing_left(name):
    entries = sweep.plan(instance=name).entries
    assert entries == (), entries


def test_started_and_ended_twenty_times_it_leaves_nothing():
    """Descriptors, segments and processes are looked at by the fixture of conftest; threads here."""
    threads = threading.active_count()
    for turn in range(20):
        with Engine(players=1) as engine:
            if turn % 5 == 0:
                assert len(play(engine, WORDS)["words"]) == 2
        assert threading.active_count() == threads
    nothing_left(engine.name)


def test_closed_twice_and_used_after():
    engine = Engine(players=1)
    run = engine.play(melody(WORDS))
    run.wait(TIMEOUT_S)
    engine.close()
    engine.close()
    for use in (engine.status, run.state, run.result, run.record, lambda: engine.play(melody(WORDS)), run.cancel):
        with pytest.raises(EngineLost, match="closed"):
            use()


def test_who_waits_while_it_closes_is_told():
    engine = Engine(players=1)
    run = engine.play(melody(("held", "trial.deaf", {})))
    told = []

    def wait():
        try:
            run.result(TIMEOUT_S)
        except EngineLost as error:
            told.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    for event in run.events(TIMEOUT_S):
        if event["running"]:
            break
    engine.close()
    waiting.join(TIMEOUT_S)
    assert len(told) == 1


def test_two_of_one_name():
    with Engine("twice", players=1) as engine:
        with pytest.raises(EngineExists, match="twice"):
            Engine("twice", players=1)
        assert len(play(engine, WORDS)["words"]) == 2
    with Engine("twice", players=1):
        pass


def test_others_attach_and_connect_by_its_name():
    with Engine("seen", players=1) as engine:
        play(engine, WORDS)
        with symphony.attach("seen") as viewer, symphony.connect("seen") as client:
            assert viewer.status()["pid"] == client.status()["pid"] == os.getpid()
            assert [run["state"] for run in viewer.runs()] == ["completed"]
            assert list(client.play(melody(WORDS)).result(TIMEOUT_S)["words"]) == ["w0", "w1"]


def test_a_fork_leaves_the_parents_whole_and_the_childs_closed():
    with Engine("forked", players=1) as engine:
        run = engine.play(melody(("held", "trial.heed", {})))
        for event in run.events(TIMEOUT_S):
            if event["running"]:
                break
        child = os.fork()
        if not child:
            os._exit(_in_the_child(engine, run))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert run.state()["state"] == "running"
        run.cancel()
        assert run.wait(TIMEOUT_S)["state"] == "cancelled"
        assert len(play(engine, WORDS)["words"]) == 2
        with symphony.connect("forked") as client:
            assert client.status()["pid"] == os.getpid()


def _in_the_child(engine, run):
    """How many uses of the parent's engine were not refused; and one of its own works."""
    uses = [
        engine.status, run.state, run.result, run.record, run.cancel, lambda: run.wait(1), lambda: next(run.events()),
        lambda: engine.play(melody(WORDS)), lambda: engine.run(run.serial), lambda: engine.pit.pool, lambda: engine.pit.dag,
    ]  # fmt: skip
    wrong = 0
    signal.alarm(60)  # a use that never returns is wrong, too
    for use in uses:
        try:
            use()
            wrong += 1
        except EngineLost as error:
            wrong += "forked" not in str(error)
        except BaseException:
            wrong += 1
    engine.close()
    own = Engine(players=1)
    wrong += len(play(own, WORDS)["words"]) != 2
    own.close()
    return wrong


def test_a_forked_child_that_lives_on_keeps_nothing_of_the_engines(program):
    """The parent is killed: Keeper and players end and the door is shut, though a child of it still runs."""
    process = program(
        """
        engine = Engine("parent", players=1)
        run = engine.play(words)
        run.result(60)
        if not os.fork():
            time.sleep(3600)
        status = engine.status()
        print(status["keeper_pid"], status["players"][0]["pid"], flush=True)
        time.sleep(3600)
        """
    )
    pids = [int(word) for word in process.stdout.readline().split()]
    assert len(pids) == 2, process.stderr.read()
    os.kill(process.pid, signal.SIGKILL)
    try:
        for pid in pids:
            await_gone(pid)
        with pytest.raises(symphony.SymphonyError, match="no engine named 'parent'"):
            symphony.connect("parent")
        assert [entry.state for entry in sweep.plan(instance="parent").entries] == [sweep.DEAD]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        sweep.sweep(sweep.plan(instance="parent"))


def test_it_leaves_with_a_program_that_does_not_close_it(program):
    out, err = ended(program("engine = Engine('left'); print(engine.play(words).result(60)['words'][0])"), 0)
    assert out == "w0\n" and err == ""
    nothing_left("left")


def test_it_leaves_with_a_program_that_fails(program):
    _, err = ended(program("engine = Engine('left'); run = engine.play(nap); raise SystemExit(7)"), 7)
    assert err == ""
    nothing_left("left")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_killed_program_leaves_only_what_the_next_start_takes(program, number):
    """SIGKILL beside them is tested above; by SIGTERM Python ends without a word, as any program does."""
    process = program("engine = Engine('killed'); run = engine.play(nap); print('up'); time.sleep(3600)")
    assert process.stdout.readline() == "up\n", process.stderr.read()
    process.send_signal(number)
    process.communicate(timeout=START_S)
    if number == signal.SIGINT:
        nothing_left("killed")
    with Engine("killed", players=1) as engine:
        assert len(play(engine, WORDS)["words"]) == 2
    nothing_left("killed")


def interrupt(process, line="ready\n"):
    """Ctrl-C as a terminal sends it, to the whole foreground group, once the program has said that line."""
    assert process.stdout.readline() == line, process.stderr.read()
    os.killpg(process.pid, signal.SIGINT)


def test_ctrl_c_while_it_waits_for_a_result(program):
    process = program(
        """
        try:
            with Engine("stopped", players=1) as engine:
                run = engine.play(nap)
                for event in run.events():
                    if event["running"]:
                        break
                print("ready")
                run.result()
        except KeyboardInterrupt:
            print("heard")
            raise
        """
    )
    interrupt(process)
    out, err = ended(process, -signal.SIGINT)
    assert out == "heard\n" and err.rstrip().endswith("KeyboardInterrupt")
    nothing_left("stopped")


def test_ctrl_c_again_while_it_closes_waits_until_nothing_is_left(program):
    process = program(
        """
        import threading
        try:
            with Engine("stopped", players=1) as engine:
                stop = engine._conductor.keeper.stop
                def slowly(*given):
                    print("closing")
                    threading.Event().wait(0.5)
                    return stop(*given)
                engine._conductor.keeper.stop = slowly
                print("ready")
                engine.play(nap).result()
        except KeyboardInterrupt:
            print("heard")
        """
    )
    interrupt(process)
    interrupt(process, "closing\n")
    out, _ = ended(process, 0)
    assert out == "heard\n"
    nothing_left("stopped")


def test_ctrl_c_while_it_starts(program):
    """At any moment from its first thread to its readiness; what was made is taken away again."""
    for turn in range(12):
        process = program(
            """
            import threading
            def press(moment):
                time.sleep(moment)
                import signal
                signal.raise_signal(signal.SIGINT)
            from symphony.conductor.conductor import Conductor
            start = Conductor.start
            def watched(self):
                threading.Thread(target=press, args=(float(sys.argv[1]),), daemon=True).start()
                return start(self)
            Conductor.start = watched
            try:
                with Engine("begun", players=1) as engine:
                    time.sleep(5)
            except KeyboardInterrupt:
                print("heard")
            """,
            str(0.01 * turn),
        )
        out, err = ended(process, 0)
        assert out == "heard\n", err
        nothing_left("begun")


def test_a_full_table_of_segments_refuses_a_play_and_keeps_nothing(own_runtime_directory):
    with Engine(players=1) as engine:
        play(engine, WORDS)
        rows, registry = engine._conductor.tables.segments, engine._conductor.registry
        free = rows["word"] == 0
        rows["word"][free] = 1
        before = registry.names()
        for turn in range(3):
            with pytest.raises(RoomError, match="segments at once are the limit"):
                engine.play(melody(*[(f"s{number}", "trial.words", {"count": 2}) for number in range(3 + turn)]))
            with pytest.raises(RoomError, match="segments at once are the limit"):
                engine.pit.dag.submit([(0, 1)], 700 + turn)
        rows["word"][free] = 0
        assert len(registry.names()) <= len(before) + 6  # run segments without a row, kept for the next of their shape
        assert len(play(engine, WORDS)["words"]) == 2
    assert not registry.names()
