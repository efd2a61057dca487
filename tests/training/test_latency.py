"""The measured latency is that of single rows, and a busy moment does not count against the model."""

import itertools

import numpy as np
import pytest

from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.training.latency import measure_latency
from app.types import Features, Scores

PLAN = FeaturePlan(
    number=(NumberColumn("distance", mean=3.0), NumberColumn("speed")),
    category=(CategoryColumn("carrier", "string", ("UA",)), CategoryColumn("plane", "string", ())),
    target=TargetColumn("late", "binary", (0, 1)),
)


class Recorder:
    """Stands in for a runtime: keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Features] = []

    def score(self, features: Features) -> Scores:
        self.asked.append(features)
        return np.zeros(len(features.number), np.float32)


def test_every_call_scores_one_plausible_row():
    runtime = Recorder()
    measure_latency(runtime, PLAN)
    assert len(runtime.asked) > 200
    for features in runtime.asked:
        assert features.number.tolist() == [[3.0, 0.0]]
        assert features.category.tolist() == [[2, 0]]


def test_one_busy_round_is_not_held_against_the_model():
    seconds = itertools.chain([5.0] * 200, itertools.repeat(0.002))
    moment = 0.0

    def clock() -> float:
        nonlocal moment, began
        if began:
            moment += next(seconds)
        began = not began
        return moment

    began = False
    assert measure_latency(Recorder(), PLAN, clock) == pytest.approx({"p50": 0.002, "p99": 0.002})
