"""Where the recorded workflows of WfInstances lie. They are data of others, beside the repository and not in it.

`$SYMPHONY_WFINSTANCES` names the folder; without it, `../shared/data/wfinstances` beside the repository.
"""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
ABSENT = "the recorded workflows are not there: set SYMPHONY_WFINSTANCES, or lay them at ../shared/data/wfinstances"


def folder() -> Path:
    """The folder of recorded workflows, which need not exist."""
    given = os.environ.get("SYMPHONY_WFINSTANCES")
    return Path(given) if given else REPOSITORY.parent / "shared" / "data" / "wfinstances"


def instances(place: Path | None = None) -> list[Path]:
    """Every instance in it, the small ones first; none when the folder is not there."""
    return sorted((place or folder()).glob("**/*.json"), key=lambda path: (path.stat().st_size, path))
