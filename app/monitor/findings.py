"""What does the monitor find, and what must it know of a version to find it?"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from app.data.features import FeaturePlan
from app.monitor.profile import Reference

FindingKind: TypeAlias = Literal["drift", "fault", "loss"]


@dataclass(frozen=True)
class Subject:
    """A version as the fold knows it.

    `loss` is the mean row loss (`app.data.loss`) the version had on rows it did not learn from; None when it was never
    measured.
    """

    version: str
    reference: Reference
    plan: FeaturePlan
    loss: float | None


SubjectOf: TypeAlias = Callable[[str], Subject]


@dataclass(frozen=True)
class Finding:
    """One thing that moved, broke or costs more than it should, when it was first certain.

    Moments are event time in ms since 1970: `onset` when it is thought to have begun, `at` the end of the window
    that settled it. `step` is the journal step folded then. `shift` is in standard deviations of the reference
    (of a loss: relative to the expected one), `evidence` the detector's, alarming at `threshold`. `detail` is plain
    JSON: the bins that moved most, or what a fault rests on.
    """

    kind: FindingKind
    what: str  # a feature's name, "prediction", "components", "loss", "clock", "traffic" ...
    detector: str  # "fast", "slow" ..., or a fault's cause: "missing", "constant", "unit", "unseen", "schema" ...
    direction: str  # "higher", "lower", "wider" ...; of a fault what happened, in a word
    shift: float
    evidence: float
    threshold: float
    onset: int
    at: int
    step: int
    version: str
    detail: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; `Finding(**...)` gives back an equal finding."""
        return asdict(self)
