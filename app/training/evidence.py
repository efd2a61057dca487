"""What the judged rows say: paired losses of two models compared, overall and by slice, or why they cannot be."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.data.features import TargetColumn
from app.spec import Gate
from app.training.bootstrap import FEWEST_BLOCKS, Blocks, Floats, Integers, intervals
from app.types import Scores, Targets

OTHER = "(other)"
MISSING = "(missing)"
_SLICE_BLOCKS = 10  # a slice seen in fewer blocks would be missed by too many resamples


@dataclass(frozen=True)
class Comparison:
    """Mean losses on one group of rows; difference = challenger - opponent, with the ends of its interval.

    The interval is unbounded, and so proves nothing, where the group has too few rows or days.
    """

    group: str
    rows: int
    challenger: float
    opponent: float
    difference: float
    low: float
    high: float

    @property
    def judged(self) -> bool:
        """Whether there were rows enough for an interval."""
        return math.isfinite(self.low)

    def to_json(self) -> dict[str, str | int | float | None]:
        """Return plain JSON values; an unbounded interval has null ends."""
        return asdict(self) | ({} if self.judged else {"low": None, "high": None})


class Groups(NamedTuple):
    """A partition of the rows: labels, and the index of each row's label (n,)."""

    labels: list[str]
    of_row: Integers


def everything(rows: int) -> Groups:
    """Return the partition that holds all rows in one group."""
    return Groups(["overall"], np.zeros(rows, np.int64))


def groups_of(gate: Gate, name: str, column: pa.ChunkedArray, blocks: Blocks) -> Groups:
    """Partition the rows by a column's values; values too rare to be judged share one group."""
    encoded = column.combine_chunks().dictionary_encode()
    labels = [f"{name}={value}" for value in encoded.dictionary.to_pylist()]
    labels += [f"{name}={MISSING}", f"{name}={OTHER}"]
    missing, other = len(labels) - 2, len(labels) - 1
    of_row = encoded.indices.fill_null(missing).to_numpy(zero_copy_only=False).astype(np.int64)
    common = _judged(gate, _count(blocks, Groups(labels, of_row)))
    of_row = np.where(common[of_row], of_row, other)
    present = sorted(np.unique(of_row).tolist(), key=labels.__getitem__)
    place = np.zeros(len(labels), np.int64)
    place[present] = np.arange(len(present))
    return Groups([labels[i] for i in present], place[of_row])


def compare(
    gate: Gate, seed: int, blocks: Blocks, partitions: Sequence[Groups], challenger: Floats, opponent: Floats
) -> list[Comparison]:
    """Compare the paired losses (n,) of two models on every group; all the intervals hold together."""
    counts = np.hstack([_count(blocks, groups) for groups in partitions])
    ours = np.hstack([_count(blocks, groups, challenger) for groups in partitions])
    theirs = np.hstack([_count(blocks, groups, opponent) for groups in partitions])
    judged = _judged(gate, counts)
    low, high = np.full(len(judged), -np.inf), np.full(len(judged), np.inf)
    if judged.any():
        _, low[judged], high[judged] = intervals(
            (ours - theirs)[:, judged], counts[:, judged], gate.confidence, gate.resamples, seed
        )
    rows = counts.sum(0)
    labels = [label for groups in partitions for label in groups.labels]
    return [
        Comparison(
            group=label,
            rows=int(rows[i]),
            challenger=float(ours[:, i].sum() / rows[i]),
            opponent=float(theirs[:, i].sum() / rows[i]),
            difference=float((ours - theirs)[:, i].sum() / rows[i]),
            low=float(low[i]),
            high=float(high[i]),
        )
        for i, label in enumerate(labels)
    ]


def constant(target: TargetColumn, scores: Scores, labels: Targets) -> Scores:
    """Return the constant prediction, shaped as `scores`, that has the least mean loss on these very rows.

    That is each class's share; of a regression the mean, or where the loss asks for one, the median or the quantile.
    """
    if target.task == "multiclass":
        shares = np.bincount(labels.astype(np.int64), minlength=scores.shape[1]) / len(labels)
        return np.broadcast_to(shares.astype(np.float32), scores.shape)
    if target.loss in ("absolute", "quantile"):
        at = target.quantile if target.loss == "quantile" else 0.5
        return np.full(len(labels), np.quantile(labels, at, method="inverted_cdf"), np.float32)
    return np.full(len(labels), labels.mean(dtype=np.float64), np.float32)


def faults_of_input(
    target: TargetColumn,
    scores: Mapping[str, Scores],
    labels: Targets,
    time: Integers,
    position: Integers,
    slices: pa.Table | None,
    slice_names: Sequence[str],
) -> Iterator[str]:
    """Say what is wrong with the arrays themselves."""
    rows = len(labels)
    for name, length in {"time": len(time) or rows, "position": len(position)}.items():
        if length != rows:
            yield f"{length} values of {name} for {rows} rows"
    if slice_names:
        yield from _faults_of_slices(slices, slice_names, rows)
    for role, array in scores.items():
        yield from _faults_of_scores(target, role, array, labels)


def _faults_of_slices(slices: pa.Table | None, names: Sequence[str], rows: int) -> Iterator[str]:
    if slices is None:
        yield f"no columns were given for the declared slices {list(names)}"
        return
    for name in names:
        if name not in slices.column_names:
            yield f"the declared slice {name!r} is not among the columns {slices.column_names}"
    if slices.num_rows != rows:
        yield f"{slices.num_rows} rows of slices for {rows} rows"


def _faults_of_scores(target: TargetColumn, role: str, scores: Scores, labels: Targets) -> Iterator[str]:
    task = target.task
    dimensions = 2 if task == "multiclass" else 1
    if scores.ndim != dimensions or len(scores) != len(labels):
        yield f"the {role}'s scores have the shape {scores.shape} for {len(labels)} rows of a {task} task"
        return
    wrong = scores.size - int(np.isfinite(scores).sum())
    if wrong:
        yield f"{wrong} of the {role}'s scores are not finite"
    elif task != "regression" and scores.size and (scores.min() < 0 or scores.max() > 1):
        yield f"the {role}'s scores reach from {scores.min():g} to {scores.max():g}, allowed are 0 to 1"
    elif task == "multiclass" and np.abs(scores.sum(1) - 1).max(initial=0) > 1e-3:
        yield f"the {role}'s scores of one row do not add up to 1"
    elif task == "multiclass" and np.any(labels >= scores.shape[1]):
        yield f"the {role} knows {scores.shape[1]} classes, the labels hold class {np.nanmax(labels):g}"


def faults_of_evidence(
    gate: Gate, target: TargetColumn, labels: Targets, blocks: Blocks, losses: Mapping[str, Floats]
) -> Iterator[str]:
    """Say why labelled rows, with finite scores, are still too little to judge by."""
    if len(labels) < gate.min_rows:
        yield f"{len(labels):,} labelled rows, at least {gate.min_rows:,} are needed (gate.min_rows)"
    elif blocks.number < FEWEST_BLOCKS:
        found = (
            f"labelled rows of {blocks.days} days" if blocks.days is not None else f"{blocks.number} blocks of rows"
        )
        yield f"{found}, at least {FEWEST_BLOCKS} are needed"
    elif labels.min() == labels.max():
        kind = "value" if target.task == "regression" else "class"
        yield f"all {len(labels):,} labels are of one {kind}, {labels[0]:g}"
    for role, loss in losses.items():
        wrong = len(loss) - int(np.isfinite(loss).sum())
        if wrong:
            yield f"the {role}'s loss is not finite on {wrong:,} rows"


def _count(blocks: Blocks, groups: Groups, values: Floats | None = None) -> Floats:
    """Return rows, or sums of values, by block and group (blocks, groups)."""
    size = len(groups.labels)
    flat = np.bincount(blocks.of_row * size + groups.of_row, values, minlength=blocks.number * size)
    return flat.reshape(blocks.number, size).astype(np.float64)


def _judged(gate: Gate, counts: Floats) -> npt.NDArray[np.bool_]:
    spread = (counts > 0).sum(0) >= min(_SLICE_BLOCKS, len(counts))
    enough: npt.NDArray[np.bool_] = spread & (counts.sum(0) >= gate.min_rows)
    return enough
