"""What would trees reach? LightGBM on the same features, so that the network has to earn its place.

Ke et al., "LightGBM: A Highly Efficient Gradient Boosting Decision Tree", NeurIPS 2017. The model is kept
as LightGBM's own text, never pickled.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import lightgbm
import numpy as np
import numpy.typing as npt

from app.data.encode import Examples
from app.data.features import FeaturePlan, TargetColumn, TaskType
from app.model.admission import MAX_DEPTH
from app.spec import Spec
from app.training.class_weights import class_weights, count_classes, shift_of
from app.training.resources import cpu_count
from app.types import Features, Scores, Targets, UserError

EVERY = 50
"""Rounds between two lines of the history."""

OnRounds = Callable[[dict[str, float]], None]

_SETTINGS = {
    "bagging_freq": 1,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
    "max_depth": MAX_DEPTH,
}


@dataclass(frozen=True)
class Baseline:
    """Boosted trees: `model` is LightGBM's text form, from which the same scores can be had anywhere.

    `shift` (outputs,) takes the class weights out of the raw scores again. `history` has a line every 50 rounds.
    """

    model: str
    task: TaskType
    outputs: int
    trees: int
    seconds: float
    shift: tuple[float, ...] = (0.0,)
    history: list[dict[str, float]] = field(default_factory=list)

    def score(self, features: Features) -> Scores:
        """Return the scores: binary and regression (n,), multiclass (n, K)."""
        shape = (len(features.number), self.outputs) if self.task == "multiclass" else (len(features.number),)
        if len(features.number) == 0:
            return np.empty(shape, np.float32)
        raw = self._booster.predict(matrix(features), raw_score=True)
        raw = np.asarray(raw).reshape(shape) + np.array(self.shift)
        if self.task == "binary":
            raw = 1 / (1 + np.exp(-raw))
        elif self.task == "multiclass":
            raw = np.exp(raw - raw.max(axis=1, keepdims=True))
            raw /= raw.sum(axis=1, keepdims=True)
        return np.asarray(raw, np.float32)

    @cached_property
    def _booster(self) -> lightgbm.Booster:
        return lightgbm.Booster(model_str=self.model)


def train_baseline(
    train: Examples,
    validation: Examples,
    plan: FeaturePlan,
    spec: Spec,
    threads: int = 0,
    on_rounds: OnRounds | None = None,
) -> Baseline:
    """Boost trees as `model.trees` says until `validation` gets no better, and keep the best round.

    A missing number stays NaN, which trees send the better way; category ids are split as sets. The loss is the
    target's; rows weigh as `train.class_weights` says. `threads`: all CPUs that this process may use, unless told.
    `on_rounds` gets each new line of the history; what it raises ends the training. Losses in the history are as a
    network's: a regression's are in units of the standardised target.

    Raises UserError where a part has no labelled row, and for weights of classes that there are not.
    """
    begin = time.perf_counter()
    target, declared, history = plan.target, spec.model.trees, []
    unit = {"log": 1.0, "squared": target.std**2}.get(target.loss, target.std)
    features, labels = _labelled(train, "training")
    weights = np.ones(target.outputs)
    if target.task != "regression":
        weights = class_weights(spec.train, target, count_classes(target, labels))
    settings = _SETTINGS | {
        **objective(target),
        "learning_rate": declared.learning_rate,
        "num_leaves": declared.leaves,
        "min_data_in_leaf": declared.leaf_rows,
        "feature_fraction": declared.feature_fraction,
        "bagging_fraction": declared.row_fraction,
        "lambda_l2": declared.l2,
        "seed": spec.train.seed,
        "num_threads": threads or cpu_count(),
    }

    def tell(state: lightgbm.callback.CallbackEnv) -> None:
        if (state.iteration + 1) % EVERY == 0:
            loss = float(state.evaluation_result_list[0][2]) / unit
            rounds = state.iteration + 1
            history.append({"epoch": rounds / EVERY, "rounds": rounds, "validation_loss": loss})
            if on_rounds is not None:
                on_rounds(history[-1])

    fitted = _dataset(features, labels, weights, plan, settings)
    held_out = _dataset(*_labelled(validation, "validation"), weights, plan, settings, fitted)
    booster = lightgbm.train(
        settings,
        fitted,
        num_boost_round=declared.rounds,
        valid_sets=[held_out],
        callbacks=[tell, lightgbm.early_stopping(declared.patience, verbose=False)],
    )
    trees = booster.best_iteration or booster.current_iteration()
    text = booster.model_to_string(num_iteration=trees)
    shift = tuple(shift_of(target, weights).tolist()) if target.task != "regression" else (0.0,)
    return Baseline(text, target.task, target.outputs, trees, time.perf_counter() - begin, shift, history)


def objective(target: TargetColumn) -> dict[str, str | int | float]:
    """Return LightGBM's settings that make trees learn what the target's loss asks for."""
    if target.task == "multiclass":
        return {"objective": "multiclass", "num_class": target.outputs}
    if target.loss == "absolute":
        return {"objective": "regression_l1"}
    if target.loss == "quantile":
        return {"objective": "quantile", "alpha": target.quantile}
    return {"objective": target.task}


def _dataset(
    features: Features,
    labels: Targets,
    weights: npt.NDArray[np.float64],
    plan: FeaturePlan,
    settings: Mapping[str, object],
    reference: lightgbm.Dataset | None = None,
) -> lightgbm.Dataset:
    names = list(plan.names)
    return lightgbm.Dataset(
        matrix(features),
        labels,
        weight=None if (weights == 1).all() else weights[labels.astype(np.int64)],
        reference=reference,
        feature_name=[f"f{i}" for i in range(len(names))],  # a user's names may hold what its text form cannot
        categorical_feature=list(range(len(plan.number), len(names))),
        params=dict(settings),
    )


def _labelled(examples: Examples, part: str) -> tuple[Features, Targets]:
    known = ~np.isnan(examples.target)
    if not known.any():
        raise UserError(f"there are no labelled {part} rows; see data.split and the counts of rejected rows")
    return examples.features.rows(known), examples.target[known]


def matrix(features: Features) -> npt.NDArray[np.float32]:
    """Return numbers and ids side by side (n, N + C); ids, at most a million, are exact in float32."""
    return np.concatenate([features.number, features.category.astype(np.float32)], axis=1)
