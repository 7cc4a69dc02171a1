"""The Keeper spawns, tells of deaths, and ends whole trees, also those that hide."""

import json
import os
import signal
import subprocess
import sys

from symphony.keeper import tree
from tests.keeper.conftest import await_dead, is_live

SAY = "import os, socket; s = socket.socket(fileno=3); say = lambda *p: s.send(','.join(map(str, p)).encode());"
DEATH_SIGNAL = "import ctypes; ctypes.CDLL(None).prctl(1, 9, 0, 0, 0);"


def pids_from(end):
    return [int(word) for word in end.recv(4096).decode().split(",")]


def test_a_child_gets_its_socket_its_token_and_its_session(stage):
    end = stage.spawn(
        7, SAY + "say(os.getpid(), os.getsid(0), os.getppid(), len(os.listdir('/proc/self/fd')));s.recv(10)"
    )
    spawned = stage.await_message("spawned", 7)
    pid, session, parent, descriptors = pids_from(end)
    assert pid == session == spawned["pid"]
    assert parent == stage.link.pid
    assert descriptors == 5  # 0, 1, 2, its socket, and the listing's own
    assert spawned["start"] == tree.start_time(pid)
    assert tree.environment_token(pid) == f"{stage.link.id}.7"


def test_death_is_told_with_status_and_last_words(stage, tmp_path):
    log = tmp_path / "logs" / "child.log"
    stage.spawn(1, "import sys; print('on stdout', flush=True); sys.exit('no such model: large')", log=str(log))
    died = stage.await_message("died", 1)
    assert (died["status"], died["signal"]) == (1, 0)
    assert "no such model: large" in died["last_words"] and "on stdout" in died["last_words"]
    assert log.read_text().split("\n")[:2] == ["on stdout", "no such model: large"]


def test_death_by_a_signal_is_told(stage):
    end = stage.spawn(1, SAY + "say(os.getpid()); s.recv(10)")
    pid = pids_from(end)[0]
    os.kill(pid, signal.SIGKILL)
    died = stage.await_message("died", 1)
    assert died["signal"] == signal.SIGKILL and died["pid"] == pid


def test_what_cannot_be_spawned_is_told(stage):
    stage.spawn(3, "", argv=["/no/such/program"])
    failed = stage.await_message("failed", 3)
    assert "/no/such/program" in failed["error"]
    stage.link.ping()
    stage.await_message("pong")


def test_a_log_stays_small_and_the_last_words_are_the_last(stage, tmp_path):
    log = tmp_path / "loud.log"
    stage.spawn(1, "for i in range(60000): print('line', i, 'x' * 40)\nprint('the end')", log=str(log))
    died = stage.await_message("died", 1)
    assert died["last_words"].endswith("the end") and len(died["last_words"]) <= 8192
    assert log.stat().st_size <= 1 << 20
    assert (tmp_path / "loud.log.1").stat().st_size <= 1 << 20
    assert log.read_text().endswith("the end\n")


def test_a_polite_child_ends_within_its_grace(stage):
    end = stage.spawn(1, SAY + "import signal, sys; signal.signal(15, lambda *_: sys.exit(5)); say(1);signal.pause()")
    pids_from(end)
    stage.link.end(1, grace_s=15.0)
    died = stage.await_message("died", 1)
    assert died["status"] == 5


def test_a_tree_that_hides_and_ignores_is_ended(stage):
    code = (
        SAY
        + """
import signal
signal.signal(15, signal.SIG_IGN)
def daemon():
    if os.fork():
        return
    os.setsid()
    if os.fork():
        os._exit(0)
    say(os.getpid())
    while True:
        signal.pause()
for _ in range(3):
    daemon()
if not os.fork():
    say(os.getpid())
    while True: signal.pause()
say(os.getpid())
while True: signal.pause()
"""
    )
    end = stage.spawn(1, code)
    hidden = [pids_from(end)[0] for _ in range(5)]
    assert all(is_live(pid) for pid in hidden)
    stage.link.end(1, grace_s=0.1)
    died = stage.await_message("died", 1)
    assert died["signal"] == signal.SIGKILL
    await_dead(hidden)


def test_what_a_dead_child_leaves_is_ended(stage):
    code = SAY + "import subprocess\np = subprocess.Popen(['sleep', '600'], start_new_session=True); say(p.pid)"
    end = stage.spawn(1, code)
    left = pids_from(end)
    stage.await_message("died", 1)
    await_dead(left)


def test_other_children_live_on(stage):
    first, second = (stage.spawn(t, SAY + "say(os.getpid()); s.recv(10); say(2); s.recv(10)") for t in (1, 2))
    pids_from(first), pids_from(second)
    stage.link.end(1, grace_s=0.1)
    stage.await_message("died", 1)
    second.send(b"go")
    assert second.recv(10) == b"2"


def test_stop_ends_all_and_the_keeper(stage):
    pids = [pids_from(stage.spawn(t, SAY + "say(os.getpid()); s.recv(10)"))[0] for t in range(4)]
    keeper = stage.link.pid
    messages = stage.link.stop(15.0)
    assert {m["token"] for m in messages if m["op"] == "died"} == {0, 1, 2, 3}
    assert not any(is_live(pid) for pid in [*pids, keeper])


def test_a_killed_keeper_takes_its_children_along(stage):
    end = stage.spawn(
        1,
        DEATH_SIGNAL + SAY + "import subprocess\n"
        "p = subprocess.Popen(['sleep', '600'], start_new_session=True); say(os.getpid(), p.pid)\n"
        "s.recv(9)",
    )
    child, grandchild = pids_from(end)
    os.kill(stage.link.pid, signal.SIGKILL)
    stage.await_message("gone")
    await_dead([child])
    assert stage.link.sweep() == 1
    await_dead([grandchild])


def test_a_killed_parent_takes_all_along(tmp_path):
    code = f"""
import socket, sys
sys.path.insert(0, {os.getcwd()!r})
from symphony.keeper.link import KeeperLink
link = KeeperLink.start("orphans")
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
link.spawn(1, [sys.executable, "-S", "-c", {SAY + "say(os.getpid()); import signal; signal.pause()"!r}],
           {{}}, None, None, "x", theirs.fileno())
print(link.pid, ours.recv(100).decode(), flush=True)
input()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    parent.stdin.close()
    parent.stdout.close()
    await_dead(pids)


def test_the_keeper_is_light(stage):
    code = "import json, sys, symphony.keeper.process, symphony.keeper.daemon;print(json.dumps(sorted(sys.modules)))"
    names = json.loads(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert not {"numpy", "numba", "cffi", "_cffi_backend", "symphony.native", "asyncio"} & set(names)


def test_a_daemon_serves_until_its_conductor_ends(tmp_path):
    (tmp_path / "fake_conductor.py").write_text(f"""
import os, socket, sys
from symphony.keeper.link import KeeperLink
link = KeeperLink.from_fd(3)
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
link.spawn(1, [sys.executable, "-S", "-c", {SAY + "say(os.getpid()); import signal; signal.pause()"!r}],
           None, None, None, "x", theirs.fileno())
child = ours.recv(100).decode()
import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
link.ready(f"{{os.getpid()}} {{os.getppid()}} {{child}} {{' '.join(sys.argv[1:])}}")
signal.pause()
""")
    read_end, write_end = os.pipe()
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{os.getcwd()}"}
    starter = [
        sys.executable,
        "-m",
        "symphony.keeper",
        "--daemon",
        "--module",
        "fake_conductor",
        "--name",
        "stage",
        "--ready-fd",
        str(write_end),
        "--players",
        "3",
    ]
    assert subprocess.run(starter, check=False, env=environment, pass_fds=(write_end,), timeout=20).returncode == 0
    os.close(write_end)
    with open(read_end) as ready:
        word, conductor, keeper, child, *rest = ready.readline().split()
        assert ready.read() == ""
    assert word == "ready" and rest == ["--name", "stage", "--players", "3"]
    os.kill(int(conductor), signal.SIGTERM)
    await_dead([int(conductor), int(keeper), int(child)])


def test_a_daemon_whose_conductor_fails_says_why():
    read_end, write_end = os.pipe()
    starter = [
        sys.executable,
        "-m",
        "symphony.keeper",
        "--daemon",
        "--module",
        "no_such_module",
        "--name",
        "stage",
        "--ready-fd",
        str(write_end),
    ]
    assert subprocess.run(starter, check=False, pass_fds=(write_end,), timeout=20).returncode == 0
    os.close(write_end)
    with open(read_end) as ready:
        text = ready.read()
    assert text.startswith("error ") and "no_such_module" in text
