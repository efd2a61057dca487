"""What did the world look like in training? Histograms by season slot, which everything later is held against.

Counts are added, never averaged: windows, replicas and slots merge in any order.
"""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.data.features import FeaturePlan
from app.monitor.binning import OUTSIDE, Basis, Binning, Counts, Edges
from app.spec import Drift
from app.types import Scores, UserError

if TYPE_CHECKING:
    from app.data.encode import Examples  # whose module loads Ray, which replicas do without

_FORMAT = 1
_FACTS = b"evertrue"
_SAMPLE = 200_000  # rows that components and their bins are fitted to
_QUANTILES = np.linspace(0, 1, 257)


@dataclass(frozen=True)
class Reference:
    """The bins, and what training and validation rows put into them.

    Features are counted on the training rows, predictions and labels on the validation rows, where the network
    cannot have learned the answers. `unseen` is each category's share of unseen values in the validation rows:
    in the training rows, whose values made the vocabulary, there are next to none.
    """

    binning: Binning
    counts: Counts  # (slots, W, bins + 2)
    labels: Counts  # (bins + 2, labels): bin of the prediction by label
    unseen: npt.NDArray[np.float64]  # (C,)

    @staticmethod
    def of(plan: FeaturePlan, drift: Drift, train: "Examples", validation: "Examples", scores: Scores) -> "Reference":
        """Profile the training rows, and the validation rows with their calibrated scores."""
        binning = fit(plan, drift, train, scores)
        counts = (
            binning.count_features(train.features, _slots(binning, train)),
            binning.count_scores(scores, _slots(binning, validation)),
        )
        ids = validation.features.category
        # Half a row on either side: a rate from few rows is never exactly 0 or 1.
        unseen = ((ids == OUTSIDE).sum(axis=0) + 0.5) / (len(ids) + 1)
        labels = binning.count_labels(scores, validation.target)
        return Reference(binning, np.concatenate(counts, axis=1), labels, unseen)

    def to_bytes(self) -> bytes:
        """Return an Arrow file: one row with an array in every column; names and shapes in the metadata."""
        binning, arrays = self.binning, self._arrays()
        facts = {
            "format": _FORMAT,
            "task": binning.task,
            "classes": binning.classes,
            "numbers": binning.numbers,
            "categories": binning.categories,
            "bins": binning.bins,
            "season": binning.season,
            "shapes": {name: array.shape for name, array in arrays.items()},
        }
        columns = {
            name: pa.ListArray.from_arrays(pa.array([0, array.size], pa.int32()), pa.array(array.ravel()))
            for name, array in arrays.items()
        }
        table = pa.table(columns).replace_schema_metadata({_FACTS: json.dumps(facts)})
        sink = pa.BufferOutputStream()
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        with pa.ipc.new_file(sink, table.schema, options=options) as writer:
            writer.write_table(table)
        return bytes(sink.getvalue())

    @staticmethod
    def from_bytes(data: bytes) -> "Reference":
        """Read what `to_bytes` wrote. Raises UserError for another format."""
        table = pa.ipc.open_file(data).read_all()
        facts = json.loads((table.schema.metadata or {}).get(_FACTS, b"{}"))
        if facts.get("format") != _FORMAT:
            raise UserError(f"reference profile: found format {facts.get('format')!r}, allowed {_FORMAT}")
        arrays = {
            name: table.column(name).chunk(0).values.to_numpy().reshape(shape)
            for name, shape in facts["shapes"].items()
        }

        def edges(name: str) -> Edges:
            return Edges(*(arrays[f"{name}.{part}"] for part in Edges._fields))

        binning = Binning(
            task=facts["task"],
            classes=facts["classes"],
            numbers=tuple(facts["numbers"]),
            categories=tuple(facts["categories"]),
            bins=facts["bins"],
            season=facts["season"],
            number=edges("number"),
            basis=Basis(arrays["basis.normal"], arrays["basis.directions"]) if "basis.normal" in arrays else None,
            component=edges("component"),
            score=edges("score"),
            label=edges("label"),
        )
        return Reference(binning, arrays["counts"], arrays["labels"], arrays["unseen"])

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        arrays: dict[str, npt.NDArray[Any]] = {"counts": self.counts, "labels": self.labels, "unseen": self.unseen}
        for name in ("number", "basis", "component", "score", "label"):
            part: Edges | Basis | None = getattr(self.binning, name)
            if part is not None:
                arrays |= {f"{name}.{key}": array for key, array in part._asdict().items()}
        return arrays


def fit(plan: FeaturePlan, drift: Drift, train: "Examples", scores: Scores) -> Binning:
    """Choose the bins: of numbers by the plan, of components by training rows, of scores by validation rows."""
    bins, task = drift.bins, plan.target.task
    number = Edges.at([np.array(column.quantiles) for column in plan.number], bins)
    basis, component = None, Edges.at([], bins)
    if len(plan.number) > 1 and drift.components and len(train.target):
        step = -(-len(train.target) // _SAMPLE)
        codes = number.codes(np.ascontiguousarray(train.features.number[::step].T))
        basis = Basis.of(codes, bins, drift.components)
        component = Edges.at(list(_quantiles(basis.project(codes))), bins)
    score = scores.max(axis=1, initial=0) if task == "multiclass" else scores
    label = train.target[~np.isnan(train.target)] if task == "regression" else np.empty(0, np.float32)
    return Binning(
        task=task,
        classes=len(plan.target.classes),
        numbers=tuple(column.name for column in plan.number),
        categories=tuple(column.name for column in plan.category),
        bins=bins,
        season=drift.season if plan.time else "none",
        number=number,
        basis=basis,
        component=component,
        score=Edges.at(list(_quantiles(score[None])), bins),
        label=Edges.at(list(_quantiles(label[None])), bins),
    )


def _quantiles(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return 257 evenly spaced quantiles (w, 257) of values (w, n); (w, 0) of no values."""
    return np.quantile(values, _QUANTILES, axis=1, method="lower").T if values.shape[1] else values


def _slots(binning: Binning, examples: "Examples") -> npt.NDArray[np.int64]:
    return binning.slots(examples.time) if len(examples.time) else np.zeros(len(examples.target), np.int64)
