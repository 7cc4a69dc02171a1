"""Opens a melody in any form that people write it in, and says where it is wrong.

A path's suffix chooses the form: .toml, .yaml or .yml (if PyYAML is installed), .json (a WfFormat instance), .py (the
file is run, and makes a `Melody`).
"""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from symphony.melody.compile import Catalogue, compile_document, first_of
from symphony.melody.places import Place, Places, scan
from symphony.model.errors import MelodyError
from symphony.model.score import Score

TEXT_BYTES = 16 << 20
YAML_PLACES = 1_000_000
YAML_DEPTH = 100
SUFFIXES = (".toml", ".yaml", ".yml", ".json", ".py")

_AT = re.compile(r"\s*\((?:at line (\d+), column (\d+)|at end of document)\)$")


def load(
    path: str | Path, *, catalogue: Catalogue | None = None, time_scale: float = 1.0, size_scale: float = 0.0
) -> Score:
    """The score of a melody in a file. The scales apply to WfFormat instances alone.

    Raises MelodyError with file, line and column; its `errors` holds every mistake found. A .py file is run.
    """
    suffix = Path(path).suffix.lower()
    if suffix == ".json":
        from symphony.melody import wfformat

        return wfformat.load(path, time_scale=time_scale, size_scale=size_scale)
    if suffix == ".py":
        return _run_python(path, catalogue)
    if suffix not in SUFFIXES:
        raise MelodyError(f"a melody ends in {', '.join(SUFFIXES)}, not {suffix!r}", file=str(path))
    text = read(path)
    if suffix == ".toml":
        return parse_toml(text, file=str(path), catalogue=catalogue)
    return parse_yaml(text, file=str(path), catalogue=catalogue)


def read(path: str | Path) -> str:
    """A melody's text; raises MelodyError for a file that cannot be read, is too large or not UTF-8."""
    try:
        with open(path, "rb") as file:
            content = file.read(TEXT_BYTES + 1)
    except OSError as error:
        raise MelodyError(f"cannot read the melody: {error.strerror or error}", file=str(path)) from None
    if len(content) > TEXT_BYTES:
        raise MelodyError(f"a melody of more than {TEXT_BYTES >> 20} MiB is not read", file=str(path))
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - content.rfind(b"\n", 0, error.start)
        raise MelodyError("the melody is not UTF-8", file=str(path), line=line, column=column) from None


def check(path: str | Path, *, catalogue: Catalogue | None = None) -> list[MelodyError]:
    """Every mistake of a melody's file, in the order of the text; empty: it can be played."""
    try:
        load(path, catalogue=catalogue)
    except MelodyError as error:
        return error.errors
    return []


def parse_toml(text: str, *, file: str = "<melody>", catalogue: Catalogue | None = None) -> Score:
    """The score of a melody in TOML. Raises MelodyError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _toml_error(str(error), text, file) from None
    except RecursionError:
        raise MelodyError("the melody is nested too deep", file=file) from None
    return compile_document(document, file=file, places=scan(text), catalogue=catalogue)


def _toml_error(message: str, text: str, file: str) -> MelodyError:
    twice = scan(text).twice
    repeated = [path for path, _, _ in twice]
    twice = [each for each in twice if not any(each[0][:length] in repeated for length in range(1, len(each[0])))]
    if twice:
        return first_of([_duplicate(path, first, again, file) for path, first, again in twice])
    found = _AT.search(message)
    problem = f"not TOML: {message[: found.start()] if found else message}"
    if found is None or found.group(1) is None:
        lines = text.split("\n")
        return MelodyError(problem, file=file, line=len(lines), column=len(lines[-1]) + 1)
    return MelodyError(problem, file=file, line=int(found.group(1)), column=int(found.group(2)))


def _duplicate(path: tuple[str | int, ...], first: Place, again: Place, file: str) -> MelodyError:
    what = f"step {path[1]!r}" if len(path) == 2 and path[0] == "steps" else f"key {str(path[-1])!r}"
    problem = f"{what} stands twice; first at line {first.line}"
    return MelodyError(problem, file=file, line=again.line, column=again.column)


def parse_yaml(text: str, *, file: str = "<melody>", catalogue: Catalogue | None = None) -> Score:
    """The score of a melody in YAML (the same tables as in TOML). Raises MelodyError, also where PyYAML is missing."""
    try:
        import yaml
    except ImportError:
        problem = "a melody in YAML needs PyYAML (pip install pyyaml); TOML needs nothing"
        raise MelodyError(problem, file=file) from None
    try:
        places = Places()
        _yaml_places(yaml.compose(text, Loader=yaml.SafeLoader), (), places)
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (None, None)
        problem = f"not YAML: {getattr(error, 'problem', None) or error}"
        raise MelodyError(problem, file=file, line=line, column=column) from None
    except RecursionError:
        raise MelodyError("the melody is nested too deep, or contains itself", file=file) from None
    if places.twice:
        raise first_of([_duplicate(path, first, again, file) for path, first, again in places.twice])
    if not isinstance(document, Mapping):
        raise MelodyError("a melody is a table with melody and steps", file=file, line=1, column=1)
    return compile_document(document, file=file, places=places, catalogue=catalogue)


def _yaml_places(node: Any, path: tuple[str | int, ...], places: Places) -> None:
    if node is None:
        return
    if len(places.values) > YAML_PLACES or len(path) > YAML_DEPTH:
        raise MelodyError("the melody is too large once its aliases are followed, or contains itself")
    places.values[path] = Place(node.start_mark.line + 1, node.start_mark.column + 1)
    if node.id == "sequence":
        for number, entry in enumerate(node.value):
            _yaml_places(entry, (*path, number), places)
    elif node.id == "mapping":
        for key, value in node.value:
            below = (*path, key.value if isinstance(key.value, str) else str(key.value))
            place = Place(key.start_mark.line + 1, key.start_mark.column + 1)
            if below in places.keys:
                places.twice.append((below, places.keys[below], place))
            places.keys.setdefault(below, place)
            _yaml_places(value, below, places)


def _run_python(path: str | Path, catalogue: Catalogue | None) -> Score:
    import runpy

    from symphony.melody.builder import Melody

    read(path)
    try:
        names = runpy.run_path(str(path), run_name="melody")
    except SyntaxError as error:
        raise MelodyError(f"not Python: {error.msg}", file=str(path), line=error.lineno, column=error.offset) from None
    except MelodyError:
        raise
    except Exception as error:
        raise _raised(error, path) from error
    named = names.get("melody")
    found = [named] if isinstance(named, Melody) else [value for value in names.values() if isinstance(value, Melody)]
    if len(found) != 1:
        problem = f"the file makes {len(found)} melodies; name the one to play `melody`"
        raise MelodyError(problem, file=str(path))
    return found[0].score(catalogue, file=str(path))


def _raised(error: Exception, path: str | Path) -> MelodyError:
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return MelodyError(f"the file raised {type(error).__name__}: {error}", file=str(path), line=line)
