"""Symphony runs melodies, workflows of AI and data steps, across isolated processes at memory speed.

The public names are found when they are first asked for, so that `import symphony` costs nothing: neither NumPy nor
numba is imported before something needs it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Engine": "symphony.engine",
    "Melody": "symphony.melody",
    "Priority": "symphony.model.priority",
    "Ring": "symphony.ring",
    "SymphonyError": "symphony.model.errors",
    "attach": "symphony.viewer",
    "connect": "symphony.client",
}

__all__ = ["Engine", "Melody", "Priority", "Ring", "SymphonyError", "attach", "connect"]

if TYPE_CHECKING:
    from symphony.client import connect
    from symphony.engine import Engine
    from symphony.melody import Melody
    from symphony.model.errors import SymphonyError
    from symphony.model.priority import Priority
    from symphony.ring import Ring
    from symphony.viewer import attach


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'symphony' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
