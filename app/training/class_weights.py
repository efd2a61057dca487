"""How much does a row of each class weigh in training? And what takes the weights out of the scores again.

A model that learned weighted rows gives probabilities of a world in which classes are as common as they weigh. Taking
log w from each class's logit brings them back to this one (Elkan, "The Foundations of Cost-Sensitive Learning", IJCAI
2001), exactly so where the model gives the true ones of that other world.
"""

import numpy as np
import numpy.typing as npt

from app.data.features import TargetColumn
from app.spec import Train
from app.types import Targets, UserError


def class_weights(settings: Train, target: TargetColumn, counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return each class's weight (K,), such that training rows, `counts` (K,) of each class, weigh 1 in the mean.

    A binary target has two classes. A class without rows weighs 1: none has been learned with another weight, which
    would have to be taken out again. Raises UserError for a class that the target does not have.
    """
    declared, weights, met = settings.class_weights, np.ones(len(counts)), counts > 0
    if declared == "balanced":
        weights[met] = 1 / counts[met]
    elif declared != "none":
        names = [_name(value) for value in target.classes]
        if unknown := [name for name in declared if name not in names]:
            raise UserError(
                f"train.class_weights: found {', '.join(map(repr, unknown))}, which {target.name!r} never is; "
                f"allowed: {', '.join(names)}"
            )
        weights = np.array([declared.get(name, 1.0) for name in names])
    weights[met] *= counts.sum() / (weights * counts).sum() if met.any() else 1.0
    weights[~met] = 1.0
    return weights


def count_classes(target: TargetColumn, labels: Targets) -> npt.NDArray[np.float64]:
    """Return the rows of each class (K,) among labels (n,), or the sums of probabilities (n,) or (n, K).

    A row without a target (NaN) does not count.
    """
    known = labels[~np.isnan(labels)] if labels.ndim == 1 else labels[~np.isnan(labels).any(axis=1)]
    if labels.ndim == 2:
        return np.asarray(known.sum(axis=0), np.float64)
    if target.task == "binary":
        positive = known.sum(dtype=np.float64)
        return np.array([len(known) - positive, positive])
    return np.asarray(np.bincount(known.astype(np.int64), minlength=len(target.classes)), np.float64)


def shift_of(target: TargetColumn, weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return what is added to the logits (outputs,) to take the weights out of the probabilities."""
    logarithms = -np.log(weights)
    return logarithms[1:] - logarithms[:1] if target.task == "binary" else logarithms


def _name(value: object) -> str:
    """Write a class as the declaration does."""
    return str(value).lower() if isinstance(value, bool) else str(value)
