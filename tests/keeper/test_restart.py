"""A Conductor is killed at every stage of its life: the children go on, and the next one inherits them."""

import os

from tests.keeper.conftest import is_live

MEMORY = 1 << 40


def inode(fd):
    return os.fstat(fd).st_ino


def by_token(told):
    return {each["token"]: each for each in told}


def test_the_next_conductor_inherits_children_and_descriptors(daemon):
    reader, writer = os.pipe2(os.O_CLOEXEC)
    first = daemon.start("--players", "3")
    assert first.argv == ["--name", "stage", "--players", "3"]
    child = first.ask("spawn", [reader, writer], token=1, names=["in", "bell"])
    first.ask("deposit", [reader], token=MEMORY, names=["memory"])
    first.ask("ready", text="go")
    assert daemon.told() == "ready go\n"
    first.kill()
    second = daemon.next()
    assert second.argv == ["--name", "stage", "--players", "3", "--resume"]
    found = by_token(second.ask("resume"))
    assert set(found) == {1, MEMORY}
    assert (found[1]["pid"], found[1]["alive"], found[1]["name"]) == (child, True, "child1")
    assert found[1]["inodes"]["in"] == inode(reader) and found[1]["inodes"]["bell"] == inode(writer)
    assert set(found[1]["inodes"]) == {"in", "bell", "control"}
    assert found[MEMORY]["inodes"] == {"memory": inode(reader)}
    restarts, last_ns, last_death = second.ask("restarts")
    assert (restarts, last_death) == (1, f"Conductor {first.pid} ended by signal 9") and last_ns > 0
    assert is_live(child)
    os.close(reader), os.close(writer)
