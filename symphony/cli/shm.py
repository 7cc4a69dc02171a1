"""`shm ls, show, verify, dump`: the inspector. It maps read-only, asks the engine nothing, and needs no living one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from symphony.cli import leave, show
from symphony.cli.show import Settings, settled

ROWS = 50
"""Rows of a region that are shown unless more are asked for."""
COLUMN_WIDTH = 40

file_option = click.option("--file", type=click.Path(path_type=Path), help="A dump to read instead of a segment.")


class Span(click.ParamType):
    """Rows `A:B` (B left out), `A:`, `:B`, or one row `A`."""

    name = "A:B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int | None]:
        if isinstance(value, tuple):
            return value
        begin, colon, end = str(value).partition(":")
        if not all(part == "" or part.isdecimal() for part in (begin, end)) or not (begin or colon):
            self.fail(f"{value!r} is no span of rows: 5, 5:9, 5: or :9", param, ctx)
        first = int(begin or 0)
        return first, (int(end) if end else None) if colon else first + 1


@click.command()
@settled
def ls(settings: Settings) -> None:
    """The segments of every engine of this user, live or dead; with -n of that one.

    A living engine's nameless segments stand there too, by their place under /proc. "memory" is what lies behind a
    segment's size, "beat" the age of the Conductor's heartbeat: it beats when there is work.
    """
    columns = [
        ("segment", "name"),
        ("engine", "engine"),
        ("kind", "kind"),
        ("size", lambda s: show.size(s["size_bytes"])),
        ("memory", lambda s: show.size(s["allocated_bytes"])),
        ("owner", "owner_pid"),
        ("alive", lambda s: "?" if s["alive"] is None else "yes" if s["alive"] else "no"),
        ("state", "state"),
        ("gen", "generation"),
        ("age", lambda s: _span(s["age_s"])),
        ("beat", lambda s: _span(s["heartbeat_age_s"])),
    ]
    show.listing(settings, "shm ls", _segments(settings), columns)


@click.command("show")
@click.argument("segment", required=False)
@click.argument("region", required=False)
@file_option
@click.option("--rows", type=Span(), help="Only these rows, used or not: 5, 5:9, 5: or :9.")
@click.option(
    "--where", multiple=True, metavar="FIELD=VALUE", help="Only rows that read so: kind=text, word.state=done."
)
@click.option(
    "--limit", type=click.IntRange(min=0), default=ROWS, help=f"At most so many rows [default: {ROWS}; 0: all]."
)
@click.option("--idle", is_flag=True, help="Also rows that were never written or are not in use.")
@click.option("--raw", is_flag=True, help="Words as numbers, not taken apart into their fields.")
@click.option("--fields", is_flag=True, help="Of each field who writes and reads it, in which memory order.")
@settled
def show_(settings: Settings, segment: str | None, region: str | None, file: Path | None, **how: Any) -> None:
    """The regions of SEGMENT, or the rows of one REGION.

    SEGMENT is a name of `shm ls`, or a part of one that only it has, such as its kind; with --file the first argument
    is the region.
    """
    if file is not None:
        segment, region = None, segment if region is None else region
    with _view(settings, segment, file) as view:
        if region is None:
            _show_segment(settings, view)
        else:
            _show_region(settings, view, region, **how)


@click.command()
@click.argument("segments", nargs=-1)
@file_option
@settled
def verify(settings: Settings, segments: tuple[str, ...], file: Path | None) -> int:
    """Check that SEGMENTS (all of the engine's, when none is named) hold together. Exit code 1 when one does not."""
    names: list[str | None] = [None] if file else [*segments] or [item["name"] for item in _segments(settings)]
    items = [found for name in names if (found := _verified(settings, name, file, bool(segments))) is not None]
    whole = all(item["ok"] for item in items)
    if settings.output == "json":
        show.document("shm verify", ok=whole, items=items)
    elif settings.output == "jsonl":
        show.listing(settings, "shm verify", items, [])
    else:
        for item in items:
            _tell_verified(item)
    return 0 if whole else 1


@click.command()
@click.argument("segment")
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path))
@settled
def dump(settings: Settings, segment: str, target: Path) -> None:
    """Copy SEGMENT as it is now into the new file TARGET, holes left out; `shm show --file TARGET` reads it again."""
    from symphony.inspect.dump import dump as copy

    with _view(settings, segment, None) as view:
        item = copy(view.memory, target)
    told = f"{target}: {show.size(item['written_bytes'])} of {item['segment']}"
    show.single(settings, "shm dump", item, lambda: print(told))


# -- which segment ----------------------------------------------------------------------------------------


def _segments(settings: Settings) -> list[dict[str, Any]]:
    from symphony.inspect.ls import segments

    return segments(settings.named)


@contextmanager
def _view(settings: Settings, segment: str | None, file: Path | None) -> Iterator[Any]:
    from symphony.inspect.decode import View
    from symphony.inspect.memory import open_file, open_segment
    from symphony.model.errors import UsageError

    if file is not None:
        memory = open_file(file)
    elif segment is not None:
        name = _named(settings, segment)
        memory = open_file(name) if name.startswith("/proc/") else open_segment(name)
    else:
        raise UsageError("name a segment (see: symphonyctl shm ls), or a dump: --file FILE")
    with memory:
        yield View(memory)


def _named(settings: Settings, given: str) -> str:
    """The one segment that is meant by a name or a part of one."""
    from symphony.model.errors import NoSuchSegment, UsageError

    names = [item["name"] for item in _segments(settings) if item["state"] != "missing"]
    exact = [name for name in names if name.lstrip("/") == given.lstrip("/")]
    found = exact or [name for name in names if f".{given}." in name] or [name for name in names if given in name]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{given!r} may be {len(found)} segments: {', '.join(found[:4])}{', …' if found[4:] else ''}")
    raise NoSuchSegment(f"no segment is named {given!r}; see: symphonyctl shm ls")


# -- showing ----------------------------------------------------------------------------------------------


def _show_segment(settings: Settings, view: Any) -> None:
    from symphony.inspect.show import summary

    item = summary(view)
    show.single(settings, "shm show", item, lambda: _tell_segment(item))


def _tell_segment(item: dict[str, Any]) -> None:
    stamp = item["stamp"]
    fingerprint = None if stamp["fingerprint"] is None else f"{stamp['fingerprint']:016x}"
    known = {True: "alive", False: "gone", None: "of another pid namespace"}
    owner = f"{item['owner_pid']} ({known[item['alive']]})"
    show.facts(
        [
            ("segment", item["segment"]),
            ("engine", item.get("engine")),
            ("kind", item["kind"]),
            ("state", item["state"]),
            ("owner", owner),
            ("generation", item["generation"]),
            ("size", f"{show.size(item['size_bytes'])}, {show.size(item['allocated_bytes'])} of memory behind it"),
            ("age", _span(item["age_s"])),
            ("heartbeat", _span(item["heartbeat_age_s"]) or None),
            ("layout", fingerprint),
        ]
    )
    print()
    columns = ("region", "type", "offset_bytes", "rows", "used", "stride_bytes", "written_bytes")
    headings = [column.replace("_", " ") for column in columns]
    show.table(headings, [[str(region[column]) for column in columns] for region in item["regions"]])
    _say_problems(item["problems"])


def _show_region(
    settings: Settings,
    view: Any,
    region: str,
    rows: tuple[int, int | None] | None,
    where: tuple[str, ...],
    limit: int,
    idle: bool,
    raw: bool,
    fields: bool,
) -> None:
    from symphony.inspect import show as inspected

    begin, end = rows or (0, None)
    item = inspected.rows(
        view, region, begin=begin, end=end, where=_wanted(where), limit=limit or None, raw=raw, idle=idle
    )
    if settings.output == "table" and fields:
        _tell_fields(item["fields"])
    elif settings.output == "table" and item["type"] == "text":
        print(inspected.text(view, region))
    elif settings.output == "table":
        _tell_rows(item["rows"])
    elif settings.output == "jsonl":
        for each in item["fields"] if fields else item["rows"]:
            show.line(each)
    else:
        show.document("shm show", **item, problems=view.problems)
    _say_problems(view.problems)
    if item["more"] and settings.output != "json":
        leave.say(f"there are more rows than {limit}; see them with --limit 0")


def _wanted(where: tuple[str, ...]) -> dict[str, str]:
    from symphony.model.errors import UsageError

    pairs = [text.partition("=") for text in where]
    for field, equals, _ in pairs:
        if not field or not equals:
            raise UsageError(f"--where wants FIELD=VALUE, not {field!r}")
    return {field: content for field, _, content in pairs}


def _tell_fields(fields: list[dict[str, Any]]) -> None:
    def order(who: str, how: str) -> str:
        return "-" if who == "-" else f"{who} ({how})"

    rows = [
        [
            each["field"],
            each["type"] + (f"[{each['count']}]" if each["count"] > 1 else ""),
            str(each["offset_bytes"]),
            order(each["writer"], each["writes"]),
            order(each["reader"], each["reads"]),
            each["phrase"],
        ]
        for each in fields
    ]
    show.table(["field", "type", "offset", "written by", "read by", ""], rows)


def _tell_rows(rows: list[dict[str, Any]]) -> None:
    """One row as facts; many as a table without the columns that are empty in every row."""
    cells = [{key: _cell(content) for key, content in _flat(row)} for row in rows]
    if len(cells) == 1:
        show.facts([(key, content or None) for key, content in cells[0].items()])
        return
    keys = list(dict.fromkeys(key for row in cells for key in row))
    keys = [key for key in keys if key == "row" or any(row.get(key) not in (None, "", "0") for row in cells)]
    show.table(keys, [[row.get(key, "")[:COLUMN_WIDTH] for key in keys] for row in cells])


def _flat(row: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Parts of packed words and of structs within as columns of their own, named as `--where` names them."""
    for key, content in row.items():
        if isinstance(content, dict):
            yield from _flat(content, f"{before}{key}.")
        else:
            yield before + key, content


def _cell(content: Any) -> str:
    if content is None:
        return ""
    return ",".join(map(str, content)) if isinstance(content, list) else str(content)


def _say_problems(problems: list[str]) -> None:
    for problem in problems:
        leave.say(problem)


def _span(seconds: float | None) -> str:
    return "" if seconds is None else show.duration(seconds)


# -- checking ---------------------------------------------------------------------------------------------


def _verified(settings: Settings, name: str | None, file: Path | None, asked: bool) -> dict[str, Any] | None:
    from symphony.inspect.verify import verify as check
    from symphony.model.errors import NoSuchSegment

    try:
        with _view(settings, name, file) as view:
            return check(view)
    except NoSuchSegment:
        if asked:
            raise
        return None  # it went between two looks


def _tell_verified(item: dict[str, Any]) -> None:
    of_build = "" if item["build"] == "this" else f", made by {item['build'] or 'no known'} build"
    print(f"{item['segment']}: {'whole' if item['ok'] else 'damaged'}{of_build}")
    for check in item["checks"]:
        for problem in check["problems"]:
            print(f"    {show.printable(problem)}")
