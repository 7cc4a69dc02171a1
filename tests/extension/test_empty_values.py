"""An empty value takes no memory: its ref names no segment. It still arrives as what it is, alone or in a list."""

import pytest

from symphony.model import value

ECHO = """
from symphony.extension import *
app = Extension()
@app.handler("echo")
def echo(data): return data
@app.handler("whole")
def whole(data: list): return [repr(item) for item in data]
app.run()
"""
ONE = {"data": {"slot": 0}}
NOWHERE = {"": (0, value.TEXT, 0, 0), b"": (0, value.BYTES, 0, 0), None: (0, value.NONE, 0, 0)}


@pytest.mark.parametrize("item", NOWHERE, ids=repr)
def test_an_empty_value_keeps_its_kind(play, item):
    assert play(ECHO).call("echo", ONE, [(0, NOWHERE[item])]).value == item


def test_empty_items_of_a_join_keep_their_kinds(play):
    refs = [(0, ref) for ref in NOWHERE.values()]
    answer = play(ECHO).call("whole", ONE, refs, slots=[{"many": True, "each": False}])
    assert answer.value == [repr(item) for item in NOWHERE]
