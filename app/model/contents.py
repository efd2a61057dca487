"""What goes into a bundle? Everything about one trained version, as plain values that training fills in."""

import importlib.metadata
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from app.data.features import FeaturePlan
from app.monitor.profile import Reference
from app.spec import Model, Spec, Value
from app.types import Scores, Targets

Figures: TypeAlias = dict[str, float]
Side: TypeAlias = Literal["model", "baseline"]
Family: TypeAlias = Literal["teacher", "large", "student"]

_LIBRARIES = ("evertrue", "ray", "torch", "onnxruntime", "numpy", "pyarrow", "lightgbm")


@dataclass(frozen=True)
class Evaluation:
    """Figures of one model on the test rows: in all, by month, and by declared slice column and its values."""

    overall: Figures
    by_month: dict[str, Figures] = field(default_factory=dict)
    by_slice: dict[str, dict[str, Figures]] = field(default_factory=dict)

    def mean_of_months(self) -> Figures:
        """Return each figure's mean over two months or more; slivers (under a hundredth of the rows) do not count.

        The last evening of a year in New York is one in UTC.
        """
        least = sum(month.get("rows", 1) for month in self.by_month.values()) / 100
        whole = [month for month in self.by_month.values() if month.get("rows", 1) >= least]
        if len(whole) < 2:
            return {}
        common = set.intersection(*map(set, whole)) - {"rows"}  # a month of one class has no AUC
        return {name: sum(month[name] for month in whole) / len(whole) for name in whole[0] if name in common}


@dataclass(frozen=True)
class Origin:
    """Where a version comes from.

    `rows` counts by part (train, validation, test), `quarantined` by reason; `time` is the first and the last
    moment, ISO 8601, of the rows that trained and validated, and `trained_until` the last in ms since 1970.
    `tuned` are the settings that a search found, by their place in the declaration.
    """

    fingerprint: str
    rows: dict[str, int]
    quarantined: dict[str, int] = field(default_factory=dict)
    time: tuple[str, str] | None = None
    trained_until: int | None = None
    commit: str | None = None
    tuned: dict[str, Value] = field(default_factory=dict)
    libraries: dict[str, str] = field(default_factory=lambda: library_versions())


@dataclass(frozen=True)
class Judged:
    """What the gate said, when it has spoken already."""

    passed: bool
    reasons: list[str]


@dataclass(frozen=True)
class Variant:
    """One way to make a model smaller, as measured.

    `family` is the network it was made from (teacher, large, student), `how` what was done to it. `loss` is the mean
    row loss on the judged rows, `size` that of the graph in bytes, `latency` the median of one row's prediction (s).
    `refused` says why it may not serve, if it may not.
    """

    family: Family
    how: str
    loss: float
    size: int
    latency: float
    refused: str | None = None

    @property
    def name(self) -> str:
        """Family and treatment, such as "student, half the units, int8_static"."""
        return f"{self.family}, {self.how}" if self.how else self.family


@dataclass(frozen=True)
class Compression:
    """What was tried to make a smaller version, and the name of the one that was chosen, where one was."""

    variants: list[Variant]
    chosen: str | None


@dataclass(frozen=True)
class Contents:
    """One version.

    `learned` are the files that a later training goes on from, such as weights.safetensors; `evaluation` is that of
    the version's own graph. `scores` and `baseline_scores` belong to `target`, the test rows' (n,), and are what the
    card's curves are drawn from. `importance` is the rise in loss by feature and side, as `app.model.importance`
    measures it. `history` has one line an epoch; `considered` the validation loss of every kind that competed.
    """

    spec: Spec
    plan: FeaturePlan
    onnx: bytes
    learned: dict[str, bytes]
    reference: Reference
    origin: Origin
    evaluation: Evaluation
    target: Targets
    scores: Scores
    history: list[Figures]
    baseline: Evaluation | None = None
    baseline_scores: Scores | None = None
    importance: dict[Side, Figures] = field(default_factory=dict)
    considered: Figures = field(default_factory=dict)
    compression: Compression | None = None
    judged: Judged | None = None

    def metrics(self) -> dict[str, Any]:
        """Return every figure as plain JSON values."""
        return {
            "model": asdict(self.evaluation),
            "baseline": asdict(self.baseline) if self.baseline else None,
            "importance": self.importance,
            "history": self.history,
            "considered": self.considered,
            "compression": asdict(self.compression) if self.compression else None,
            "gate": asdict(self.judged) if self.judged else None,
        }


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that made the model, as far as they are installed."""
    installed = {distribution.name for distribution in importlib.metadata.distributions()}
    return {name: importlib.metadata.version(name) for name in _LIBRARIES if name in installed}


def kinds(model: Model) -> list[str]:
    """Return the kinds of the models that the graph is made of."""
    return list(model.members) if model.kind == "average" else [model.kind]


def title(model: Model) -> str:
    """Say in words what kind of model it is."""
    words = {"network": "network", "tabm": "TabM network", "linear": "linear model", "lightgbm": "LightGBM"}
    parts = [words[kind] for kind in kinds(model)]
    return f"average of {' and '.join(parts)}" if len(parts) > 1 else parts[0]
