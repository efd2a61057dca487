"""How good are the scores? One set of figures per kind of target: exact on arrays, and foldable over ranks.

Every figure is a sum over rows or over groups of rows with equal scores. The exact form groups by the
score itself (`evaluate`); the foldable form (`Tally`) groups by fine bins of it, so that ranks only add.
"""

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.data.features import TargetColumn
from app.data.loss import row_loss
from app.types import Scores, Targets

Array: TypeAlias = npt.NDArray[np.float64]

CALIBRATION_BINS = 15
_TALLY_BINS = 4096
_LOGIT_LIMIT = 16.0  # sigmoid(16) differs from 1 by the resolution of float32


def evaluate(target: TargetColumn, scores: Scores, labels: Targets) -> dict[str, float]:
    """Return the figures of scores (n,) or (n, K) against labels (n,); rows without a label are left aside.

    - binary: `log_loss`, `auc` (left out when only one class is there), `brier`, `calibration_error`
    - multiclass: `log_loss`, `accuracy`, `macro_f1`, `calibration_error` (of the winning class)
    - regression: `rmse`, `mae`, `r2` (left out when the labels are constant)
    - regression that predicts a quantile: also `pinball`, the mean loss, and `coverage`, the share of labels that lie
      at or below their prediction, which should come to the declared quantile

    and always `rows`; nothing else when there are none.
    """
    scores, labels = _labelled(scores, labels)
    if len(labels) == 0:
        return {"rows": 0.0}
    if target.task == "regression":
        return _regression(_regression_sums(target, scores, labels, float(labels.mean(dtype=np.float64))))
    loss = float(row_loss(target, scores, labels).sum())
    if target.task == "binary":
        squared = float(((scores.astype(np.float64) - labels) ** 2).sum())
        return _binary(loss, squared, _Groups.exact(scores, labels))
    winner = scores.argmax(axis=1)
    groups = _Groups.exact(scores.max(axis=1), winner == labels)
    return _multiclass(loss, _class_counts(winner, labels, scores.shape[1]), groups)


def by_month(
    target: TargetColumn, scores: Scores, labels: Targets, time: npt.NDArray[np.int64]
) -> dict[str, dict[str, float]]:
    """Return `evaluate` of every calendar month (UTC, such as "2013-03"); `time` is ms since 1970 (n,)."""
    months, codes = np.unique(time.astype("datetime64[ms]").astype("datetime64[M]"), return_inverse=True)
    return _by_code(target, scores, labels, codes, [str(month) for month in months], min_rows=1)


def by_slice(
    target: TargetColumn, scores: Scores, labels: Targets, column: pa.ChunkedArray | pa.Array, min_rows: int = 1
) -> dict[str, dict[str, float]]:
    """Return `evaluate` of the rows of every value of `column` (n,), null among them as "null".

    Values with fewer than `min_rows` labelled rows are left out.
    """
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    names = [*(str(value) for value in column.dictionary.to_pylist()), "null"]
    codes = column.indices.fill_null(len(names) - 1).to_numpy(zero_copy_only=False)
    return dict(sorted(_by_code(target, scores, labels, codes, names, min_rows).items()))


def _by_code(
    target: TargetColumn,
    scores: Scores,
    labels: Targets,
    codes: npt.NDArray[np.integer],
    names: list[str],
    min_rows: int,
) -> dict[str, dict[str, float]]:
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    found = {}
    for code, name in enumerate(names):
        rows = order[starts[code] : starts[code + 1]]
        if len(rows):
            figures = evaluate(target, scores[rows], labels[rows])
            if figures["rows"] >= min_rows:
                found[name] = figures
    return found


@dataclass(frozen=True)
class Tally:
    """Figures over rows seen piece by piece; merging adds `state`, so ranks need one sum (all-reduce).

    Losses, Brier score, accuracy, F1, RMSE, MAE, R2 and coverage are exact. AUC and calibration error see the scores
    through 4,096 bins evenly spaced in the logit from -16 to 16: the AUC is off by at most half the share
    of (positive, negative) pairs that fall into one bin, which `figures` reports as `auc_error`.

    >>> target = TargetColumn("late", "binary", (0, 1))
    >>> first = Tally.of(target, np.float32([0.2, 0.9]), np.float32([0, 1]))
    >>> both = first.merge(Tally.of(target, np.float32([0.4]), np.float32([1])))
    >>> both.figures()["auc"]
    1.0
    """

    target: TargetColumn
    state: Array

    @staticmethod
    def zero(target: TargetColumn) -> "Tally":
        """Return the tally of no rows."""
        sizes = {
            "binary": 2 + 3 * _TALLY_BINS,
            "multiclass": 1 + 3 * target.outputs + 3 * _TALLY_BINS,
            "regression": 7 if target.loss == "quantile" else 5,
        }
        return Tally(target, np.zeros(sizes[target.task]))

    @staticmethod
    def of(target: TargetColumn, scores: Scores, labels: Targets) -> "Tally":
        """Return the tally of some rows; those without a label are left aside."""
        scores, labels = _labelled(scores, labels)
        if target.task == "regression":
            return Tally(target, _regression_sums(target, scores, labels, target.mean))
        loss = row_loss(target, scores, labels).sum()
        if target.task == "binary":
            squared = ((scores.astype(np.float64) - labels) ** 2).sum()
            groups = _Groups.binned(scores, labels)
            return Tally(target, np.concatenate([[loss, squared], np.ravel(groups)]))
        winner = scores.argmax(axis=1)
        groups = _Groups.binned(scores.max(axis=1, initial=0.0), winner == labels)
        counts = _class_counts(winner, labels, target.outputs)
        return Tally(target, np.concatenate([[loss], np.ravel(counts), np.ravel(groups)]))

    def merge(self, other: "Tally") -> "Tally":
        """Return the tally of both; associative and commutative up to float64's rounding."""
        return Tally(self.target, self.state + other.state)

    def figures(self) -> dict[str, float]:
        """Return what `evaluate` returns, and for binary tasks `auc_error`, the largest error of `auc`."""
        if self.target.task == "regression":
            return _regression(self.state)
        groups = _Groups(*self.state[-3 * _TALLY_BINS :].reshape(3, _TALLY_BINS))
        if groups.rows.sum() == 0:
            return {"rows": 0.0}
        if self.target.task == "binary":
            return _binary(self.state[0], self.state[1], groups) | _auc_error(groups)
        counts = self.state[1 : -3 * _TALLY_BINS].reshape(3, -1)
        return _multiclass(self.state[0], counts, groups)


class _Groups(NamedTuple):
    """Rows grouped by score, ascending: how many, the sum of their scores, the sum of their 0/1 labels."""

    rows: Array
    scores: Array
    labels: Array

    @staticmethod
    def exact(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.float32 | np.bool_]) -> "_Groups":
        values, code = np.unique(scores, return_inverse=True)
        return _Groups._by(code, scores, labels, len(values))

    @staticmethod
    def binned(scores: npt.NDArray[np.float32], labels: npt.NDArray[np.float32 | np.bool_]) -> "_Groups":
        inside = np.clip(scores.astype(np.float64), 1e-9, 1 - 1e-9)
        place = (np.log(inside / (1 - inside)) + _LOGIT_LIMIT) * (_TALLY_BINS / (2 * _LOGIT_LIMIT))
        place = np.nan_to_num(np.clip(place, 0, _TALLY_BINS - 1))  # a diverged network's NaN shows in the loss
        return _Groups._by(place.astype(np.int64), scores, labels, _TALLY_BINS)

    @staticmethod
    def _by(
        code: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float32],
        labels: npt.NDArray[np.float32 | np.bool_],
        size: int,
    ) -> "_Groups":
        sums = (np.bincount(code, weights, minlength=size) for weights in (None, scores, labels))
        return _Groups(*(np.asarray(total, np.float64) for total in sums))


def _labelled(scores: Scores, labels: Targets) -> tuple[Scores, Targets]:
    assert len(scores) == len(labels), f"{len(scores)} scores for {len(labels)} labels"
    known = ~np.isnan(labels)
    return (scores, labels) if known.all() else (scores[known], labels[known])


def _binary(loss: float, squared: float, groups: _Groups) -> dict[str, float]:
    rows = groups.rows.sum()
    figures = {"log_loss": loss / rows, "brier": squared / rows, "calibration_error": _calibration_error(groups)}
    positive, negative = groups.labels, groups.rows - groups.labels
    pairs = positive.sum() * negative.sum()
    if pairs:
        # Mann-Whitney: the share of (positive, negative) pairs in the right order, ties counting half
        # (Hanley and McNeil, 1982).
        below = np.cumsum(negative) - negative
        figures["auc"] = (positive * (below + negative / 2)).sum() / pairs
    return _plain(figures, rows)


def _auc_error(groups: _Groups) -> dict[str, float]:
    positive, negative = groups.labels, groups.rows - groups.labels
    pairs = positive.sum() * negative.sum()
    return {"auc_error": float((positive * negative).sum() / 2 / pairs)} if pairs else {}


def _calibration_error(groups: _Groups) -> float:
    """Expected calibration error (Naeini et al., 2015) over 15 bins of equal mass (Kumar et al., 2019).

    Rows are ordered by score and cut into bins of as many rows each, equal scores kept together; the error
    is the mean over rows of |mean score - share of positives| of the row's bin.
    """
    total = groups.rows.sum()
    middle = np.cumsum(groups.rows) - groups.rows / 2
    code = np.minimum(middle * CALIBRATION_BINS / total, CALIBRATION_BINS - 1).astype(np.int64)
    return float(np.abs(np.bincount(code, weights=groups.scores - groups.labels)).sum() / total)


def _class_counts(winner: npt.NDArray[np.int64], labels: Targets, classes: int) -> Array:
    """Return per class (3, K): rows given to it, rows that are of it, rows rightly given to it."""
    actual = labels.astype(np.int64)
    counted = [np.bincount(part, minlength=classes) for part in (winner, actual, actual[winner == actual])]
    return np.asarray(counted, np.float64)


def _multiclass(loss: float, counts: Array, groups: _Groups) -> dict[str, float]:
    rows = groups.rows.sum()
    given, actual, right = counts[:, counts[0] + counts[1] > 0]
    figures = {
        "log_loss": loss / rows,
        "accuracy": right.sum() / rows,
        "macro_f1": (2 * right / (given + actual)).mean(),
        "calibration_error": _calibration_error(groups),
    }
    return _plain(figures, rows)


def _regression_sums(target: TargetColumn, scores: Scores, labels: Targets, center: float) -> Array:
    """Return rows, sum of squared and absolute errors, sum and sum of squares of labels - center.

    Of a quantile also the sum of pinball losses, and how many labels lie at or below their score.
    """
    error = scores.astype(np.float64) - labels
    away = labels.astype(np.float64) - center
    sums = [len(labels), (error**2).sum(), np.abs(error).sum(), away.sum(), (away**2).sum()]
    if target.loss == "quantile":
        sums += [row_loss(target, scores, labels).sum(), np.count_nonzero(error >= 0)]
    return np.array(sums, np.float64)


def _regression(sums: Array) -> dict[str, float]:
    rows, squared, absolute, away, away_squared, *of_quantile = sums
    if rows == 0:
        return {"rows": 0.0}
    figures = {"rmse": np.sqrt(squared / rows), "mae": absolute / rows}
    spread = away_squared - away**2 / rows
    if spread > 0:
        figures["r2"] = 1 - squared / spread
    if of_quantile:
        pinball, covered = of_quantile
        figures |= {"pinball": pinball / rows, "coverage": covered / rows}
    return _plain(figures, rows)


def _plain(figures: dict[str, float], rows: float) -> dict[str, float]:
    return {"rows": float(rows), **{name: float(value) for name, value in figures.items()}}
