"""Has the world changed, or has something broken upstream?"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from app.monitor.findings import Finding, Subject
from app.monitor.recent import Recent
from app.monitor.samples import Samples


class Fault(NamedTuple):
    """Something that broke: what, by which cause, what happened in a word; since when (0: now), and its evidence."""

    what: str
    cause: str
    direction: str
    shift: float
    onset: int
    detail: dict[str, Any]


def diagnose(subject: Subject, recent: Recent, samples: Samples, known: Mapping[str, Finding]) -> Iterator[Fault]:
    """Yield what is broken in the newest of the recent hours."""
    yield from ()


def repeated_traffic(rows: int, repeated: int) -> Iterator[Fault]:
    """Yield a fault when too many rows of a step have an id that was there before."""
    if repeated >= 20 and repeated > 0.2 * rows:
        yield Fault("traffic", "repeated", "repeated", repeated / rows, 0, {"rows": rows, "repeated": repeated})
