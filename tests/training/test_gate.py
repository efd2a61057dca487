"""What the gate promises: it is never fooled by chance, says why it refuses, and sees the slice that suffers."""

import datetime as dt
import json
import math
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.data.features import TargetColumn
from app.data.loss import row_loss
from app.spec import Gate, Spec
from app.training.bootstrap import blocks_of_days, blocks_of_rows, intervals
from app.training.gate import Candidate, Opponent, Verdict, judge

DAY = 86_400_000
LATE = TargetColumn("late", "binary", (False, True))
KIND = TargetColumn("kind", "multiclass", ("a", "b", "c"))
PRICE = TargetColumn("price", "regression")


def spec(**gate) -> Spec:
    return Spec(
        name="gate",
        task={"target": "y"},
        data={"source": "x.csv"},
        gate=Gate(**{"resamples": 500, "min_rows": 100} | gate),
    )


class Stream:
    """Rows of `days` days with a true probability each, and scores of any sharpness."""

    def __init__(self, rows: int = 6000, days: int = 30, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        self.time = np.sort(self.generator.integers(0, days * DAY, rows)) + 15_000 * DAY
        self.logit = self.generator.normal(-0.5, 1.2, rows)
        self.target = (self.generator.random(rows) < _sigmoid(self.logit)).astype(np.float32)

    def scores(self, noise: float) -> np.ndarray:
        return _sigmoid(self.logit + self.generator.normal(0, noise, len(self.logit))).astype(np.float32)


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))


def trial(
    challenger, against, stream, role="champion", latency=0.001, megabytes=1.0, smaller=False, **more
) -> Verdict:
    opponent = Opponent(role, against) if against is not None else None
    candidate = Candidate(challenger, latency, megabytes, smaller)
    arguments = {"spec": spec(), "target": LATE, "time": stream.time, "labels": stream.target} | more
    return judge(challenger=candidate, against=opponent, **arguments)


def refusals(verdict: Verdict) -> str:
    return "\n".join(reason for reason in verdict.reasons if reason.startswith("refused: "))


def test_a_clearly_better_challenger_passes_and_says_by_how_much_on_what():
    stream = Stream()
    verdict = trial(stream.scores(0.1), stream.scores(0.8), stream)
    overall = verdict.figures["overall"]
    assert verdict.passed
    assert overall["difference"] < overall["high"] < 0
    assert verdict.reasons[0] == (
        f"better than the champion by {-overall['difference']:.3f} log-loss, 95 % interval "
        f"{-overall['high']:.3f} to {-overall['low']:.3f}, on 6,000 rows of 30 days"
    )
    assert json.loads(json.dumps(verdict.figures, allow_nan=False)) == verdict.figures


@given(seed=st.integers(0, 1000), timed=st.booleans(), role=st.sampled_from(["champion", "baseline"]))
@settings(max_examples=20, deadline=None)
def test_an_identical_model_is_never_better_but_holds_against_the_baseline(seed, timed, role):
    stream = Stream(rows=1000, seed=seed)
    scores = stream.scores(0.3)
    verdict = trial(scores, scores, stream, role=role, time=stream.time if timed else np.empty(0, np.int64))
    assert verdict.passed is (role == "baseline")
    assert verdict.figures["overall"]["low"] == verdict.figures["overall"]["high"] == 0


@pytest.mark.parametrize(("days", "dependence"), [(14, 0.3), (15, 0.2), (28, 0.5), (90, 0.5)])
def test_equal_models_pass_no_more_often_than_the_confidence_allows_though_days_resemble_each_other(days, dependence):
    """A/A: the difference of two equally good models drifts from day to day as an AR(1)."""
    runs, confidence = 300, 0.95
    generator = np.random.default_rng(days)
    day_effect = np.zeros((runs, days + 50))
    for day in range(1, days + 50):
        shock = generator.normal(0, math.sqrt(1 - dependence**2), runs)
        day_effect[:, day] = dependence * day_effect[:, day - 1] + shock
    blocks = blocks_of_days(np.arange(days, dtype=np.int64) * DAY)
    passed = 0
    for run in range(runs):
        rows = generator.integers(50, 200, days).astype(np.float64)
        sums = rows * 0.05 * day_effect[run, 50:] + np.sqrt(rows) * generator.normal(0, 0.3, days)
        by_block = [np.bincount(blocks.of_row, value)[:, None] for value in (sums, rows)]
        passed += intervals(*by_block, confidence, 300, seed=run).high[0] < 0
    assert passed <= runs * (1 - confidence) + 3 * math.sqrt(runs * confidence * (1 - confidence))


@given(seed=st.integers(0, 1000), timed=st.booleans())
@settings(max_examples=20, deadline=None)
def test_swapping_the_two_models_mirrors_the_interval(seed, timed):
    stream = Stream(rows=1000, seed=seed)
    one, other = stream.scores(0.2), stream.scores(0.4)
    time = stream.time if timed else np.empty(0, np.int64)
    ab = trial(one, other, stream, time=time).figures["overall"]
    ba = trial(other, one, stream, time=time).figures["overall"]
    assert (ab["low"], ab["high"], ab["difference"]) == pytest.approx((-ba["high"], -ba["low"], -ba["difference"]))


@given(seed=st.integers(0, 1000), timed=st.booleans())
@settings(max_examples=20, deadline=None)
def test_the_order_of_rows_changes_nothing(seed, timed):
    stream = Stream(rows=1000, seed=seed)
    time = stream.time if timed else np.empty(0, np.int64)
    arrays = {"a": stream.scores(0.2), "b": stream.scores(0.4), "y": stream.target, "p": np.arange(1000)}
    slices = pa.table({"side": (stream.logit > 0).astype(int)})

    def figures(order: np.ndarray) -> dict:
        a, b, y, p = (arrays[name][order] for name in "abyp")
        when = time[order] if timed else time
        sides = {"slices": slices.take(order), "spec": spec(slices=["side"])}
        return trial(a, b, stream, labels=y, time=when, position=p, **sides).figures

    straight, shuffled = figures(np.arange(1000)), figures(stream.generator.permutation(1000))
    assert shuffled["overall"] == pytest.approx(straight["overall"])
    for one, other in zip(shuffled["slices"], straight["slices"], strict=True):
        assert one == pytest.approx(other)


def test_a_model_with_its_weights_zeroed_is_refused_with_both_reasons():
    stream = Stream()
    verdict = trial(np.full(6000, 0.5, np.float32), stream.scores(0.3), stream)
    assert not verdict.passed
    assert "not proven better than the champion: worse than the champion by" in refusals(verdict)
    assert "not better than the best constant prediction: worse than" in refusals(verdict)


def test_the_best_constant_prediction_is_refused_even_where_it_has_no_opponent():
    stream = Stream()
    verdict = trial(np.full(6000, stream.target.mean(), np.float32), None, stream)
    assert not verdict.passed
    assert trial(stream.scores(0.3), None, stream).passed


@pytest.mark.parametrize(("noise", "passed"), [(0.0, True), (0.41, True), (1.5, False)])
def test_against_the_baseline_a_little_worse_is_allowed_and_much_worse_is_not(noise, passed):
    stream = Stream(rows=20_000)
    verdict = trial(stream.scores(noise), stream.scores(0.4), stream, role="baseline")
    assert verdict.passed is passed, verdict.reasons


def test_a_slice_that_suffers_stops_a_model_that_is_better_overall():
    stream = Stream(rows=20_000)
    small = stream.generator.random(20_000) < 0.1
    challenger = np.where(small, stream.scores(1.5), stream.scores(0.0))
    champion = stream.scores(0.7)
    carriers = pa.table({"carrier": pa.array(np.where(small, "small", "large"))})
    blind = trial(challenger, champion, stream)
    seeing = trial(challenger, champion, stream, slices=carriers, spec=spec(slices=["carrier"]))
    assert blind.passed
    assert not seeing.passed
    assert refusals(seeing).startswith("refused: worse than the champion on carrier=small by ")
    assert refusals(seeing).count("\n") == 0


def test_many_slices_of_an_equal_model_raise_no_more_alarms_than_one():
    alarms = 0
    for seed in range(40):
        stream = Stream(rows=4000, seed=seed)
        group = pa.table({"group": stream.generator.integers(0, 20, 4000)})
        judged = spec(slices=["group"], margin=0.0)
        alarms += "group=" in refusals(
            trial(stream.scores(0.3), stream.scores(0.3), stream, slices=group, spec=judged)
        )
    assert alarms <= 6  # at 5 % at most 2 are expected; each slice for itself would raise some 16


def test_rare_values_are_judged_together_and_too_few_rows_are_named():
    stream = Stream(rows=4000)
    value = np.full(4000, "common", dtype=object)
    value[::10] = [f"rare {i % 40}" for i in range(400)]
    value[5::400] = None
    verdict = trial(
        stream.scores(0.1),
        stream.scores(0.8),
        stream,
        slices=pa.table({"where": pa.array(value), "all": pa.array(["same"] * 3999 + ["once"])}),
        spec=spec(slices=["where", "all"]),
    )
    rows = {one["group"]: one["rows"] for one in verdict.figures["slices"]}
    assert rows == {"where=(other)": 410, "where=common": 3590, "all=(other)": 1, "all=same": 3999}
    assert [one["group"] for one in verdict.figures["slices"] if one["low"] is None] == ["all=(other)"]
    assert "all=(other) has too few rows (1) or days to be judged" in verdict.reasons


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"challenger": lambda s: np.where(s > 0.7, np.nan, s)}, "of the challenger's scores are not finite"),
        ({"challenger": lambda s: np.where(s > 0.7, np.inf, s)}, "of the challenger's scores are not finite"),
        ({"champion": lambda s: np.where(s > 0.7, np.nan, s)}, "of the champion's scores are not finite"),
        ({"challenger": lambda s: s * 2}, "allowed are 0 to 1"),
        ({"challenger": lambda s: s - 0.5}, "allowed are 0 to 1"),
        ({"challenger": lambda s: s[:-1]}, "scores have the shape (5999,) for 6000 rows"),
        ({"challenger": lambda s: s[:, None]}, "scores have the shape (6000, 1) for 6000 rows"),
        ({"labels": lambda y: np.full_like(y, np.nan)}, "0 labelled rows, at least 100 are needed"),
        ({"labels": lambda y: np.where(np.arange(6000) < 99, y, np.nan)}, "99 labelled rows, at least 100"),
        ({"labels": np.zeros_like}, "all 6,000 labels are of one class, 0"),
        ({"time": lambda t: t % (4 * DAY)}, "labelled rows of 4 days, at least 5 are needed"),
        ({"time": lambda t: t[:7]}, "7 values of time for 6000 rows"),
        ({"position": lambda p: p[:7]}, "7 values of position for 6000 rows"),
    ],
)
def test_evidence_that_proves_nothing_is_refused_with_the_reason(change, message):
    stream = Stream()
    parts = {
        "challenger": stream.scores(0.1),
        "champion": stream.scores(0.8),
        "labels": stream.target,
        "time": stream.time // DAY * DAY,
        "position": np.arange(6000),
    }
    (name, spoil), *_ = change.items()
    parts[name] = spoil(parts[name])
    if not np.issubdtype(parts[name].dtype, np.integer):
        parts[name] = parts[name].astype(np.float32)
    verdict = trial(parts.pop("challenger"), parts.pop("champion"), stream, **parts)
    assert not verdict.passed
    assert message in refusals(verdict)


def test_a_confidence_that_so_few_days_cannot_give_proves_nothing():
    stream = Stream(days=5)
    verdict = trial(stream.scores(0.1), stream.scores(0.8), stream, spec=spec(confidence=0.9999, resamples=5000))
    assert not verdict.passed
    assert "99.99 % interval -inf to inf" in refusals(verdict)
    assert json.loads(json.dumps(verdict.figures, allow_nan=False))["overall"]["low"] is None


def test_slices_that_do_not_fit_are_refused():
    stream = Stream()
    good = stream.scores(0.1), stream.scores(0.8), stream
    wanted = spec(slices=["carrier"])
    missing = trial(*good, spec=wanted)
    other = trial(*good, spec=wanted, slices=pa.table({"origin": ["EWR"] * 6000}))
    short = trial(*good, spec=wanted, slices=pa.table({"carrier": ["UA"] * 10}))
    assert "no columns were given for the declared slices ['carrier']" in refusals(missing)
    assert "the declared slice 'carrier' is not among the columns ['origin']" in refusals(other)
    assert "10 rows of slices for 6000 rows" in refusals(short)


def test_where_no_slice_is_declared_a_table_without_columns_is_no_fault():
    stream = Stream()
    assert trial(stream.scores(0.1), stream.scores(0.8), stream, slices=pa.table({})).passed


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ({"latency": 0.031}, "refused: 99 % of single predictions take up to 31 ms, allowed 20 ms"),
        ({"latency": math.nan}, "refused: 99 % of single predictions take up to nan ms, allowed 20 ms"),
        ({"megabytes": 123.0}, "refused: the bundle has 123 MB, allowed 100 MB"),
    ],
)
def test_a_slow_or_large_challenger_is_refused_however_good(limit, message):
    stream = Stream()
    verdict = trial(
        stream.scores(0.1), stream.scores(0.8), stream, spec=spec(max_latency=dt.timedelta(seconds=0.02)), **limit
    )
    assert not verdict.passed
    assert refusals(verdict) == message


def test_multiclass_and_regression_are_judged_by_their_own_loss():
    stream = Stream()
    generator = stream.generator
    classes = generator.integers(0, 3, 6000)
    sure = np.full((6000, 3), 0.1, np.float32)
    sure[np.arange(6000), classes] = 0.8
    unsure = np.full((6000, 3), 1 / 3, np.float32)
    labels = classes.astype(np.float32)
    assert trial(sure, unsure, stream, target=KIND, labels=labels).passed
    assert "log-loss" in trial(unsure, sure, stream, target=KIND, labels=labels).reasons[0]
    assert "do not add up to 1" in refusals(trial(sure / 2, unsure, stream, target=KIND, labels=labels))
    assert "knows 2 classes" in refusals(trial(unsure[:, :2] * 1.5, unsure, stream, target=KIND, labels=labels))

    value = generator.normal(100, 20, 6000).astype(np.float32)
    near, far = (value + generator.normal(0, spread, 6000).astype(np.float32) for spread in (2, 10))
    losses = {"squared": "squared error", "absolute": "absolute error", "quantile": "pinball loss"}
    for loss, words in losses.items():
        price = replace(PRICE, regression_loss=loss, quantile=0.9)
        verdict = trial(near, far, stream, target=price, labels=value)
        assert verdict.passed
        assert words in verdict.reasons[0]
        assert verdict.figures["overall"]["challenger"] == pytest.approx(row_loss(price, near, value).mean())


@pytest.mark.parametrize(("loss", "quantile"), [("squared", 0.5), ("absolute", 0.5), ("quantile", 0.9)])
def test_the_constant_that_the_loss_asks_for_is_beaten_by_no_other_constant(loss, quantile):
    """Of skewed values the mean, the median and the quantile are three different answers."""
    stream = Stream()
    price = replace(PRICE, regression_loss=loss, quantile=quantile)
    value = stream.generator.exponential(10, 6000).astype(np.float32)
    best = {"squared": value.mean(), "absolute": np.median(value), "quantile": np.quantile(value, 0.9)}[loss]
    for constant in (best, value.mean(), np.median(value), np.quantile(value, 0.9)):
        verdict = trial(np.full_like(value, constant), None, stream, target=price, labels=value)
        assert "not proven better than the best constant prediction" in refusals(verdict)
        assert (verdict.figures["prior"]["difference"] < 1e-4) is bool(constant == best)


def test_without_a_time_rows_are_drawn_in_blocks_that_depend_on_the_row_alone():
    blocks = blocks_of_rows(np.arange(10_000))
    again = blocks_of_rows(np.arange(10_000)[::-1])
    assert (blocks.of_row == again.of_row[::-1]).all()
    assert blocks.number == 100
    assert np.bincount(blocks.of_row).min() > 50


def test_a_day_more_never_leaves_few_blocks():
    """A window of 14 days begins and ends within a day, so it touches 15: that must not cost the verdict."""
    for days in range(5, 120):
        assert blocks_of_days(np.arange(days, dtype=np.int64) * DAY).number >= min(days, 7)


def test_blocks_hold_consecutive_days_and_days_are_utc():
    time = np.array([-1, 0, DAY - 1, DAY, *(np.arange(2, 29) * DAY)])
    blocks = blocks_of_days(time)
    assert (blocks.days, blocks.number) == (30, 8)
    assert blocks.of_row[1] == blocks.of_row[2]
    assert (np.diff(blocks.of_row) >= 0).all()
