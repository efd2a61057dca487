"""What is done elsewhere and takes its time: probes as Ray tasks, retrainings as Ray jobs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from app.decisions.ledger import Entry
from app.decisions.retrain import Outcome

if TYPE_CHECKING:
    from app.decisions.probe import Gain


@dataclass(frozen=True)
class Underway:
    """It is not over; how it stands, in words."""

    words: str


@dataclass(frozen=True)
class Failed:
    """It gave nothing; why."""

    error: str


class Work(Protocol):
    """Asked at every turn, and again after a restart: what has begun is not begun twice."""

    def probe(self, entry: Entry) -> "Gain | Failed | Underway":
        """Begin a probe, or say what it told."""

    def retrain(self, entry: Entry) -> Outcome | Underway:
        """Begin a retraining, or say what became of it."""
