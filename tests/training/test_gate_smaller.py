"""A smaller version need not be better: only proven not worse than the declared margin, and as fast and small as asked."""

import math

import numpy as np
import pyarrow as pa
import pytest

from app.data.features import TargetColumn
from app.spec import Spec
from app.training.gate import Candidate, Opponent, Verdict, judge

DAY = 86_400_000
MARGIN = 0.01
PRICE = TargetColumn("price", "regression")
AGAINST = [
    ("large", True),
    ("large", False),
    ("champion", True),
]  # role, and whether the candidate is declared smaller


class Stream:
    """Prices of `days` days, and what a large network answers; of another model each day's loss may be told."""

    def __init__(self, rows: int = 3000, days: int = 20, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        self.day = np.sort(self.random.integers(0, days, rows))
        self.time = (15_000 + self.day) * DAY
        self.price = self.random.normal(100, 3, rows).astype(np.float32)
        self.error = self.random.normal(0, 1, rows)
        self.large = self.at(0.0)

    def at(self, worse: float | np.ndarray) -> np.ndarray:
        """Return scores whose loss is that of the large network, and a fraction more: of all rows, or by row."""
        return (self.price - np.sqrt(1 + np.broadcast_to(worse, self.error.shape)) * self.error).astype(np.float32)

    def trial(
        self, scores: np.ndarray, role: str = "large", smaller: bool = True, resamples: int = 400, **gate: object
    ) -> Verdict:
        limits = {name: gate.pop(name) for name in ("latency", "megabytes") if name in gate}
        spec = Spec(
            name="smaller",
            task={"target": "price"},
            data={"source": "x.csv"},
            gate={"resamples": resamples, "min_rows": 100, "max_latency": "1ms", "max_megabytes": 1, **gate},
            compress={"margin": MARGIN},
        )
        candidate = Candidate(scores, **({"latency": 0.0005, "megabytes": 0.5} | limits), smaller=smaller)
        side = pa.table({"side": np.where(self.price > 100, "dear", "cheap")})
        return judge(spec, PRICE, candidate, Opponent(role, self.large), self.price, self.time, side)


def refusals(verdict: Verdict) -> list[str]:
    return [reason for reason in verdict.reasons if reason.startswith("refused: ")]


@pytest.mark.parametrize(("role", "smaller"), AGAINST)
def test_as_good_as_the_larger_one_is_good_enough(role, smaller):
    stream = Stream()
    verdict = stream.trial(stream.large, role, smaller, slices=["side"])
    assert verdict.passed, verdict.reasons
    assert "is allowed" in verdict.reasons[0]
    assert verdict.figures["against"] == role


def test_an_ordinary_challenger_still_has_to_beat_the_champion():
    stream = Stream()
    assert not stream.trial(stream.large, "champion", smaller=False).passed
    assert stream.trial(stream.at(-0.2), "champion", smaller=False).passed


@pytest.mark.parametrize(("role", "smaller"), AGAINST)
def test_worse_by_less_than_the_margin_passes_and_by_more_is_refused(role, smaller):
    stream = Stream()
    assert stream.trial(stream.at(MARGIN / 2), role, smaller).passed
    [reason] = refusals(stream.trial(stream.at(2 * MARGIN), role, smaller))
    name = {"large": "large network", "champion": "champion"}[role]
    assert reason.startswith(f"refused: not proven to stay within the margin: worse than the {name} by 0.02")
    assert "squared error" in reason
    assert "; worse by 0.0101 is allowed" in reason


def test_what_too_few_rows_cannot_prove_is_refused():
    stream = Stream(rows=150)
    noisy = stream.at(stream.random.uniform(-0.9, 0.9, 150))
    assert refusals(stream.trial(noisy))[0].startswith("refused: not proven to stay within the margin")


@pytest.mark.parametrize(("role", "smaller"), AGAINST)
def test_a_network_with_its_weights_zeroed_is_refused_with_both_reasons(role, smaller):
    stream = Stream()
    first, second = refusals(stream.trial(np.full_like(stream.price, 100), role, smaller))
    assert "not proven to stay within the margin: worse than the" in first
    assert "better than the best constant prediction: worse than" in second


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"latency": 0.0012}, "refused: 99 % of single predictions take up to 1.2 ms, allowed 1 ms"),
        ({"megabytes": 1.5}, "refused: the bundle has 1.5 MB, allowed 1 MB"),
    ],
)
def test_a_smaller_version_that_is_slow_or_large_is_refused(limit, message):
    stream = Stream()
    assert refusals(stream.trial(stream.large, **limit)) == [message]


def test_a_slice_that_suffers_is_refused_by_the_wider_of_the_two_margins():
    stream = Stream(rows=20_000)
    dear = stream.price > 100
    turned = stream.at(np.where(dear, 0.08, -0.08))
    assert refusals(stream.trial(turned, slices=["side"], margin=0.1)) == []
    [reason] = refusals(stream.trial(turned, slices=["side"], margin=0.02))
    assert reason.startswith("refused: worse than the large network on side=dear by 0.08")
    assert reason.endswith("proven to be more than the 2 % allowed")
    assert "by over 1 %" in stream.trial(stream.at(0.008), slices=["side"], margin=0.0).reasons[2]


@pytest.mark.parametrize(("days", "dependence"), [(14, 0.3), (28, 0.5)])
def test_of_versions_that_trail_by_just_the_margin_next_to_none_pass(days, dependence):
    """The days' differences drift as an AR(1). In 2,000 runs each 2.1 % of 14 days passed, 3.3 % of 28, 3.7 % of 90."""
    runs, passed = 200, 0
    for seed in range(runs):
        stream = Stream(rows=60 * days, days=days, seed=seed)
        drift = np.zeros(days + 30)
        for day in range(1, days + 30):
            drift[day] = dependence * drift[day - 1] + stream.random.normal(0, math.sqrt(1 - dependence**2))
        by_row = stream.random.normal(0, 0.05, len(stream.price))
        worse = MARGIN + 0.01 * drift[30:][stream.day] + by_row
        passed += not refusals(stream.trial(stream.at(worse), resamples=200))
    assert passed <= 0.05 * runs + 3 * math.sqrt(runs * 0.05 * 0.95)
