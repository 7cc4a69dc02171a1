"""A run as the Conductor knows it: what stands beside its shared tables."""

import threading
from dataclasses import dataclass, field

from symphony.model import score as scores
from symphony.native.layout import constants
from symphony.shmem.segment import Segment

ENDED = {
    constants["SYM_RUN_COMPLETED"]: "completed",
    constants["SYM_RUN_FAILED"]: "failed",
    constants["SYM_RUN_CANCELLED"]: "cancelled",
}


@dataclass
class Run:
    """What the Conductor keeps of a run beside its shared tables."""

    serial: int
    row: int
    score: scores.Score
    segment: Segment
    geometry: dict
    request_id: bytes
    ended: threading.Event = field(default_factory=threading.Event)
    state: str = "running"
    error: str | None = None
    arena_bytes: int = 256 << 10
    taken: bool = False
    """Whether somebody has been told its outcome since it ended."""
