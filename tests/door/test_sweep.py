"""Names of engines: claimed, found dead, swept; and never what is another's or alive."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from symphony.bus.door_wire import directory_of
from symphony.inspect import ls
from symphony.model.errors import EngineExists, SegmentExists, UsageError, WaitTimeout
from symphony.pit.stale import sweep
from symphony.ring import Ring
from symphony.shmem import names

NAME = "sweeptest"

HOLDER = """
    import os, sys, threading
    from symphony.pit.stale import sweep
    held = sweep.claim(sys.argv[1])
    print("held", flush=True)
    sys.stdin.read()
    held.release()
"""


@pytest.fixture
def holder():
    """Start a process that claims a name; killed at the end if the test did not."""
    started = []

    def start(name=NAME, program=HOLDER):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def make_segment(instance: str, process: sweep.Process | None, kind: str = "state", digits: str = "0123456789abcdef"):
    """A file in /dev/shm with a stamp of `process`, or a half-made one."""
    path = sweep.SHM / f"symphony.{os.getuid()}.{instance}.{kind}.{digits}"
    head = bytes(sweep._STAMP.size)
    if process is not None:
        boot = bytes.fromhex(process.boot_id)
        head = sweep._STAMP.pack(
            sweep._MAGIC, 1, 1, 0, 4096, 1, process.start, process.pid, 0, boot, b"", 0, 1, 0, 0, 0, process.namespace
        )
    path.write_bytes(head.ljust(4096, b"\0"))
    return path


def test_a_state_that_stays_is_told_of_and_its_keeper_holds_it():
    """By the memory's own stamp: a start that looks into another runtime folder finds no owner file."""
    keeper = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    living, gone = sweep.Process.of(keeper.pid), dead_process()
    path = sweep.SHM / f"symphony.{os.getuid()}.{NAME}.state.{'0' * 15}1"
    head = (sweep._MAGIC, 1, 1, 0, 4096, 1, gone.start, gone.pid, 0, bytes.fromhex(sweep.boot_id()), b"", 0, 1)
    try:
        path.write_bytes(sweep._STAMP.pack(*head, living.start, living.pid, 1, living.namespace).ljust(4096, b"\0"))
        [entry] = sweep.plan(instance=NAME).entries
        assert (entry.state, entry.recoverable) == (sweep.LIVE, True)
    finally:
        keeper.communicate()
    [entry] = sweep.plan(instance=NAME).entries
    assert (entry.state, entry.recoverable) == (sweep.DEAD, True)
    sweep.sweep(sweep.plan(instance=NAME))
    assert not path.exists()


def dead_process() -> sweep.Process:
    process = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    identity = sweep.Process.of(process.pid)
    process.kill()
    process.communicate()
    return identity


def age(path, seconds=2 * sweep.YOUNG_S):
    past = time.time() - seconds
    os.utime(path, (past, past))


def only(instance=NAME):
    entries = sweep.plan(instance=instance).entries
    assert len(entries) == 1
    return entries[0]


def test_a_claim_is_exclusive_and_leaves_nothing():
    held = sweep.claim(NAME)
    assert only().state == sweep.LIVE
    assert sweep.owners_of(NAME) == (sweep.Process.of(os.getpid()),)
    with pytest.raises(EngineExists, match=str(os.getpid())):
        sweep.claim(NAME)
    held.release()
    held.release()
    assert not directory_of(NAME).exists()
    assert sweep.plan(instance=NAME).entries == ()


def test_a_name_that_cannot_be():
    with pytest.raises(UsageError):
        sweep.claim("../evil")


def test_the_name_is_taken_from_the_killed_and_not_from_the_living(holder):
    process = holder()
    with pytest.raises(EngineExists):
        sweep.claim(NAME)
    assert sweep.sweep(sweep.plan()).instances == []
    segment = make_segment(NAME, sweep.Process.of(process.pid))
    process.kill()
    process.wait()
    held = sweep.claim(NAME)
    assert held.swept.segments == ["/" + segment.name] and held.swept.size_bytes == 4096
    assert not segment.exists()
    held.release()


def test_a_stopped_process_lives(holder):
    process = holder()
    os.kill(process.pid, signal.SIGSTOP)
    assert only().state == sweep.LIVE
    os.kill(process.pid, signal.SIGCONT)


def test_the_keeper_holds_the_name_too(holder):
    process = holder()
    keeper = subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE)
    owners = [*sweep.owners_of(NAME), sweep.Process.of(keeper.pid)]
    sweep._write_owners(directory_of(NAME), owners)
    process.kill()
    process.wait()
    assert only().state == sweep.LIVE
    keeper.communicate(b"\n")
    assert only().state == sweep.DEAD
    assert sweep.sweep(sweep.plan(instance=NAME)).instances == [NAME]


def test_a_pid_that_was_given_out_again_is_another_process():
    me = sweep.Process.of(os.getpid())
    earlier = sweep.Process(me.pid, me.start - 1, me.boot_id, me.namespace)
    another_boot = sweep.Process(me.pid, me.start, "0" * 32, me.namespace)
    elsewhere = sweep.Process(me.pid, me.start, me.boot_id, me.namespace + 1)
    assert [p.judge() for p in (me, earlier, another_boot, elsewhere)] == [
        sweep.LIVE,
        sweep.DEAD,
        sweep.DEAD,
        sweep.UNKNOWN,
    ]


def test_another_pid_namespace_is_left_alone(holder):
    process = holder()
    identity = sweep.Process.of(process.pid)
    process.kill()
    process.wait()
    elsewhere = sweep.Process(identity.pid, identity.start, identity.boot_id, identity.namespace + 1)
    sweep._write_owners(directory_of(NAME), [elsewhere])
    assert only().state == sweep.UNKNOWN
    assert sweep.sweep(sweep.plan(instance=NAME)).instances == []
    with pytest.raises(EngineExists):
        sweep.claim(NAME)
    sweep._write_owners(directory_of(NAME), [identity])
    assert sweep.sweep(sweep.plan(instance=NAME)).instances == [NAME]


def test_a_segment_of_another_pid_namespace_is_left_alone():
    """By the stamp alone: who looks into another runtime folder finds no owner file, and the pid says nothing here."""
    here = dead_process()
    elsewhere = sweep.Process(here.pid, here.start, here.boot_id, here.namespace + 1)
    foreign, own = make_segment("foreign", elsewhere), make_segment("mine", here)
    try:
        assert only("foreign").state == sweep.UNKNOWN
        assert sweep.sweep(sweep.plan()).segments == ["/" + own.name]
        with pytest.raises(EngineExists, match="another pid namespace"):
            sweep.claim("foreign")
        assert foreign.exists()
    finally:
        foreign.unlink()


ELSEWHERE = """
    import os, sys
    from symphony.shmem.registry import Registry
    from symphony.shmem.segment import Region, Segment
    from symphony.ring import Ring
    segment = Segment.create(Registry("elsewhere"), "elsewhere", "arena", [Region("bytes", "u8", 4096)])
    ring = Ring.create("elsewhere", 4096)
    print(os.getpid(), flush=True)
    sys.stdin.readline()
    ring.close()
    segment.unlink()
"""


def test_a_living_process_of_another_pid_namespace_keeps_its_segments(tmp_path):
    """A real one, as in a container that shares /dev/shm and has a runtime folder of its own."""
    program = [sys.executable, "-c", textwrap.dedent(ELSEWHERE)]
    words = ["unshare", "--pid", "--fork", "--mount-proc", *program]
    if os.getuid():
        words[1:1] = ["--user", "--map-current-user"]
    environment = {**os.environ, "SYMPHONY_RUNTIME_DIR": str(tmp_path / "other")}
    with subprocess.Popen(
        words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        if not process.stdout.readline():
            pytest.skip(f"no pid namespace can be made here: {process.stderr.read()}")
        assert only("elsewhere").state == sweep.UNKNOWN
        names_there = {item.name for item in (*only("elsewhere").segments, *only("ring.elsewhere").segments)}
        sweep.claim(NAME).release()
        assert not names_there & set(sweep.sweep(sweep.plan()).segments)
        assert all((sweep.SHM / name.lstrip("/")).exists() for name in names_there)
        [told] = ls.segments("elsewhere")
        assert told["alive"] is None
        with pytest.raises(SegmentExists, match="another pid namespace"):
            _make_the_same_ring(tmp_path / "other")
        process.communicate("end\n")
    assert process.returncode == 0
    assert sweep.plan(instance="elsewhere").entries == ()


def _make_the_same_ring(base):
    """Under the runtime folder of the ring's maker, as one that mounts it too."""
    before = os.environ["SYMPHONY_RUNTIME_DIR"]
    os.environ["SYMPHONY_RUNTIME_DIR"] = str(base)
    try:
        Ring.create("elsewhere", 4096).close()
    finally:
        os.environ["SYMPHONY_RUNTIME_DIR"] = before


def test_segments_without_a_folder():
    dead, live = make_segment("lost", dead_process()), make_segment("kept", sweep.Process.of(os.getpid()))
    assert only("lost").state == sweep.DEAD and only("kept").state == sweep.LIVE
    assert sweep.sweep(sweep.plan()).segments == ["/" + dead.name]
    assert live.exists()
    live.unlink()


def test_a_living_makers_segment_keeps_the_whole_name(holder):
    make_segment(NAME, dead_process())
    live = make_segment(NAME, sweep.Process.of(os.getpid()), digits="f" * 16)
    assert only().state == sweep.LIVE
    live.unlink()
    assert sweep.sweep(sweep.plan(instance=NAME)).instances == [NAME]


def test_half_made_leavings_are_believed_for_a_minute():
    segment, young = make_segment(NAME, None), make_segment(NAME, None, digits="5" * 16)
    folder = names.runtime_directory(NAME)
    (folder / "segments").mkdir()
    (folder / "segments" / segment.name).touch()
    assert only().state == sweep.UNKNOWN
    age(segment)
    assert only().state == sweep.UNKNOWN
    age(folder)
    assert only().state == sweep.DEAD
    assert sweep.sweep(sweep.plan(instance=NAME)).segments == ["/" + segment.name]
    assert not os.path.exists(folder)
    assert sweep.plan(instance=NAME).entries == ()
    age(young)
    assert sweep.sweep(sweep.plan(instance=NAME)).segments == ["/" + young.name]


def test_a_half_made_segment_of_a_killed_engine_is_taken(holder):
    process = holder()
    segment = make_segment(NAME, None)
    folder = directory_of(NAME)
    (folder / "segments").mkdir()
    (folder / "segments" / segment.name).touch()
    process.kill()
    process.wait()
    assert sweep.sweep(sweep.plan(instance=NAME)).segments == ["/" + segment.name]


def test_a_bare_rings_name_has_a_dot():
    segment = make_segment("ring.tape", dead_process(), kind="ring")
    assert only("ring.tape").segments[0].name == "/" + segment.name
    assert sweep.sweep(sweep.plan(instance="ring.tape")).segments == ["/" + segment.name]


def test_what_only_looks_like_a_segment_is_left_alone(tmp_path):
    target = tmp_path / "precious"
    target.write_text("kept")
    uid = os.getuid()
    others = [
        sweep.SHM / f"symphony.{uid}.{NAME}.state.{'z' * 16}",
        sweep.SHM / f"symphony.{uid + 1}.{NAME}.state.{'0' * 16}",
    ]
    link = sweep.SHM / f"symphony.{uid}.{NAME}.state.{'1' * 16}"
    for path in others:
        path.write_bytes(bytes(64))
    link.symlink_to(target)
    try:
        assert sweep.plan(instance=NAME).entries == ()
        sweep.sweep(sweep.plan())
        assert target.read_text() == "kept" and all(path.exists() for path in others) and link.is_symlink()
    finally:
        for path in (*others, link):
            path.unlink()


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to make another user's files")
def test_another_users_are_not_even_listed():
    segment = make_segment(NAME, dead_process())
    folder = names.runtime_base() / "theirs"
    folder.mkdir()
    os.chown(segment, 65534, 65534)
    os.chown(folder, 65534, 65534)
    assert sweep.plan(instance=NAME).entries == () and sweep.plan(instance="theirs").entries == ()
    segment.unlink()
    folder.rmdir()


def test_a_folder_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "inside").write_text("kept")
    link = names.runtime_base() / "linked"
    link.symlink_to(tmp_path)
    assert sweep.plan(instance="linked").entries == ()
    assert (tmp_path / "inside").read_text() == "kept"
    link.unlink()


def test_a_damaged_owner_file_is_no_owner(holder):
    process = holder()
    process.kill()
    process.wait()
    folder = directory_of(NAME)
    for damage in (b"", b"{", b"[]", b'{"processes": [{"pid": "x"}]}', b"\xff" * 100):
        (folder / sweep.OWNER_FILE).write_bytes(damage)
        assert only().state == sweep.UNKNOWN
    age(folder)
    assert sweep.sweep(sweep.plan(instance=NAME)).instances == [NAME]


def test_only_one_of_many_claims_wins():
    program = """
        import sys
        from symphony.model.errors import EngineExists
        from symphony.pit.stale import sweep
        sys.stdin.readline()
        try:
            held = sweep.claim(sys.argv[1])
            print("won", flush=True)
            sys.stdin.readline()
            held.release()
        except EngineExists:
            print("lost", flush=True)
    """
    make_segment(NAME, dead_process())
    command = [sys.executable, "-c", textwrap.dedent(program), NAME]
    crowd = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    for process in crowd:
        process.stdin.write("go\n")
        process.stdin.flush()
    told = [process.stdout.readline().strip() for process in crowd]
    for process in crowd:
        process.communicate("\n")
    assert sorted(told) == ["lost"] * 5 + ["won"]
    assert not directory_of(NAME).exists()


def test_a_lock_that_is_held_is_waited_for_in_bounds():
    names.runtime_directory(NAME)
    with sweep.lock(names.runtime_base()), pytest.raises(WaitTimeout):
        sweep.claim(NAME, deadline_s=0.05)
    sweep.claim(NAME).release()


def test_killed_in_the_middle_a_sweep_goes_on_where_it_stopped(monkeypatch):
    """At every unlink: what is left is still found, and the next sweep takes it at once. The folder goes by one rename:
    it is never found without its owner file."""

    class Killed(BaseException):
        pass

    os_unlink = os.unlink
    for last in range(4):
        maker = dead_process()
        for digit in "012":
            make_segment(NAME, maker, digits=digit * 16)
        sweep._write_owners(names.runtime_directory(NAME), [maker])
        done = []

        def unlink(path, *more, last=last, done=done, **named):
            if len(done) == last:
                raise Killed
            done.append(path)
            return os_unlink(path, *more, **named)

        with monkeypatch.context() as patched:
            patched.setattr(os, "unlink", unlink)
            with pytest.raises(Killed):
                sweep.sweep(sweep.plan(instance=NAME))
        if last < 3:
            assert only().state == sweep.DEAD
            assert sweep.sweep(sweep.plan(instance=NAME)).instances == [NAME]
        else:
            assert sweep.plan(instance=NAME).entries == ()
            assert list(names.runtime_base().glob(".gone.*"))
            sweep.sweep(sweep.plan(instance=NAME))
        assert sweep.plan(instance=NAME).entries == ()
        assert not list(names.runtime_base().glob(".gone.*"))


def test_clean_says_and_takes(holder):
    from click.testing import CliRunner

    from symphony.cli.main import symphonyctl

    process = holder()
    segment = make_segment(NAME, sweep.Process.of(process.pid))
    process.kill()
    process.wait()
    told = CliRunner().invoke(symphonyctl, ["-n", NAME, "clean", "--dry-run"]).stdout
    assert NAME in told and "dead" in told and segment.exists()
    told = CliRunner().invoke(symphonyctl, ["-n", NAME, "-o", "jsonl", "clean"]).stdout
    assert '"taken": true' in told and not segment.exists()
    assert CliRunner().invoke(symphonyctl, ["-n", NAME, "clean"]).stdout == "nothing is there\n"
