"""Handlers run in a test as they would in a player."""

import pytest

from symphony.extension import ArtifactView, Cancelled, Extension, Items, ListView, cancelled, context, log
from symphony.extension.testing import Rehearsal
from symphony.model.errors import ExtensionError


def make():
    app = Extension()

    @app.handler("first")
    def first(text: ArtifactView, *, words: int = 1) -> str:
        log.info("%d words", words)
        return " ".join(text.text().split()[:words])

    @app.handler
    async def later(items: ListView):
        return [f"{item}!" for item in items]

    @app.handler()
    def stops():
        if cancelled():
            raise Cancelled
        return context.config

    return app


def test_calls_go_through_the_same_values():
    rehearsal = Rehearsal(make(), config={"depth": 2})
    assert rehearsal.call("first", text="one two three", words=2) == "one two"
    assert rehearsal.logged == [(20, "2 words")]
    assert rehearsal.call("later", items=["a", "b"]) == ["a!", "b!"]
    assert rehearsal.call("stops") == {"depth": 2}
    rehearsal.cancel()
    with pytest.raises(Cancelled):
        rehearsal.call("stops")
    with pytest.raises(ExtensionError, match="did you mean 'first'"):
        rehearsal.call("frist")


def test_a_folder_with_its_manifest(tmp_path):
    (tmp_path / "extension.toml").write_text(
        "[extension]\nid = 'two'\nentry = 'two.py'\n"
        "[handlers.split]\noutputs = { head = 'text', tail = 'list[text]' }\n"
    )
    (tmp_path / "two.py").write_text(
        "from symphony.extension import Extension\napp = Extension()\n@app.handler()\n"
        "def split(text: str):\n    head, *tail = text.split()\n    return {'head': head, 'tail': tail}\napp.run()\n"
    )
    with Rehearsal(tmp_path) as rehearsal:
        assert rehearsal.call("split", text="a b c") == {"head": "a", "tail": ["b", "c"]}


def test_two_handlers_of_one_name_are_refused():
    app = make()
    with pytest.raises(ExtensionError, match="two handlers"):
        app.handler("first")(lambda: None)


def test_a_shipped_extension_rehearses():
    import symphony.aide.operators as operators

    rehearsal = Rehearsal(operators.__path__[0])
    assert rehearsal.call("noop", data=b"x") == b"x"
    assert isinstance(Items([], None).tolist(), list)
