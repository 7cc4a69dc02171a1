"""What MELODY means where somebody names one: a shipped melody, a file, or an object that is one already."""

import os
from pathlib import Path
from typing import Any

from symphony.melody.compile import Catalogue
from symphony.melody.parse import SUFFIXES, load
from symphony.model.errors import UsageError
from symphony.model.score import Score
from symphony.model.words import did_you_mean

SHIPPED = Path(__file__).resolve().parent.parent / "aide" / "melodies"


def shipped(folder: Path = SHIPPED) -> dict[str, Path]:
    """The melodies that come with Symphony, by name."""
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def locate(melody: str | os.PathLike[str]) -> Path:
    """The file of a melody that is named by path or by a shipped name (a file wins). Raises UsageError."""
    path = Path(melody).expanduser()
    if path.suffix.lower() in SUFFIXES or _stands(path):
        return path
    known = shipped()
    if str(melody) in known:
        return known[str(melody)]
    if len(path.parts) > 1 or path.exists():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"{str(path)!r} {what}; a melody is a shipped name or a file ending in {', '.join(SUFFIXES)}")
    raise UsageError(f"no melody {str(melody)!r} comes with Symphony{did_you_mean(str(melody), known)}")


def _stands(path: Path) -> bool:
    """Whether a file is there. One that may not even be looked at counts as one: reading it says why it cannot be."""
    try:
        return path.is_file()
    except PermissionError:
        return True


def score_of(
    melody: Any, *, catalogue: Catalogue | None = None, time_scale: float = 1.0, size_scale: float = 0.0
) -> Score:
    """The score of a Score, a Melody, a shipped name or a path. The scales apply to WfFormat instances alone.

    Raises MelodyError for what is wrong in a file, UsageError for a name or an object that is no melody.
    """
    if isinstance(melody, Score):
        return melody
    if hasattr(melody, "document") and hasattr(melody, "score"):
        found: Score = melody.score(catalogue)
        return found
    if not isinstance(melody, str | os.PathLike):
        raise UsageError(f"a melody is a name, a path, a Melody or a Score, not {type(melody).__name__}")
    return load(locate(melody), catalogue=catalogue, time_scale=time_scale, size_scale=size_scale)
