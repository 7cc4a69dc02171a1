"""A spawned player answers what it is sent: inputs of every kind, outputs of every size, failures, cancellation."""

import os
import random
import signal
import time

import pytest

from symphony.model import value
from symphony.native import lib

HEAD = """
from symphony.extension import *
app = Extension()
"""
ECHO = (
    HEAD
    + """
@app.handler("echo")
def echo(data): return data
@app.handler()
def typed(data: bytes) -> bytes: return data
app.run()
"""
)
ONE = {"data": {"slot": 0}}


def test_ready_then_a_step(play):
    stage = play(ECHO)
    before = time.monotonic_ns()
    answer = stage.call("echo", ONE, [(0, stage.put(b"x" * 64))], node=5, attempt=3)
    assert (answer.run, answer.node, answer.attempt, answer.outcome) == (1, 5, 3, lib.SYM_OUTCOME_OK)
    assert answer.outputs == [(value.BYTES, b"x" * 64)] and answer.homes == [lib.SYM_HOME_INLINE]
    assert before <= answer.started_ns <= answer.ended_ns <= time.monotonic_ns()
    assert stage.own.progress == 1


@pytest.mark.parametrize(
    "item", [b"", b"bytes", "text", "", None, 3, 2.5, True, {"a": [1, {"b": None}]}, [1, 2], ["x", b"y", ["z"]], []]
)
def test_every_kind_goes_round(play, item):
    stage = play(ECHO)
    answer = stage.call("echo", ONE, [(0, stage.put(item))])
    assert answer.outcome == lib.SYM_OUTCOME_OK
    assert answer.value == item and answer.outputs[0][0] == value.encode(item).kind


def test_constants_formats_and_lists_of_slots(play):
    stage = play(
        HEAD
        + """
@app.handler()
def join(text: str, parts: list[str], *, sep: str = "-"): return text + sep + sep.join(parts)
app.run()
"""
    )
    refs = [(0, stage.put("one")), (1, stage.put(2)), (2, stage.put({"k": 1}))]
    answer = stage.call(
        "join",
        {"text": {"format": "<{0}|{1}|{2}>", "slots": [0, 1, 2]}, "parts": {"slots": [0, 0]}, "sep": {"value": "+"}},
        refs,
    )
    assert answer.value == '<one|2|{"k":1}>+one+one'


def test_annotations_decide_how_inputs_come(play):
    stage = play(
        HEAD
        + """
@app.handler()
def kinds(a: ArtifactView, b: memoryview, c: bytes, d: str, e: dict, f: int, g: float, h: list, i: "ArtifactView"):
    assert b.readonly and a.buffer.readonly
    names = [type(x).__name__ for x in (a, b, c, d, e, f, g, h, i)]
    return names + [bytes(a).decode(), a.kind, i.text(), str(f), str(g)]
app.run()
"""
    )
    items = [b"view", b"mem", b"by", "te", {"x": 1}, 7, 3, [1, "x"], "quoted"]
    answer = stage.call(
        "kinds",
        {name: {"slot": n} for n, name in enumerate("abcdefghi")},
        [(n, stage.put(item)) for n, item in enumerate(items)],
    )
    assert answer.value == [
        "ArtifactView",
        "memoryview",
        "bytes",
        "str",
        "dict",
        "int",
        "float",
        "list",
        "ArtifactView",
        "view",
        "bytes",
        "quoted",
        "7",
        "3.0",
    ]


def test_the_wrong_kind_of_input_is_a_failure_that_says_so(play):
    stage = play(ECHO)
    answer = stage.call("typed", ONE, [(0, stage.put({"a": 1}))])
    assert answer.outcome == lib.SYM_OUTCOME_FAILED
    assert "wants bytes" in answer.value.message and "data" in answer.value.message


def test_items_of_lists_batches_and_joins(play):
    stage = play(
        HEAD
        + """
@app.handler()
def one(data): return data
@app.handler()
def several(data: list[str]): return "".join(data)
@app.handler()
def lazy(data):
    return [len(data), data[0], data[-1], list(data[1:3]), type(data).__name__]
@app.handler()
def back(data): return data
app.run()
"""
    )
    numbers = stage.put([f"item{n}" for n in range(10)])
    assert stage.call("one", ONE, [(0, numbers, 4, 1)]).value == "item4"
    many = [{"many": True, "each": True}]
    assert stage.call("several", ONE, [(0, numbers, 2, 3)], many).value == "item2item3item4"
    spread = [(0, numbers, 0, 1), (0, numbers, 5, 2), (0, stage.put("whole"))]
    assert stage.call("several", ONE, spread, many).value == "item0item5item6whole"
    assert stage.call("lazy", ONE, spread, many).value == [4, "item0", "whole", ["item5", "item6"], "Items"]
    assert stage.call("back", ONE, spread, many).value == ["item0", "item5", "item6", "whole"]
    assert stage.call("several", ONE, [], many).value == ""
    assert stage.call("one", ONE, [(0, numbers, 3, 2)]).value == ["item3", "item4"]


def test_refs_may_lie_in_memory(play):
    stage = play(
        HEAD
        + """
@app.handler()
def total(data: list[int]): return sum(data)
app.run()
"""
    )
    refs = [(0, stage.put(n)) for n in range(2000)]
    answer = stage.call("total", ONE, refs, [{"many": True, "each": False}], block=True)
    assert answer.value == sum(range(2000))


def test_arrays_come_as_views_and_go_without_numpy_at_start(play):
    numpy = pytest.importorskip("numpy")
    stage = play(
        HEAD
        + """
import sys
assert "numpy" not in sys.modules
@app.handler()
def double(data: "numpy.ndarray"):
    assert not data.flags.writeable and not data.flags.owndata
    return data * 2
app.run()
"""
    )
    array = numpy.arange(12, dtype="<f4").reshape(3, 4)
    answer = stage.call("double", ONE, [(0, stage.put(array))])
    assert answer.outputs[0][0] == value.ARRAY and (answer.value == array * 2).all()


def test_named_outputs(play):
    stage = play(
        HEAD
        + """
@app.handler()
def parts(): return {"big": b"b" * 100_000, "small": "s", "none": None}
@app.handler()
def wrong(): return {"big": 1, "smal": 2}
app.run()
"""
    )
    names = ("small", "big", "none")
    answer = stage.call("parts", {}, outputs=names)
    assert [kind for kind, _ in answer.outputs] == [value.TEXT, value.BYTES, value.NONE]
    assert [payload for _, payload in answer.outputs] == [b"s", b"b" * 100_000, b""]
    wrong = stage.call("wrong", {}, outputs=names)
    assert wrong.outcome == lib.SYM_OUTCOME_FAILED and "smal" in wrong.value.message


def test_declared_types_shape_the_outputs(play):
    stage = play(
        HEAD
        + """
@app.handler()
def words(): return ["a", {"n": 1}]
@app.handler()
def wrong(): return b"bytes"
app.run()
""",
        """
[extension]
id = "tested"
entry = "tested.py"
[handlers.words]
output = "list[data]"
[handlers.wrong]
outputs = { text = "text" }
""",
    )
    answer = stage.call("words", {})
    assert answer.outputs[0][0] == value.LIST and answer.value == ["a", {"n": 1}]
    wrong = stage.call("wrong", {}, outputs=("text",))
    assert wrong.outcome == lib.SYM_OUTCOME_FAILED and "expected text" in wrong.value.message


@pytest.mark.parametrize("size", [4096, 4097, 100_000, 4 << 20, (4 << 20) + 1])
def test_outputs_find_their_home_by_size(play, size):
    stage = play(
        HEAD
        + """
@app.handler()
def make(size: int): return bytes(range(256)) * (size // 256) + bytes(size % 256)
app.run()
"""
    )
    for _ in range(3):
        answer = stage.call("make", {"size": {"slot": 0}}, [(0, stage.put(size))])
        assert answer.outputs == [(value.BYTES, bytes(range(256)) * (size // 256) + bytes(size % 256))]
        expected = (
            lib.SYM_HOME_INLINE if size <= 4096 else lib.SYM_HOME_ARENA if size <= 4 << 20 else lib.SYM_HOME_PARTS
        )
        assert answer.homes == [expected]


def test_a_hundred_megabytes_come_in_parts(play):
    stage = play(
        HEAD
        + """
@app.handler()
def make(): return [b"%07d\\n" % n * 1_250_000 for n in range(10)]
app.run()
"""
    )
    answer = stage.call("make", {})
    assert answer.homes == [lib.SYM_HOME_PARTS]
    items = value.ListView(answer.outputs[0][1])
    assert [bytes(item[:8]) for item in items] == [b"%07d\n" % n for n in range(10)]
    assert all(len(item) == 10_000_000 for item in items)


def test_several_large_outputs_share_a_small_arena(play):
    stage = play(
        HEAD
        + """
@app.handler()
def make(): return {name: name.encode() * 20_000 for name in "abcdef"}
app.run()
""",
        arena_bytes=1 << 16,
    )
    for _ in range(20):
        answer = stage.call("make", {}, outputs="abcdef")
        assert [payload for _, payload in answer.outputs] == [name.encode() * 20_000 for name in "abcdef"]
        assert set(answer.homes) <= {lib.SYM_HOME_ARENA, lib.SYM_HOME_PARTS}


def test_random_sizes_through_a_small_channel(play):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    stage = play(ECHO, arena_bytes=1 << 16, dispatch_bytes=4096, command_bytes=1 << 14)
    binding = stage.bind("echo", ONE, [{"many": False}])
    sent = {}
    for node in range(300):
        payload = chance.randbytes(chance.choice([0, 8, 100, 4000, 4097, 20_000, 33_000]))
        stage.used = 4096 if stage.used > 3_000_000 else stage.used
        sent[node] = payload
        stage.dispatch(binding, [(0, stage.put(payload))], node=node)
        if chance.random() < 0.3:
            stage.collect()
        if len(sent) % 20 == 0:  # the values' memory is used again below: everything sent must be answered first
            stage.until(lambda: len(stage.answers) == len(sent))
    stage.until(lambda: len(stage.answers) == 300)
    assert [answer.node for answer in stage.answers] == list(range(300))
    assert all(answer.outputs[0][1] == sent[answer.node] for answer in stage.answers)


def test_ten_thousand_steps_in_order(play):
    stage = play(ECHO)
    binding = stage.bind("echo", ONE, [{"many": False}])
    refs = [(0, stage.put(bytes([n % 256]) * 64)) for n in range(256)]
    for node in range(10_000):
        stage.dispatch(binding, [refs[node % 256]], node=node, publish=node % 8 == 7)
        if node % 64 == 63:
            stage.collect()
    stage.flush()
    answers = stage.answer(10_000)
    assert [answer.node for answer in answers] == list(range(10_000))
    assert all(answer.outputs == [(value.BYTES, bytes([answer.node % 256]) * 64)] for answer in answers)
    stage.until(lambda: stage.own.working == 2**64 - 1)


def test_a_full_command_ring_holds_the_player_until_there_is_room(play):
    stage = play(ECHO, command_bytes=16384, dispatch_bytes=1 << 16)
    binding = stage.bind("echo", ONE, [{"many": False}])
    ref = stage.put(b"y" * 3000)
    for node in range(60):
        stage.dispatch(binding, [(0, ref)], node=node)
    words = stage.own
    deadline = time.monotonic() + 20
    while words.progress < 5 and time.monotonic() < deadline:
        os.sched_yield()
    assert words.progress < 60
    answers = stage.answer(60)
    assert [answer.node for answer in answers] == list(range(60))


def test_what_a_handler_raises_comes_back_with_its_traceback(play):
    stage = play(
        HEAD
        + """
class Odd(ValueError): pass
def deeper(): raise Odd("no such passage: 7")
@app.handler()
def fails(): deeper()
@app.handler()
def leaves(): raise SystemExit(3)
@app.handler()
def unfit(): return object()
@app.handler()
def fine(): return "fine"
app.run()
"""
    )
    answer = stage.call("fails", {})
    assert answer.outcome == lib.SYM_OUTCOME_FAILED and answer.outputs[0][0] == value.ERROR
    error = answer.value
    assert error.type.endswith("Odd") and error.message == "no such passage: 7"
    assert "in deeper" in error.traceback and "tested.py" in error.traceback and "host.py" not in error.traceback
    assert stage.call("leaves", {}).value.type == "SystemExit"
    assert stage.call("unfit", {}).value.type.endswith("ValueRefused")
    assert stage.call("fine", {}).value == "fine"


def test_a_step_that_cannot_be_bound_fails_by_name(play):
    stage = play(ECHO)
    missing = stage.call("ecko", ONE, [(0, stage.put(b""))])
    assert missing.outcome == lib.SYM_OUTCOME_FAILED and "did you mean 'echo'?" in missing.value.message
    argument = stage.call("echo", {"dat": {"slot": 0}}, [(0, stage.put(b""))])
    assert "no argument 'dat'" in argument.value.message
    damaged = stage.put_payload(value.DATA, b"\xc1\xc1")
    stage.dispatch(damaged)
    assert stage.answer().outcome == lib.SYM_OUTCOME_FAILED


def test_a_ref_outside_its_segment_is_refused(play):
    stage = play(ECHO)
    outside = (7, value.BYTES, 1 << 21, 1 << 40)
    answer = stage.call("echo", ONE, [(0, outside)])
    assert answer.outcome == lib.SYM_OUTCOME_FAILED and "outside segment 7" in answer.value.message
    damaged = stage.put_payload(value.LIST, b"\xff" * 64)
    assert stage.call("echo", ONE, [(0, damaged, 1, 1)]).outcome == lib.SYM_OUTCOME_FAILED


def test_a_grant_may_come_after_the_step_that_needs_it(play):
    stage = play(ECHO, grant=False)
    stage.dispatch(stage.bind("echo", ONE, [{"many": False}]), [(0, stage.put(b"late"))])
    stage.grant()
    assert stage.answer().value == b"late"


def test_async_handlers_run_side_by_side(play):
    stage = play(
        HEAD
        + """
import asyncio
arrived = 0
gate = asyncio.Event()
@app.handler()
async def meet(number: int):
    global arrived
    arrived += 1
    if arrived == 4: gate.set()
    await gate.wait()
    return {"number": number, "node": context.node}
@app.handler()
async def fails(): raise KeyError("gone")
@app.handler()
async def items():
    for n in range(3): yield str(n)
@app.handler()
async def big(): return b"b" * 300_000
app.run()
"""
    )
    binding = stage.bind("meet", {"number": {"slot": 0}}, [{"many": False}])
    for node in range(4):
        stage.dispatch(binding, [(0, stage.put(node * 10))], node=node)
    answers = sorted(stage.answer(4))
    assert [answer.value for answer in answers] == [{"node": n, "number": n * 10} for n in range(4)]
    failed = stage.call("fails", {})
    assert failed.outcome == lib.SYM_OUTCOME_FAILED and failed.value.type == "KeyError"
    assert stage.call("items", {}).value == ["0", "1", "2"]
    assert stage.call("big", {}).value == b"b" * 300_000


def test_cancelling_a_plain_handler(play):
    stage = play(
        HEAD
        + """
import time
@app.handler()
def works(data):
    log.info("works")
    deadline = time.monotonic() + 20
    while not cancelled():
        assert time.monotonic() < deadline
    raise Cancelled
app.run()
"""
    )
    binding = stage.bind("works", ONE, [{"many": False}])
    for node in (1, 2):
        stage.dispatch(binding, [(0, stage.put(b""))], node=node)
    stage.until(lambda: stage.logs)
    for node in (2, 1):
        stage.dispatch(binding, kind=lib.SYM_RECORD_CANCEL, node=node)
    first, second = stage.answer(2)
    assert (first.node, first.outcome) == (1, lib.SYM_OUTCOME_CANCELLED)
    assert (second.node, second.outcome) == (2, lib.SYM_OUTCOME_CANCELLED)
    assert len(stage.logs) == 1  # the second was cancelled before it began
    assert second.outputs[0][0] == value.ERROR


def test_a_deadline_cancels(play):
    stage = play(
        HEAD
        + """
@app.handler()
def works():
    assert context.deadline_s > 0
    while True: context.check()
app.run()
"""
    )
    answer = stage.call("works", {}, deadline_ns=time.monotonic_ns() + 300_000_000)
    assert answer.outcome == lib.SYM_OUTCOME_CANCELLED


def test_cancelling_async_handlers(play):
    stage = play(
        HEAD
        + """
import asyncio
@app.handler()
async def waits():
    log.info("waits")
    await asyncio.sleep(100)
app.run()
"""
    )
    binding = stage.bind("waits", {})
    for node in range(3):
        stage.dispatch(binding, node=node)
    stage.until(lambda: len(stage.logs) == 3)
    stage.dispatch(binding, kind=lib.SYM_RECORD_CANCEL, node=1)
    assert stage.answer().node == 1
    stage.dispatch(binding, kind=lib.SYM_RECORD_CANCEL, node=0xFFFFFFFF)
    assert {answer.node for answer in stage.answer(2)} == {0, 2}


def test_context_log_and_config(play):
    stage = play(
        HEAD
        + """
@app.handler()
def tell():
    log.warning("at %d", 5)
    return [context.step, context.run, context.node, context.attempt, context.config, context.extension]
app.run()
"""
    )
    answer = stage.call("tell", {}, run=3, node=4, attempt=2)
    assert answer.value == ["step", 3, 4, 2, {"depth": 3}, "tested"]
    assert stage.logs == [(3, 4, 30, "at 5")]


def test_generators_give_lists(play):
    stage = play(
        HEAD
        + """
@app.handler()
def words(text: str):
    yield from text.split()
app.run()
"""
    )
    assert stage.call("words", {"text": {"slot": 0}}, [(0, stage.put("a b c"))]).value == ["a", "b", "c"]


def test_stop_ends_after_what_came_before(play):
    stage = play(ECHO)
    binding = stage.bind("echo", ONE, [{"many": False}])
    for node in range(20):
        stage.dispatch(binding, [(0, stage.put(b"z"))], node=node, publish=False)
    stage.stop()
    assert len(stage.answer(20)) == 20
    assert stage.wait() == (0, "")


def test_sigterm_ends_an_idle_player(play):
    stage = play(ECHO)
    stage.process.send_signal(signal.SIGTERM)
    assert stage.wait() == (0, "")


def test_sigterm_lets_a_handler_finish(play):
    stage = play(
        HEAD
        + """
import os, signal
@app.handler()
def asked():
    os.kill(os.getpid(), signal.SIGTERM)
    return "done"
app.run()
"""
    )
    assert stage.call("asked", {}).value == "done"
    assert stage.wait() == (0, "")


def test_it_ends_when_its_conductor_closes(play):
    stage = play(ECHO)
    stage.control.close()
    assert stage.wait() == (0, "")


def test_a_module_that_fails_says_why(play):
    stage = play("import no_such_module", ready=False)
    code, words = stage.wait()
    assert code == 1 and "no_such_module" in words


def test_a_declared_handler_that_is_missing_is_named(play):
    stage = play(ECHO, "[extension]\nid = 'tested'\nentry = 'tested.py'\n[handlers.other]\n", ready=False)
    code, words = stage.wait()
    assert code == 1 and "other" in words


def test_a_player_is_light(play):
    stage = play(
        HEAD
        + """
import sys
@app.handler()
def modules(): return sorted(sys.modules)
@app.handler()
def private():
    with open("/proc/self/smaps_rollup") as file:
        rows = dict(line.split(":", 1) for line in file if ":" in line and "kB" in line)
    return sum(int(rows[name].split()[0]) for name in ("Private_Clean", "Private_Dirty"))
app.run()
"""
    )
    names = set(stage.call("modules", {}).value)
    heavy = {
        "numpy",
        "numba",
        "llvmlite",
        "asyncio",
        "logging",
        "blake3",
        "symphony.pit",
        "symphony.conductor",
        "symphony.shmem",
        "ctypes",
    }
    assert not names & heavy
    assert stage.call("private", {}).value <= 25 * 1024
