"""What each learner reaches on months it has not seen, and how long it takes to get there."""

import time
from collections.abc import Callable
from tempfile import TemporaryDirectory
from typing import TypeAlias

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from app.training.baseline import train_baseline
from app.training.metrics import by_month
from app.training.trainer import train
from app.types import Features, Scores, UserError
from app.workspace import Workspace
from benchmarks.train import automl
from benchmarks.train.rows import Rows

Learner: TypeAlias = Callable[[Rows], tuple[Scores, float]]
"""Learns from `parts` (stopping early on validation) and returns the test scores and the seconds of learning."""

_MONTH_ROWS = 1000  # New York's New Year is in January of the next year by UTC: a few rows are no month


def measure(rows: Rows, autogluon_seconds: int) -> dict[str, dict[str, float] | str]:
    """Return AUC and log-loss (means over the test's months) and seconds by learner, or why one was not run."""
    learners: dict[str, Learner] = {
        "Evertrue": _network,
        "LightGBM (our baseline)": _baseline,
        "scikit-learn HistGradientBoosting": _histogram_boosting,
        f"AutoGluon, {autogluon_seconds} s": lambda rows: automl.learn(rows, autogluon_seconds)[:2],
    }
    found: dict[str, dict[str, float] | str] = {}
    for name, learn in learners.items():
        try:
            scores, seconds = learn(rows)
        except UserError as reason:
            found[name] = f"not run: {reason}"
        else:
            found[name] = over_months(rows, scores) | {"seconds": seconds}
        print(f"{name}: {found[name]}", flush=True)
    return found


def over_months(rows: Rows, scores: Scores) -> dict[str, float]:
    """Return AUC and log-loss of test scores, as means over the months."""
    months = by_month(rows.plan.target, scores, rows.test.target, rows.test.time).values()
    whole = [month for month in months if month["rows"] >= _MONTH_ROWS]
    return {name: float(np.mean([month[name] for month in whole])) for name in ("auc", "log_loss")}


def _network(rows: Rows) -> tuple[Scores, float]:
    with TemporaryDirectory() as folder:
        trained = train(rows.parts, rows.plan, rows.spec, Workspace.open(folder), "benchmark")
    number, category = (torch.from_numpy(matrix) for matrix in rows.test.features)
    return trained.network.score(number, category), trained.seconds


def _baseline(rows: Rows) -> tuple[Scores, float]:
    baseline = train_baseline(*rows.parts, rows.plan, rows.spec)
    return baseline.score(rows.test.features), baseline.seconds


def _histogram_boosting(rows: Rows) -> tuple[Scores, float]:
    train, validation = rows.parts
    categories = [len(rows.plan.number) + i for i, c in enumerate(rows.plan.category) if c.size <= 255]
    learner = HistGradientBoostingClassifier(
        max_iter=1000,
        learning_rate=0.05,
        early_stopping=True,
        n_iter_no_change=20,
        random_state=0,
        categorical_features=categories,
    )
    begin = time.perf_counter()
    learner.fit(_matrix(train.features), train.target, X_val=_matrix(validation.features), y_val=validation.target)
    seconds = time.perf_counter() - begin
    return learner.predict_proba(_matrix(rows.test.features))[:, 1].astype(np.float32), seconds


def _matrix(features: Features) -> np.ndarray:
    return np.concatenate([features.number, features.category.astype(np.float32)], axis=1)
