"""What operations the code has, found in its sources: C functions, kernels, and the public Python that makes, removes
or writes shared things."""

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "symphony"

PYTHON = (
    "shmem/segment.py", "shmem/registry.py", "shmem/space.py", "shmem/names.py", "shmem/counters.py", "ring.py",
    "bus/channel.py", "pit/artifact/store.py", "pit/stale/sweep.py", "pit/dag/graph.py", "pit/dag/room.py",
    "pit/pool/room.py", "conductor/tables.py",
)  # fmt: skip
"""Modules whose public functions and methods write, make or remove what other processes see."""
BEHIND = (
    "symphony.conductor.clerk.Clerk._store", "symphony.conductor.clerk.Clerk._part",
    "symphony.conductor.conductor.Conductor.play", "symphony.conductor.conductor.Conductor.enter_graph",
    "symphony.conductor.conductor.Conductor.leave_graph", "symphony.conductor.conductor.Conductor._retire",
)  # fmt: skip
"""Methods behind the public ones that write tables: the loop's and the door's rare work."""

_PROTOTYPE = re.compile(r"^[a-z_0-9 ]+\**\s*\**(sym_\w+)\(", re.M)
_DECORATORS = {"kernel", "inlined", "entry"}


def everything() -> set[str]:
    """Names of all operations: of C functions their symbol, of Python `module.name` or `module.Class.method`."""
    return {*c_functions(), *kernels(), *python(), *behind()}


@cache
def behind() -> frozenset[str]:
    """Those of `BEHIND` that the code has."""
    found = set()
    for name in BEHIND:
        module, owner, method = name.rsplit(".", 2)
        tree = ast.parse((ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8"))
        found |= {
            name
            for node in tree.body
            if isinstance(node, ast.ClassDef) and node.name == owner
            for item in node.body
            if isinstance(item, ast.FunctionDef) and item.name == method
        }
    return frozenset(found)


@cache
def c_functions() -> frozenset[str]:
    """Exported functions of csrc, but for the atomics, of which the operations are made."""
    headers = [path for path in sorted((ROOT / "csrc").glob("*.h")) if path.name != "sym_atomic.h"]
    return frozenset(name for path in headers for name in _PROTOTYPE.findall(path.read_text()))


@cache
def kernels() -> dict[str, frozenset[str]]:
    """Every compiled function of the package, and the compiled functions that it calls."""
    trees = {_module(path): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    found = {
        f"{module}.{node.name}": node
        for module, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any(_name_of(d) in _DECORATORS for d in node.decorator_list)
    }
    known = {module: _names(module, tree, found) for module, tree in trees.items()}
    return {name: frozenset(_called(node, known[name.rpartition(".")[0]])) for name, node in found.items()}


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def _name_of(decorator: ast.expr) -> str:
    if isinstance(decorator, ast.Call):
        decorator = decorator.func
    return decorator.id if isinstance(decorator, ast.Name) else ""


def _names(module: str, tree: ast.Module, found: dict[str, ast.FunctionDef]) -> dict[str, str]:
    """Which compiled function each name of a module stands for."""
    names = {name.rpartition(".")[2]: name for name in found if name.rpartition(".")[0] == module}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                if whole in found:
                    names[alias.asname or alias.name] = whole
    return names


def _called(node: ast.FunctionDef, names: dict[str, str]) -> set[str]:
    calls = (call.func for call in ast.walk(node) if isinstance(call, ast.Call))
    return {names[function.id] for function in calls if isinstance(function, ast.Name) and function.id in names}


@cache
def python() -> frozenset[str]:
    """Public functions, and public methods of public classes (a constructor by the class's name), of `PYTHON`."""
    found = set()
    compiled = kernels()
    for path in (PACKAGE / name for name in PYTHON):
        module = _module(path)
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                if f"{module}.{node.name}" not in compiled:
                    found.add(f"{module}.{node.name}")
            elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found |= {f"{module}.{node.name}{name}" for name in _methods(node)}
    return frozenset(found)


def _methods(node: ast.ClassDef) -> set[str]:
    defined = [item.name for item in node.body if isinstance(item, ast.FunctionDef)]
    own = {"" for name in defined if name == "__init__"}
    return own | {f".{name}" for name in defined if not name.startswith("_")}
