"""A melody in TOML, YAML and Python gives one score; every mistake is told with its place and the nearest word."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symphony.melody import Melody, parse
from symphony.melody.find import locate, score_of, shipped
from symphony.melody.graph import graph_data, graph_text
from symphony.model.errors import MelodyError, SymphonyError, UsageError
from symphony.model.score import InputType, Slot, Source, validate

CATALOGUE = {
    "explorer": {
        "handlers": {
            "walk": {"inputs": {"path": "path", "hidden": {"type": "bool", "default": False}},
                     "outputs": {"files": "list[path]", "summary": "data"}},
            "read": {"inputs": {"file": "path"}, "output": "text"},
        }
    },
    "operators": {
        "handlers": {
            "chunk": {"inputs": {"file": "path", "size": {"type": "int", "default": 800}}, "output": "list[text]"},
            "index": {"inputs": {"vectors": "list", "passages": "list"}, "output": "data"},
            "search": {"inputs": {"index": "data", "question": "text", "top": "int"},
                       "outputs": {"passages": "data", "summary": "data"}},
            "label": {"inputs": {"text": "text"}, "output": "text"},
        }
    },
    "instruments": {"handlers": {"embed": {"inputs": {"texts": "list[text]"}, "output": "array"}}},
}  # fmt: skip

ASK = """\
[melody]
name = "ask"
about = "The example of the interface document"
inputs = { path = "path", question = "text", top = { type = "int", default = 5 } }
outputs = { passages = "search.passages" }

[steps.walk]
use = "explorer.walk"
with = { path = "{path}" }

[steps.chunk]
use = "operators.chunk"
each = "walk.files"            # fan-out: one node an item, joined in order
with = { file = "{item}" }
retries = 2
backoff = "500ms"

[steps.embed]
use = "instruments.embed"
each = "chunk"
batch = 64
with = { texts = "{item}" }
model = "embedder"
timeout = "2m"
estimate = 1.5
need = { cpu = 1 }

[steps.index]
use = "operators.index"
with = { vectors = "{embed}", passages = "{chunk}" }
once = true
after = ["walk"]

[steps.search]
use = "operators.search"
with = { index = "{index}", question = "On {path}: {{{question}}}", top = "{top}" }
"""


def toml(text, **how):
    return parse.parse_toml(textwrap.dedent(text), file="m.toml", **how)


def mistakes(text, catalogue=None):
    with pytest.raises(MelodyError) as caught:
        toml(text, catalogue=catalogue)
    return [str(error) for error in caught.value.errors]


@pytest.mark.parametrize("catalogue", [None, CATALOGUE], ids=["unchecked", "checked"])
def test_the_example(catalogue):
    score = toml(ASK, catalogue=catalogue)
    validate(score)
    assert score.name == "ask" and score.input_order == ["path", "question", "top"]
    assert score.inputs["top"] == InputType("int", 5, required=False) and score.inputs["path"].required
    walk, chunk, embed, index, search = score.steps
    assert walk.slots == [Slot(Source("", 0))] and walk.arguments == {"path": {"slot": 0}}
    assert chunk.each == Source("walk", 0) and chunk.slots == [Slot(each=True)] and chunk.retries == 2
    assert chunk.backoff_s == 0.5
    assert embed.each == Source("chunk", 0) and embed.slots == [Slot(each=True, many=True)] and embed.batch == 64
    assert (embed.model, embed.timeout_s, embed.estimate_s, embed.need) == ("embedder", 120.0, 1.5, {"cpu": 1})
    assert index.slots == [Slot(Source("embed"), many=True), Slot(Source("chunk"), many=True)]
    assert index.once and index.after == ["walk"]
    assert search.slots[1:] == [Slot(Source("", 0)), Slot(Source("", 1)), Slot(Source("", 2))]
    assert search.arguments["question"] == {"format": "On {0}: {{{1}}}", "slots": [1, 2]}
    assert score.outputs == {"passages": Source("search", 0)}
    assert walk.outputs == (["files", "summary"] if catalogue else ["files"])
    assert chunk.outputs == [""]


def test_python_gives_the_same_score():
    melody = (
        Melody("ask").input("path", "path").input("question").input("top", "int", default=5)
        .step("walk", "explorer.walk", path="{path}")
        .step("chunk", "operators.chunk", each="walk.files", file="{item}", retries=2, backoff="500ms")
        .step("embed", "instruments.embed", each="chunk", batch=64, with_={"texts": "{item}"}, model="embedder",
              timeout="2m", estimate=1.5, need={"cpu": 1})
        .step("index", "operators.index", vectors="{embed}", passages="{chunk}", once=True, after=["walk"])
        .step("search", "operators.search", index="{index}", question="On {path}: {{{question}}}", top="{top}")
        .output("passages", "search.passages")
    )  # fmt: skip
    for catalogue in (None, CATALOGUE):
        assert melody.score(catalogue) == toml(ASK, catalogue=catalogue)
    assert score_of(melody) == melody.score()
    with pytest.raises(MelodyError, match="step 'walk' stands twice"):
        melody.step("walk", "explorer.walk")
    with pytest.raises(MelodyError, match=r"steps.a.use: unknown extension 'explorr'; did you mean 'explorer'"):
        Melody("m").step("a", "explorr.walk").score(CATALOGUE)


def test_yaml_gives_the_same_score(tmp_path):
    pytest.importorskip("yaml", reason="PyYAML is optional")
    text = textwrap.dedent("""\
        melody:
          name: m
          inputs: {path: path}
        steps:
          walk:
            use: explorer.walk
            with: {path: "{path}"}
        """)
    (tmp_path / "m.yaml").write_text(text)
    in_toml = '[melody]\nname="m"\ninputs={path="path"}\n[steps.walk]\nuse="explorer.walk"\nwith={path="{path}"}\n'
    assert parse.load(tmp_path / "m.yaml") == toml(in_toml)
    with pytest.raises(MelodyError, match=r"m.yaml:7:18: unknown step or input 'pth'; did you mean 'path'"):
        parse.parse_yaml(text.replace("{path}", "{pth}"), file="m.yaml")
    with pytest.raises(MelodyError, match=r"m.yaml:8:3: step 'walk' stands twice; first at line 5"):
        parse.parse_yaml(text + "  walk: {use: a.b}\n", file="m.yaml")
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 9))
    for text, message in ((bomb, "too large"), ("a: &a [*a]", "contains itself"), ("- 1", "a melody is a table")):
        with pytest.raises(MelodyError, match=message):
            parse.parse_yaml(text)
    with pytest.raises(MelodyError, match=r"m.yaml:1:\d+: not YAML"):
        parse.parse_yaml("a: [", file="m.yaml")


def test_yaml_without_its_package_is_a_clear_error(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(MelodyError, match="needs PyYAML"):
        parse.parse_yaml("melody: {}", file="m.yaml")


# Golden messages: what stands here is what people read.

HEAD = '[melody]\nname = "m"\ninputs = { path = "path", names = "list", top = "int" }\n'

GOLDEN = {
    "unknown step": (
        HEAD + '[steps.walk]\nuse = "a.b"\n[steps.chunk]\nuse = "a.b"\neach = "wlak.files"\n',
        ["m.toml:8:8: unknown step 'wlak'; did you mean 'walk'?"],
    ),
    "unknown step in with": (
        HEAD + '[steps.walk]\nuse = "a.b"\nwith = { x = 1,  y = "{pth}" }\n',
        ["m.toml:6:22: unknown step or input 'pth'; did you mean 'path'?"],
    ),
    "unknown step in a text": (
        HEAD + '[steps.walk]\nuse = "a.b"\nwith.y = "in {pth} there"\n',
        ["m.toml:6:10: unknown step or input 'pth'; did you mean 'path'?"],
    ),
    "unknown extension": (
        HEAD + '[steps.walk]\nuse = "explorr.walk"\n',
        ["m.toml:5:7: unknown extension 'explorr'; did you mean 'explorer'?"],
    ),
    "unknown handler": (
        HEAD + '[steps.walk]\nuse = "explorer.wlk"\n',
        ["m.toml:5:7: unknown handler of 'explorer': 'wlk'; did you mean 'walk'?"],
    ),
    "unknown key of a step": (
        HEAD + '[steps.walk]\nuse = "a.b"\nretrys = 2\n',
        ["m.toml:6:1: unknown key 'retrys'; did you mean 'retries'?"],
    ),
    "unknown table": (
        HEAD + '[step.walk]\nuse = "a.b"\n',
        ["m.toml: the table [steps] is missing", "m.toml:4:2: unknown key 'step'; did you mean 'steps'?"],
    ),
    "unknown argument": (
        HEAD + '[steps.walk]\nuse = "explorer.walk"\nwith = { pth = "{path}" }\n',
        ["m.toml:6:1: 'explorer.walk' needs the argument 'path' (path)",
         "m.toml:6:10: unknown argument of 'explorer.walk': 'pth'; did you mean 'path'?"],
    ),
    "unknown output": (
        HEAD + '[steps.walk]\nuse = "explorer.walk"\nwith = { path = "{path}" }\n'
        '[steps.read]\nuse = "explorer.read"\neach = "walk.file"\nwith = { file = "{item}" }\n',
        ["m.toml:9:8: unknown output of step 'walk': 'file'; did you mean 'files'?"],
    ),
    "several outputs": (
        HEAD + '[steps.walk]\nuse = "explorer.walk"\nwith = { path = "{path}" }\n'
        '[steps.read]\nuse = "explorer.read"\neach = "walk"\nwith = { file = "{item}" }\n',
        ["m.toml:9:8: 'walk' has several outputs; did you mean 'walk.files'?"],
    ),
    "output of one that has no names": (
        HEAD + '[steps.read]\nuse = "explorer.read"\nwith = { file = "{path}" }\n'
        '[steps.label]\nuse = "operators.label"\nwith = { text = "{read.text}" }\n',
        ["m.toml:9:17: step 'read' has one output without a name; did you mean 'read'?"],
    ),
    "wrong type of an input": (
        HEAD + '[steps.walk]\nuse = "explorer.walk"\nwith = { path = "{top}" }\n',
        ["m.toml:6:17: {top} is int; the handler takes 'path' as path"],
    ),
    "wrong type of a constant": (
        HEAD + '[steps.walk]\nuse = "explorer.walk"\nwith = { path = 3 }\n',
        ["m.toml:6:17: argument 'path' is int, the handler takes path"],
    ),
    "text for a number": (
        HEAD + '[steps.c]\nuse = "operators.chunk"\nwith = { file = "{path}", size = "8{top}" }\n',
        ["m.toml:6:34: argument 'size' is text, the handler takes int"],
    ),
    "a join where one is taken": (
        HEAD + '[steps.read]\nuse = "explorer.read"\neach = "{names}"\nwith = { file = "{item}" }\n'
        '[steps.label]\nuse = "operators.label"\nwith = { text = "{read}" }\n',
        ["m.toml:10:17: {read} is list: step 'read' is fanned out; the handler takes 'text' as text"],
    ),
    "a batch where one is taken": (
        HEAD + '[steps.read]\nuse = "explorer.read"\neach = "{names}"\nbatch = 3\nwith = { file = "{item}" }\n',
        ["m.toml:8:17: {item} is list, one batch of items; the handler takes 'file' as path"],
    ),
    "missing argument": (
        HEAD + '[steps.walk]\nuse = "explorer.walk"\n',
        ["m.toml:4:8: 'explorer.walk' needs the argument 'path' (path)"],
    ),
    "each of what is no list": (
        HEAD + '[steps.walk]\nuse = "a.b"\neach = "{path}"\n',
        ["m.toml:6:8: each needs a list, 'path' is path"],
    ),
    "each of an input without braces": (
        HEAD + '[steps.walk]\nuse = "a.b"\neach = "names"\n',
        ["m.toml:6:8: unknown step 'names'; did you mean '{names}'?"],
    ),
    "item without each": (
        HEAD + '[steps.walk]\nuse = "a.b"\nwith = { x = "{item}" }\n',
        ["m.toml:6:14: {item} needs each on this step"],
    ),
    "batch without each": (
        HEAD + '[steps.walk]\nuse = "a.b"\nbatch = 4\n',
        ["m.toml:6:1: batch needs each"],
    ),
    "duplicate step": (
        HEAD + '[steps.walk]\nuse = "a.b"\n[steps.walk]\nuse = "a.c"\n',
        ["m.toml:6:8: step 'walk' stands twice; first at line 4"],
    ),
    "duplicate key": (
        HEAD + '[steps.walk]\nuse = "a.b"\nretries = 1\nuse = "a.c"\n',
        ["m.toml:7:1: key 'use' stands twice; first at line 5"],
    ),
    "duplicate in an inline table": (
        HEAD + '[steps.walk]\nuse = "a.b"\nwith = { x = 1, x = 2 }\n',
        ["m.toml:6:17: key 'x' stands twice; first at line 6"],
    ),
    "a step named like an input": (
        HEAD + '[steps.path]\nuse = "a.b"\n',
        ["m.toml:4:8: step 'path' has the name of an input"],
    ),
    "cycle": (
        HEAD + '[steps.a]\nuse = "a.b"\nwith = { x = "{c}" }\n[steps.b]\nuse = "a.b"\nwith = { x = "{a}" }\n'
        '[steps.c]\nuse = "a.b"\nafter = ["b"]\n',
        ["m.toml:9:14: the steps form a cycle: a -> b -> c -> a"],
    ),
    "a step that needs itself": (
        HEAD + '[steps.a]\nuse = "a.b"\nwith = { x = "{a}" }\n',
        ["m.toml:6:14: the steps form a cycle: a -> a"],
    ),
    "stray brace": (
        HEAD + '[steps.a]\nuse = "a.b"\nwith = { x = "{ok" }\n',
        ["m.toml:6:14: '{' is no placeholder; write {{ and }} for braces that stay"],
    ),
    "placeholder that is none": (
        HEAD + '[steps.a]\nuse = "a.b"\nwith = { x = "{a b}" }\n',
        ["m.toml:6:14: '{a b}' is no placeholder; write {{ and }} for braces that stay"],
    ),
    "placeholder too deep": (
        HEAD + '[steps.a]\nuse = "a.b"\nwith = { x = { y = ["{path}"] } }\n',
        ["m.toml:6:21: a placeholder inside a table or a nested list is not filled; pass it as an argument of its own"],
    ),
    "wrong values of plain keys": (
        HEAD + '[steps.a]\nuse = "a.b"\nretries = -1\nbackoff = "soon"\nonce = 1\nneed = { cpu = "x" }\nafter = "b"\n',
        ["m.toml:6:11: retries must be a whole number from 0 to 1000, not -1",
         "m.toml:7:11: backoff must be a duration (\"2s\", \"500ms\", \"5m\"), not 'soon'",
         "m.toml:8:8: once must be true or false, not 1",
         "m.toml:9:16: cpu must be a whole number of 0 or more, not 'x'",
         "m.toml:10:9: after must be a list of step names, not 'b'"],
    ),
    "once with retries": (
        HEAD + '[steps.a]\nuse = "a.b"\nonce = true\nretries = 1\n',
        ["m.toml:7:1: once = true never runs a step twice: it cannot have retries"],
    ),
    "unknown input type": (
        '[melody]\nname = "m"\ninputs = { a = "txt", b = { type = "int", default = "x" }, c = 3 }\n'
        '[steps.s]\nuse = "a.b"\n',
        ["m.toml:3:16: unknown type 'txt'; did you mean 'text'?",
         "m.toml:3:53: default 'x' is text, the input is int",
         'm.toml:3:64: c must be a type ("text") or a table ({ type = "int", default = 5 }), not 3'],
    ),
    "no name, no use": (
        '[melody]\ninputs = {}\n[steps.s]\nretries = 1\n',
        ["m.toml:1:2: the melody needs a name", "m.toml:3:8: step 's' needs use = \"extension.handler\""],
    ),
    "use without a handler": (
        HEAD + '[steps.s]\nuse = "walk"\n',
        ["m.toml:5:7: use must be a handler (\"explorer.walk\"), not 'walk'"],
    ),
    "unknown output of the run": (
        '[melody]\nname = "m"\noutputs = { x = "serch.passages" }\n[steps.search]\nuse = "a.b"\n',
        ["m.toml:3:17: unknown step 'serch'; did you mean 'search'?"],
    ),
    "reserved name": (
        '[melody]\nname = "m"\n[steps.item]\nuse = "a.b"\n["steps"."b c"]\nuse = "a.b"\n',
        ["m.toml:3:8: 'item' is the item of a fan-out; name this step otherwise",
         "m.toml:5:10: step name 'b c' must be letters, digits, _ and -, at most 64"],
    ),
    "not TOML": ('[melody]\nname = \n', ["m.toml:2:8: not TOML: Invalid value"]),
    "not TOML to its end": ('[melody]\nname = "m', ['m.toml:2:10: not TOML: Unterminated string']),
    "empty": ("", ["m.toml: the table [melody] is missing", "m.toml: the table [steps] is missing"]),
    "ambiguous without a catalogue": (
        '[melody]\nname = "m"\noutputs = { x = "s.a", y = "s.b", z = "s" }\n[steps.s]\nuse = "u.v"\n',
        ["m.toml:3:39: 's' has several outputs; did you mean 's.a'?"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), GOLDEN.values(), ids=GOLDEN)
def test_golden_messages(text, expected):
    plain = 'use = "a.b"' in text or 'use = "u.v"' in text
    assert mistakes(text, None if plain else CATALOGUE) == expected


def test_every_mistake_is_found_at_once_in_the_order_of_the_text(tmp_path):
    text = HEAD + '[steps.a]\nuse = "a.b"\nretrys = 1\nwith = { x = "{pth}" }\n[steps.b]\nuse = "c"\n'
    (tmp_path / "m.toml").write_text(text)
    found = parse.check(tmp_path / "m.toml")
    assert [error.line for error in found] == [6, 7, 9]
    assert all(error.file == str(tmp_path / "m.toml") for error in found)
    (tmp_path / "good.toml").write_text(ASK)
    assert parse.check(tmp_path / "good.toml") == []


def test_placeholders():
    score = toml(
        HEAD
        + """
        [steps.a]
        use = "x.y"
        each = "{names}"
        with = { whole = "{path}", text = "{item} in {path}, {item}", braces = "{{path}}", same = "{item}", n = 3 }
        [steps.b]
        use = "x.y"
        each = "a"
        with = { both = ["{a}", "{path}", "{item}"], list = ["x", "{{y}}"], table = { k = "{{v}}", when = 2025-01-02 } }
        """
    )
    first, second = score.steps
    assert first.each == Source("", 1)
    assert first.slots == [Slot(Source("", 0)), Slot(each=True)]
    assert first.arguments == {
        "whole": {"slot": 0}, "text": {"format": "{0} in {1}, {0}", "slots": [1, 0]}, "braces": {"value": "{path}"},
        "same": {"slot": 1}, "n": {"value": 3},
    }  # fmt: skip
    assert second.slots == [Slot(Source("a"), many=True), Slot(Source("", 0)), Slot(each=True)]
    assert second.arguments == {
        "both": {"slots": [0, 1, 2]}, "list": {"value": ["x", "{y}"]},
        "table": {"value": {"k": "{v}", "when": "2025-01-02"}},
    }  # fmt: skip


FANNED = (
    HEAD
    + """
[steps.walk]
use = "explorer.walk"
with = { path = "{path}" }
[steps.chunk]
use = "operators.chunk"
each = "walk.files"
with = { file = "{item}" }
[steps.label]
use = "operators.HANDLER"
each = "chunk"
with = { ARGUMENT = "{item}" }
"""
)


def test_items_over_a_fanned_out_step_are_flattened_once():
    score = toml(FANNED.replace("HANDLER", "label").replace("ARGUMENT", "text"), catalogue=CATALOGUE)
    assert score.steps[2].each == Source("chunk", 0)
    messages = mistakes(FANNED.replace("HANDLER", "index").replace("ARGUMENT", "vectors"), CATALOGUE)
    assert "m.toml:15:20: {item} is text; the handler takes 'vectors' as list" in messages


def test_steps_come_in_playing_order():
    score = toml(
        HEAD + '[steps.c]\nuse="x.y"\nwith={a="{b}"}\n[steps.a]\nuse="x.y"\n[steps.b]\nuse="x.y"\nafter=["a"]\n'
    )
    assert [step.name for step in score.steps] == ["a", "b", "c"]


# Files


def test_files_that_are_none(tmp_path):
    cases = {
        tmp_path / "gone.toml": "cannot read the melody: No such file",
        tmp_path / "m.txt": "a melody ends in .toml",
        tmp_path: "a melody ends in",
    }
    for path, message in cases.items():
        with pytest.raises(MelodyError, match=message):
            parse.load(path)
    (tmp_path / "folder.toml").mkdir()
    with pytest.raises(MelodyError, match="cannot read the melody: Is a directory"):
        parse.load(tmp_path / "folder.toml")
    (tmp_path / "latin.toml").write_bytes(b'[melody]\nname = "\xe9"\n')
    with pytest.raises(MelodyError, match=r"latin.toml:2:9: the melody is not UTF-8"):
        parse.load(tmp_path / "latin.toml")


def test_python_file(tmp_path):
    path = tmp_path / "m.py"
    path.write_text('from symphony.melody import Melody\nmelody = Melody("m").step("a", "x.y")\nother = Melody("o")\n')
    assert parse.load(path).name == "m"
    path.write_text("x = 1\n")
    with pytest.raises(MelodyError, match="makes 0 melodies"):
        parse.load(path)
    path.write_text("x = 1\nx = 1 / 0\n")
    with pytest.raises(MelodyError, match=r"m.py:2: the file raised ZeroDivisionError"):
        parse.load(path)
    path.write_text("x = (\n")
    with pytest.raises(MelodyError, match=r"m.py:1:\d+: not Python"):
        parse.load(path)


def test_shipped_melodies_are_found_and_right():
    assert "ask" in shipped()
    for name, path in shipped().items():
        assert locate(name) == path and parse.check(path) == []
    with pytest.raises(UsageError, match="did you mean 'ask'"):
        locate("aks")
    with pytest.raises(UsageError, match="does not exist"):
        locate("some/where")
    with pytest.raises(UsageError, match="not int"):
        score_of(3)


def test_graph():
    score = toml(ASK, catalogue=CATALOGUE)
    assert graph_text(score).split("\n") == [
        "ask(path: path, question: text, top: int = 5)",
        "  walk    explorer.walk",
        "  chunk   operators.chunk    each walk.files   <- walk",
        "  embed   instruments.embed  each chunk by 64  <- chunk",
        "  index   operators.index                      <- embed, chunk, walk",
        "  search  operators.search                     <- index",
        "  -> passages = search.passages",
    ]
    data = graph_data(score)
    assert data["steps"][2] == {
        "name": "embed", "use": "instruments.embed", "each": "chunk", "batch": 64, "needs": ["chunk"], "outputs": [""],
    }  # fmt: skip


# Whatever stands in the file, the answer is a score or a MelodyError

WORDS = st.sampled_from(
    ["[melody]", "[steps.a]", "[steps.b]", "name", "use", "with", "each", "=", '"a.b"', '"{a}"', '"{item}"', "{", "}",
     "[", "]", ",", "\n", "\n", " ", "1", "true", "batch", "after", '"""', "'", "#", ".", "inputs", "outputs",
     "1979-05-27"]
)  # fmt: skip


@given(st.lists(WORDS, max_size=40).map(" ".join) | st.text(max_size=60))
def test_any_text_is_a_melody_or_refused(text):
    try:
        parse.parse_toml(text, file="m.toml", catalogue=CATALOGUE)
    except MelodyError as error:
        assert error.errors


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(["a", "{a}", "a.b", "{item}", "x{a}", "2s"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abx"), inner, max_size=3),
    max_leaves=5,
)
STEP_KEYS = ["use", "with", "each", "batch", "after", "retries", "backoff", "once", "need", "model", "odd"]


@given(
    st.dictionaries(
        st.sampled_from(["melody", "steps", "odd"]),
        VALUES | st.dictionaries(
            st.sampled_from(["name", "inputs", "outputs", "a", "b", "item"]),
            VALUES | st.dictionaries(st.sampled_from(STEP_KEYS), VALUES, max_size=6),
        ),
    )
)  # fmt: skip
def test_any_tables_are_a_melody_or_refused(document):
    from symphony.melody.compile import compile_document

    for catalogue in (None, {"a": {"handlers": {"b": {"inputs": {"x": "int"}, "output": "list"}}}}):
        try:
            validate(compile_document(document, catalogue=catalogue))
        except SymphonyError as error:
            assert isinstance(error, MelodyError)
