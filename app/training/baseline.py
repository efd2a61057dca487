"""What would trees reach? LightGBM on the same features, so that the network has to earn its place.

Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NeurIPS 2017. The model is kept
as LightGBM's own text, never pickled.
"""

import time
from dataclasses import dataclass
from functools import cached_property

import lightgbm
import numpy as np
import numpy.typing as npt

from app.data.encode import Examples
from app.data.features import FeaturePlan, TaskType
from app.training.resources import cpu_count
from app.types import Features, Scores, Targets

_ROUNDS = 1000
_PATIENCE = 50
_SETTINGS = {
    "learning_rate": 0.05,
    "num_leaves": 63,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
}
_OBJECTIVES: dict[TaskType, str] = {"binary": "binary", "multiclass": "multiclass", "regression": "regression"}


@dataclass(frozen=True)
class Baseline:
    """Boosted trees: `model` is LightGBM's text form, from which the same scores can be had anywhere."""

    model: str
    task: TaskType
    outputs: int
    trees: int
    seconds: float

    def score(self, features: Features) -> Scores:
        """Return the scores: binary and regression (n,), multiclass (n, K)."""
        shape = (len(features.number), self.outputs) if self.task == "multiclass" else (len(features.number),)
        if len(features.number) == 0:
            return np.empty(shape, np.float32)
        return np.asarray(self._booster.predict(matrix(features)), np.float32).reshape(shape)

    @cached_property
    def _booster(self) -> lightgbm.Booster:
        return lightgbm.Booster(model_str=self.model)


def train_baseline(train: Examples, validation: Examples, plan: FeaturePlan, seed: int, threads: int = 0) -> Baseline:
    """Boost trees on `train` until `validation` gets no better for 50 rounds, and keep the best round.

    A missing number stays NaN, which trees send the better way; category ids are split as sets.
    `threads`: all CPUs that this process may use, unless told.
    """
    begin = time.perf_counter()
    target = plan.target
    settings = _SETTINGS | {
        "objective": _OBJECTIVES[target.task],
        "seed": seed,
        "num_threads": threads or cpu_count(),
    }
    if target.task == "multiclass":
        settings["num_class"] = target.outputs
    names = list(plan.names)
    features, labels = _labelled(train)
    fitted = lightgbm.Dataset(
        matrix(features),
        labels,
        feature_name=[f"f{i}" for i in range(len(names))],  # a user's names may hold what its text form cannot
        categorical_feature=list(range(len(plan.number), len(names))),
        params=settings,
    )
    features, labels = _labelled(validation)
    held_out = lightgbm.Dataset(matrix(features), labels, reference=fitted, params=settings)
    booster = lightgbm.train(
        settings,
        fitted,
        num_boost_round=_ROUNDS,
        valid_sets=[held_out],
        callbacks=[lightgbm.early_stopping(_PATIENCE, verbose=False)],
    )
    trees = booster.best_iteration or booster.current_iteration()
    text = booster.model_to_string(num_iteration=trees)
    return Baseline(text, target.task, target.outputs, trees, time.perf_counter() - begin)


def _labelled(examples: Examples) -> tuple[Features, Targets]:
    known = ~np.isnan(examples.target)
    return examples.features.rows(known), examples.target[known]


def matrix(features: Features) -> npt.NDArray[np.float32]:
    """Return numbers and ids side by side (n, N + C); ids, at most a million, are exact in float32."""
    return np.concatenate([features.number, features.category.astype(np.float32)], axis=1)
