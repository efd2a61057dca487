"""How wrong is one answer? The loss of every row, in which training, gate, probe and monitor all count.

- log: -log of the true class's probability
- squared, absolute: the square, or the size, of the error. The mean makes the one least, a median the other.
- quantile: the pinball loss (Koenker and Bassett 1978, Regression quantiles). Where the value lies above the
  prediction, `quantile` x the error, and below it (1 - `quantile`) x the error: the declared quantile makes it least,
  and at a half it is half the absolute error.
"""

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from app.data.features import Loss, TargetColumn
from app.types import Scores, Targets

NAMES: dict[Loss, str] = {
    "log": "log-loss",
    "squared": "squared error",
    "absolute": "absolute error",
    "quantile": "pinball loss",
}
"""What people call it."""
_EPSILON = float(np.finfo(np.float32).eps)


def row_loss(target: TargetColumn, scores: Scores, labels: Targets) -> npt.NDArray[np.float64]:
    """Return the loss (n,) of each row's score, (n,) or of several classes (n, K), as `target.loss` has it.

    Every row has a label. Probabilities are held float32's resolution away from 0, so that one sure mistake costs at
    most 16.
    """
    wide = scores.astype(np.float64)
    if target.task == "multiclass":
        chosen = np.take_along_axis(wide, labels.astype(np.int64)[:, None], axis=1)[:, 0]
        return _log_loss(chosen)
    if target.task == "binary":
        return _log_loss(np.where(labels == 1, wide, 1.0 - wide))
    error = labels - wide
    if target.loss == "squared":
        return np.asarray(error**2)
    if target.loss == "absolute":
        return np.abs(error)
    return np.asarray(np.maximum(target.quantile * error, (target.quantile - 1) * error))


def _log_loss(probability: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(-np.log(np.clip(probability, _EPSILON, 1.0)))


def mean_loss(target: TargetColumn, figures: Mapping[str, float]) -> float:
    """Return the mean row loss that a version's figures (`app.training.metrics`) tell; NaN where they are of no rows."""
    if target.loss == "squared":
        return figures.get("rmse", math.nan) ** 2
    return figures.get({"log": "log_loss", "absolute": "mae", "quantile": "pinball"}[target.loss], math.nan)
