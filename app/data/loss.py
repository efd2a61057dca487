"""How wrong is one answer? The loss of every row, in which training, gate, probe and monitor all count."""

import numpy as np
import numpy.typing as npt

from app.data.features import TaskType
from app.types import Scores, Targets

_EPSILON = float(np.finfo(np.float32).eps)


def row_loss(task: TaskType, scores: Scores, target: Targets) -> npt.NDArray[np.float64]:
    """Return each row's loss (n,): -log of the true class's probability, or the squared error.

    Probabilities are held float32's resolution away from 0, so that one sure mistake costs at most 16.
    """
    wide = scores.astype(np.float64)
    if task == "regression":
        return np.asarray((wide - target) ** 2)
    if task == "binary":
        chosen = np.where(target == 1, wide, 1.0 - wide)
    else:
        chosen = np.take_along_axis(wide, target.astype(np.int64)[:, None], axis=1)[:, 0]
    return np.asarray(-np.log(np.clip(chosen, _EPSILON, 1.0)))
