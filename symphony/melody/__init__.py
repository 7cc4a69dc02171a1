"""The melody: a workflow as people write it (TOML, YAML, Python, WfFormat), checked and compiled into a score."""

from typing import TYPE_CHECKING, Any

__all__ = ["Melody"]

if TYPE_CHECKING:
    from symphony.melody.builder import Melody


def __getattr__(name: str) -> Any:
    if name != "Melody":
        raise AttributeError(f"module 'symphony.melody' has no attribute {name!r}")
    from symphony.melody.builder import Melody

    return Melody
