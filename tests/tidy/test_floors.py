"""The floors of the house, held by the imports themselves. The table is the architecture: change it with the code."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "symphony"

FLOORS = {
    # floor: its rooms. A module imports from floors below its own and from its own room, never from another room of
    # its floor. A room is a folder, or a file standing for itself.
    1: ["model"],
    2: ["native"],
    3: ["shmem", "melody"],
    3.5: ["ring", "pit"],  # pit: what its rooms stand on together, the files directly under it
    4: ["pit.pool", "pit.dag", "pit.artifact", "pit.arbiter", "pit.stale", "inspect", "bus"],
    5: ["conductor", "keeper", "extension"],
    6: ["faces", "aide"],
    7: ["cli", "__init__"],
    8: ["__main__"],
}

FACES = ["engine", "daemon", "client", "viewer", "rooms", "catalogue"]
"""The files directly under symphony/ that users hold in their hands: one room, `faces`."""

AIDE_SEES = ["extension"]
"""The extensions that ship import what any author imports, and nothing else of the engine."""

NUMBA_ALLOWED = ["native.atomics", "native.kernels", "pit", "conductor"]
"""Only the Conductor's process and members carry a compiler."""


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def name_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def room_of(name):
    """(floor, room) of a module's dotted name within the package; (None, None) for one the table does not know."""
    rooms = {room: floor for floor, names in FLOORS.items() for room in names}
    parts = name.split(".")
    if parts[0] in FACES:
        return rooms["faces"], "faces"
    for length in (2, 1):
        room = ".".join(parts[:length])
        if room in rooms:
            return rooms[room], room
    return None, None


def imports_of(path):
    """(line, dotted name, typing only) of every import in a file, also those inside functions."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name, node in typing_only
        elif isinstance(node, ast.ImportFrom):
            base = absolute(path, node)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}", node in typing_only


def absolute(path, node):
    if node.level == 0:
        return node.module
    package = ["symphony", *path.relative_to(PACKAGE).parent.parts]
    base = package[: len(package) - node.level + 1]
    return ".".join(base + ([node.module] if node.module else []))


def imports_within(path):
    """(line, dotted name within the package) of the imports that reach other modules of Symphony at run time."""
    for line, name, typing_only in imports_of(path):
        if name.startswith("symphony.") and not typing_only:
            yield line, name.removeprefix("symphony.")


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_a_module_imports_from_floors_below_and_its_own_room(path):
    name = name_of(path)
    floor, room = room_of(name)
    assert floor is not None, f"{name} stands in no room of the table"
    wrong = []
    for line, target in imports_within(path):
        their_floor, their_room = room_of(target)
        if their_floor is None:
            continue  # a plain attribute of the package, such as its version
        if their_room != room and their_floor >= floor:
            wrong.append(f"line {line}: symphony.{target} (floor {their_floor}) from {room} (floor {floor})")
        if room == "aide" and their_room not in ["aide", *AIDE_SEES]:
            wrong.append(f"line {line}: symphony.{target}: an extension imports symphony.extension alone")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", modules(), ids=name_of)
def test_numba_is_imported_only_where_the_conductor_runs(path):
    name = name_of(path)
    if any(name == allowed or name.startswith(f"{allowed}.") for allowed in NUMBA_ALLOWED):
        return
    found = [line for line, target, _ in imports_of(path) if target.split(".")[0] in ("numba", "llvmlite")]
    assert not found, f"{name} imports numba in line {found}"


def test_every_room_of_the_table_exists():
    rooms = [room for names in FLOORS.values() for room in names if room != "faces"] + FACES
    assert not [
        room
        for room in rooms
        if not (PACKAGE / room.replace(".", "/")).is_dir() and not (PACKAGE / f"{room}.py").is_file()
    ]
