"""What did the world look like in training? Histograms by season slot, which everything later is held against.

Counts are added, never averaged: windows, replicas and slots merge in any order.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.data.features import FeaturePlan
from app.data.loss import row_loss
from app.monitor.binning import OUTSIDE, SLOTS, Basis, Binning, Counts, Edges
from app.monitor.directions import Directions, Integers
from app.monitor.wobble import Hours, Losses, Wobble
from app.spec import Drift
from app.types import Scores, UserError

if TYPE_CHECKING:
    from app.data.encode import Examples  # whose module loads Ray, which replicas do without

_FORMAT = 2
_FACTS = b"evertrue"
_SAMPLE = 200_000  # rows that components and their bins are fitted to
_DAYS = 120  # newest, that hours' and days' wobble is learned from
_HOUR = 3_600_000
_HOURS_AT_ONCE = 48
_QUANTILES = np.linspace(0, 1, 257)


@dataclass(frozen=True)
class Reference:
    """The bins, and what training and validation rows put into them.

    Features are counted on the training rows, predictions and labels on the validation rows, where the network
    cannot have learned the answers. `unseen` is each category's share of unseen values in the validation rows:
    in the training rows, whose values made the vocabulary, there are next to none. `wobble` is how far the mean
    scores of the directions move from hour to hour and day to day in the same rows.
    """

    binning: Binning
    counts: Counts  # (slots, W, bins + 2)
    labels: Counts  # (bins + 2, labels): bin of the prediction by label
    unseen: npt.NDArray[np.float64]  # (C,)
    wobble: Wobble  # of the D directions
    losses: Losses  # of the validation rows

    @staticmethod
    def of(plan: FeaturePlan, drift: Drift, train: "Examples", validation: "Examples", scores: Scores) -> "Reference":
        """Profile the training rows, and the validation rows with their calibrated scores."""
        binning = fit(plan, drift, train, scores)
        slots = SLOTS[binning.season]
        counts = np.concatenate(
            [
                binning.count_features(train.features, _slots(binning, train), slots),
                binning.count_scores(scores, _slots(binning, validation), slots),
            ],
            axis=1,
        )
        ids = validation.features.category
        # Half a row on either side: a rate from few rows is never exactly 0 or 1.
        unseen = ((ids == OUTSIDE).sum(axis=0) + 0.5) / (len(ids) + 1)
        labels = binning.count_labels(scores, validation.target)
        wobble = _wobble(Directions.of(binning, counts, unseen), train, validation, scores)
        known = ~np.isnan(validation.target)
        row_losses = row_loss(plan.target, scores[known], validation.target[known])
        time = validation.time[known] if len(validation.time) else validation.time
        losses = Losses.of(row_losses, time, binning.season, float(wobble.memory.mean()))
        return Reference(
            binning, counts, labels, unseen, _as_in_file(wobble), losses._replace(wobble=_as_in_file(losses.wobble))
        )

    @cached_property
    def directions(self) -> Directions:
        """The ways in which what is watched can move."""
        return Directions.of(self.binning, self.counts, self.unseen)

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

        def wobble(name: str) -> Wobble:
            return Wobble(*(arrays[f"{name}.{part}"].astype(np.float64) for part in Wobble._fields))

        mean, sd, largest = arrays["losses"].tolist()
        losses = Losses(mean, sd, largest, binning.season, arrays["losses.season"], wobble("losses.wobble"))
        return Reference(binning, arrays["counts"], arrays["labels"], arrays["unseen"], wobble("wobble"), losses)

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        arrays: dict[str, npt.NDArray[Any]] = {"counts": self.counts, "labels": self.labels, "unseen": self.unseen}
        arrays |= {"losses": np.array(self.losses[:3]), "losses.season": self.losses.season}
        for name, wobble in (("wobble", self.wobble), ("losses.wobble", self.losses.wobble)):
            arrays |= {f"{name}.{key}": array.astype(np.float32) for key, array in wobble._asdict().items()}
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


def _wobble(directions: Directions, train: "Examples", validation: "Examples", scores: Scores) -> Wobble:
    """Learn how features wander from all rows, and scores from the validation rows."""
    binning = directions.binning
    if not len(train.time):
        return Wobble.unknown(directions.rows)
    first = next(row for row, (kind, _) in enumerate(binning.watched) if kind == "prediction")
    after = len(binning.watched) - first

    def of_features(part: "Examples") -> Hours:
        def count(rows: Integers, groups: Integers, number: int) -> Counts:
            return np.pad(
                binning.count_features(part.features.rows(rows), groups, number), ((0, 0), (0, after), (0, 0))
            )

        return _hours(directions, part.time, count)

    def count_scores(rows: Integers, groups: Integers, number: int) -> Counts:
        return np.pad(binning.count_scores(scores[rows], groups, number), ((0, 0), (first, 0), (0, 0)))

    features = Wobble.of(
        Hours.merged(of_features(train), of_features(validation)), binning.season, directions.day_off
    )
    memory = np.full(len(directions), features.memory[directions.thing < first].mean())
    of_scores = Wobble.of(
        _hours(directions, validation.time, count_scores), binning.season, directions.day_off, memory
    )
    return features.extended(of_scores, directions.thing >= first)


def _as_in_file(wobble: Wobble) -> Wobble:
    """Return it as exact as the file keeps it, so that a reference and its file give the same detectors."""
    return Wobble(*(array.astype(np.float32).astype(np.float64) for array in wobble))


def _hours(directions: Directions, time: Integers, count: Callable[[Integers, Integers, int], Counts]) -> Hours:
    """Project the hours of the newest days of rows at `time` (n,); `count` counts chosen rows by groups (n, W, B)."""
    hour = time // _HOUR
    order = np.argsort(hour, kind="stable")
    order = order[hour[order] > hour.max(initial=0) - _DAYS * 24]
    starts, group = np.unique(hour[order], return_inverse=True)
    sums, rows = np.empty((len(starts), len(directions))), np.empty(len(starts))
    for first in range(0, len(starts), _HOURS_AT_ONCE):
        piece = slice(first, min(first + _HOURS_AT_ONCE, len(starts)))
        a, b = np.searchsorted(group, [piece.start, piece.stop])
        counts = count(order[a:b], group[a:b] - first, piece.stop - first)
        sums[piece], _ = directions.project(counts, directions.binning.slots(starts[piece] * _HOUR))
        rows[piece] = np.bincount(group[a:b] - first)
    return Hours(starts * _HOUR, sums, rows)
