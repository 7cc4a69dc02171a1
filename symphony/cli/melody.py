"""`melody ls, check, graph`: what can be played, without an engine."""

from typing import Any

import click

from symphony.cli import leave, show
from symphony.cli.show import Settings, settled


def catalogue() -> dict[str, Any]:
    """What the extensions that can be found offer; a manifest with mistakes is told and left out."""
    from symphony.catalogue import catalogue
    from symphony.model.errors import ManifestError

    mistakes: list[ManifestError] = []
    offered = catalogue(mistakes)
    for mistake in mistakes:
        leave.say(str(mistake))
    return offered


@click.command()
@settled
def ls(settings: Settings) -> None:
    """The melodies that ship with Symphony."""
    from symphony.melody.find import score_of, shipped

    items = []
    for name, path in shipped().items():
        score = score_of(name, catalogue=catalogue())
        inputs = [f"{key}: {score.inputs[key].type}" for key in score.input_order]
        items.append({"name": name, "steps": len(score.steps), "inputs": inputs, "file": str(path)})
    columns = [("melody", "name"), ("steps", "steps"), ("inputs", lambda m: ", ".join(m["inputs"])), ("file", "file")]
    show.listing(settings, "melody ls", items, columns)


@click.command()
@click.argument("melody")
@settled
def check(settings: Settings, melody: str) -> int:
    """Check MELODY. Every mistake is named with file, line, column and the nearest valid word; exit code 2 then."""
    from symphony.melody.find import score_of
    from symphony.model.errors import MelodyError

    try:
        score = score_of(melody, catalogue=catalogue())
    except MelodyError as error:
        mistakes = [
            {"file": e.file, "line": e.line, "column": e.column, "problem": e.problem, "nearest": e.nearest}
            for e in error.errors
        ]
        if settings.output == "json":
            show.document("melody check", melody=melody, ok=False, mistakes=mistakes)
        elif settings.output == "jsonl":
            for mistake in mistakes:
                show.line(mistake)
        for text in leave.lines_of(error):
            leave.say(text)
        return error.exit_code
    if settings.output == "json":
        show.document("melody check", melody=melody, ok=True, mistakes=[])
    elif settings.output == "table":
        print(f"{score.name}: {len(score.steps)} steps, in order")
    return 0


@click.command()
@click.argument("melody")
@settled
def graph(settings: Settings, melody: str) -> None:
    """The steps of MELODY in playing order, with what each waits for."""
    from symphony.melody.find import score_of
    from symphony.melody.graph import graph_data, graph_text

    score = score_of(melody, catalogue=catalogue())
    show.single(settings, "melody graph", graph_data(score), lambda: print(graph_text(score)))
