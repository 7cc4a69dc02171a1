"""kill -9 at every line of making and of removing a segment leaves only what the registry lists, and never something
that can be attached half made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from symphony.model.errors import NoSuchSegment, SegmentError
from symphony.shmem import space
from symphony.shmem.segment import Segment

ROOT = Path(__file__).resolve().parents[2]

STEPPER = """
import json, os, signal, sys
from symphony.shmem import segment, space
from symphony.shmem.registry import Registry
from symphony.shmem.segment import Region, Segment

registry = Registry(sys.argv[1])
what, sparse = sys.argv[2], sys.argv[3] == "sparse"
FOLDER = os.path.dirname(segment.__file__)

def make():
    rows = [Region("nodes", "sym_node_t", 5000, allocated=50 if sparse else None), Region("data", "u8", 100)]
    return Segment.create(registry, sys.argv[1], "run", rows)

def stepped(last):
    "Kill this process before line number `last` of the package's that it comes to; -1 only counts."
    count = 0
    def trace(frame, event, argument):
        nonlocal count
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        if event == "line":
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1
        return trace
    made = make() if what == "unlink" else None
    sys.settrace(trace)
    if made is None:
        made = make()
    else:
        made.unlink()
    sys.settrace(None)
    return count, made

for _ in range(2):  # the first fills the caches; the children then come to the lines that the second counts
    total, made = stepped(-1)
    made.unlink()
    made.close()
found = []
for line in range(total):
    pid = os.fork()
    if pid == 0:
        stepped(line)
        os._exit(3)
    _, status = os.waitpid(pid, 0)
    mine = f"symphony.{os.getuid()}.{sys.argv[1]}."
    there = sorted("/" + name for name in os.listdir("/dev/shm") if name.startswith(mine))
    found.append([os.WTERMSIG(status), there, registry.names()])
    for name in there:
        try:
            with Segment.attach(name) as seen:
                found[-1].append(seen.regions["nodes"].count)
        except Exception as error:
            found[-1].append(type(error).__name__)
        space.unlink(name)
    for name in registry.names():
        registry.leave(name)
print(json.dumps(found))
"""


@pytest.mark.parametrize("sparse", ["whole", "sparse"])
@pytest.mark.parametrize("what", ["create", "unlink"])
def test_killed_at_every_line(registry, instance, what, sparse):
    done = subprocess.run(
        [sys.executable, "-c", STEPPER, instance, what, sparse], cwd=ROOT, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) > (20 if what == "create" else 5)
    assert all(signal == 9 for signal, *_ in found)
    for _, there, listed, *attached in found:
        assert set(there) <= set(listed), "a segment that no registry lists"
        assert len(listed) <= 1
        assert all(one in (5000, "SegmentError") for one in attached), attached
    ends = [tuple(attached) for _, _, _, *attached in found]
    if what == "create":
        assert {(), ("SegmentError",), (5000,)} >= set(ends) >= {(), ("SegmentError",)}
        assert ends == sorted(ends, key=[(), ("SegmentError",), (5000,)].index), "it is attachable at the very end only"
    else:
        assert ends == sorted(ends, key=[(5000,), ("SegmentError",), ()].index), "once not attachable, never again"
        assert ends[-1] == ()


def test_what_a_killed_creator_left_is_taken_by_its_listed_name(registry, instance):
    program = (
        "import os, signal, sys\nfrom symphony.shmem import segment\nfrom symphony.shmem.registry import Registry\n"
        "segment._write_head = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "segment.Segment.create(Registry(sys.argv[1]), sys.argv[1], 'run', [segment.Region('data', 'u8', 9)])"
    )
    done = subprocess.run([sys.executable, "-c", program, instance], cwd=ROOT, check=False, timeout=60)
    assert done.returncode == -9
    (name,) = registry.names()
    with pytest.raises(SegmentError, match="not whole yet"):
        Segment.attach(name)
    space.unlink(name)
    registry.leave(name)
    with pytest.raises(NoSuchSegment):
        Segment.attach(name)
    assert not os.path.exists(space.path_of(name))
