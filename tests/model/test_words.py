"""Errors cross a socket as text, priorities and limits say what the memory ABI says."""

import pickle
import re
from pathlib import Path

import pytest

from symphony.model import errors, limits
from symphony.model.priority import Priority, parse_priority
from symphony.model.words import did_you_mean, nearest
from symphony.model.work import work_bytes

HEADERS = Path(__file__).parents[2] / "shm"


def families(root):
    return [root, *(child for each in root.__subclasses__() for child in families(each))]


@pytest.mark.parametrize("kind", families(errors.SymphonyError), ids=lambda kind: kind.__name__)
def test_every_error_crosses_the_door(kind):
    error = kind("what is wrong")
    back = errors.from_wire(errors.to_wire(error))
    assert type(back) is kind and str(back) == "what is wrong" and back.exit_code == kind.exit_code
    assert str(pickle.loads(pickle.dumps(error))) == "what is wrong"


def test_facts_cross_as_plain_data():
    error = errors.RunFailed("it failed", step="walk", where=Path("/x"), inner={1: (2, None)})
    back = errors.from_wire(errors.to_wire(error))
    assert back.facts == {"step": "walk", "where": "/x", "inner": {"1": [2, None]}}


def test_a_melody_error_keeps_its_place():
    error = errors.MelodyError("unknown step 'wlak'", file="a.toml", line=3, column=8, nearest="walk")
    assert str(error) == "a.toml:3:8: unknown step 'wlak'; did you mean 'walk'?"
    back = errors.from_wire(errors.to_wire(error))
    assert (back.file, back.line, back.column, back.nearest, str(back)) == ("a.toml", 3, 8, "walk", str(error))


@pytest.mark.parametrize(
    "described", [{}, {"error": "NoSuchClass", "message": "m"}, {"error": 3, "facts": 4}, {"facts": {"self": 1}}]
)
def test_a_strange_description_is_still_an_error(described):
    assert isinstance(errors.from_wire(described), errors.SymphonyError)


def test_exit_codes_are_the_contract():
    codes = {
        "RunFailed": 1,
        "UsageError": 2,
        "MelodyError": 2,
        "EngineNotFound": 3,
        "WaitTimeout": 4,
        "RunCancelled": 5,
    }
    assert {name: getattr(errors, name).exit_code for name in codes} == codes
    assert errors.Interrupted.exit_code == 130


def test_reason_of_a_refusal():
    assert errors.PoolRefused("every seat is held").reason == "every seat is held"


def test_limits_are_those_of_the_memory_abi():
    header = (HEADERS / "types.h").read_text()
    listed = {name: int(number) for name, number in re.findall(r"SYM_LIMIT_(\w+) = (\d+)", header)}
    assert listed == {name: getattr(limits, name) for name in listed}
    assert len(listed) > 10


def test_value_kinds_are_those_of_the_memory_abi():
    from symphony.model.value import KIND_NAMES

    header = (HEADERS / "types.h").read_text()
    listed = {name.lower(): int(number) for name, number in re.findall(r"SYM_VALUE_(\w+) = (\d+)", header)}
    assert listed == {name: number for number, name in enumerate(KIND_NAMES)}


def test_priorities():
    assert [int(each) for each in Priority] == [1000, 100, 0, -100, -1000]
    assert parse_priority("High") == 100 and parse_priority("-7") == -7 and parse_priority(Priority.LOW) == -100
    with pytest.raises(errors.UsageError, match="did you mean 'background'"):
        parse_priority("backgrund")
    with pytest.raises(errors.UsageError, match="out of range"):
        parse_priority(1 << 40)


def test_nearest_word():
    assert nearest("wlak", ["walk", "read"]) == "walk"
    assert nearest("WALK", ["walk"]) == "walk"
    assert did_you_mean("zzz", ["walk", "read"]) == "; there are: read, walk"
    assert did_you_mean("zzz", []) == ""


def test_work_is_a_prefix_at_every_size():
    short = work_bytes("task", [b"one", memoryview(b"two")])
    assert len(short) == 64 and short == work_bytes("task", [b"onetwo"])
    assert work_bytes("task", [b"onetwo"], 1000)[:64] == short
    assert short != work_bytes("task", [b"twoone"])
