"""Which features does a model rest on? The rise in loss when one feature's values are dealt to other rows.

Breiman, "Random Forests", Machine Learning 45, 2001; Fisher, Rudin and Dominici, "All Models are Wrong, but Many
are Useful", JMLR 20, 2019.
"""

from collections.abc import Callable

import numpy as np

from app.data.features import FeaturePlan
from app.types import Features, Scores, Targets


def permutation_importance(
    score: Callable[[Features], Scores],
    loss: Callable[[Scores, Targets], float],
    plan: FeaturePlan,
    features: Features,
    target: Targets,
    rows: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """Return by feature, in the plan's order, how much the mean loss rises when the feature is shuffled.

    `score` is a runtime's or a baseline's method. At most `rows` rows, drawn at random, take part; those without
    a label (NaN) do not. With no rows at all the answer is empty.
    """
    random = np.random.default_rng(seed)
    labelled = np.flatnonzero(~np.isnan(target))
    if len(labelled) == 0:
        return {}
    chosen = np.sort(random.permutation(labelled)[:rows])
    features, target = features.rows(chosen), target[chosen]
    before = loss(score(features), target)
    order = random.permutation(len(target))
    rises = []
    for matrix in features:
        for column in range(matrix.shape[1]):
            kept = matrix[:, column].copy()
            matrix[:, column] = kept[order]
            rises.append(loss(score(features), target) - before)
            matrix[:, column] = kept
    return dict(zip(plan.names, rises, strict=True))
