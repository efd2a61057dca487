"""Counts add up in any order, bins are the same in any batch, and the reference survives its file."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.data.loss import row_loss
from app.monitor.binning import FIRST, MISSING, OUTSIDE, Edges
from app.monitor.profile import Reference
from app.spec import Drift
from app.types import Features, UserError

HOUR = 3_600_000
TARGETS = {
    "binary": TargetColumn("late", "binary", (False, True)),
    "multiclass": TargetColumn("kind", "multiclass", ("a", "b", "c")),
    "regression": TargetColumn("delay", "regression", mean=10.0, std=2.0),
}


def _examples(task: str, rows: int, seed: int = 0) -> tuple[Examples, np.ndarray]:
    random = np.random.default_rng(seed)
    common = random.normal(size=rows)
    number = np.stack([common, common + 0.3 * random.normal(size=rows), random.poisson(0.3, rows)], axis=1)
    number[random.random(number.shape) < 0.05] = np.nan
    category = np.stack([random.integers(0, 6, rows), random.integers(0, 60, rows)], axis=1)
    target = random.normal(10, 2, rows) if task == "regression" else random.integers(0, 2, rows)
    scores = random.dirichlet([1, 1, 1], rows) if task == "multiclass" else random.random(rows)
    features = Features(number.astype(np.float32), category)
    examples = Examples(features, target.astype(np.float32), np.arange(rows) * HOUR, np.arange(rows))
    return examples, scores.astype(np.float32)


def _plan(task: str, examples: Examples) -> FeaturePlan:
    columns = [column[~np.isnan(column)] for column in examples.features.number.T]
    return FeaturePlan(
        number=tuple(
            NumberColumn(f"n{i}", quantiles=tuple(np.quantile(column, np.linspace(0, 1, 257)).tolist()))
            for i, column in enumerate(columns)
        ),
        category=(
            CategoryColumn("few", "string", tuple("abcd")),
            CategoryColumn("many", "string", tuple(f"v{i}" for i in range(58))),
        ),
        target=TARGETS[task],
        time="time",
    )


def _reference(task: str = "binary", drift: Drift = Drift(), rows: int = 3000) -> Reference:  # noqa: B008 (frozen)
    train, _ = _examples(task, rows)
    validation, scores = _examples(task, 500, seed=1)
    return Reference.of(_plan(task, train), drift, train, validation, scores)


REFERENCE = {task: _reference(task) for task in TARGETS}


@pytest.mark.parametrize("task", TARGETS)
@given(cuts=st.lists(st.integers(0, 200), max_size=5), seed=st.integers(0, 5))
def test_counting_a_whole_is_adding_the_counts_of_its_parts_in_any_order(task, cuts, seed) -> None:
    examples, scores = _examples(task, 200, seed)
    binning = REFERENCE[task].binning
    whole = binning.count(examples.features, scores)
    edges = [0, *sorted(cuts), 200]
    parts = [binning.count(examples.features.rows(slice(a, b)), scores[a:b]) for a, b in pairwise(edges)]
    np.testing.assert_array_equal(sum(parts[::-1], np.zeros_like(whole)), whole)
    np.testing.assert_array_equal(whole.sum(axis=1), 200)
    assert len(whole) == len(binning.watched)


def test_rows_are_binned_alike_alone_and_among_thousands() -> None:
    examples, _ = _examples("binary", 5000)
    binning = REFERENCE["binary"].binning
    together = binning.feature_codes(examples.features)
    alone = [binning.feature_codes(examples.features.rows(slice(i, i + 1))) for i in range(0, 5000, 50)]
    np.testing.assert_array_equal(np.concatenate(alone, axis=1), together[:, ::50])


@given(
    quantiles=st.lists(st.floats(-1e6, 1e6, width=32), max_size=40).map(sorted),
    values=st.lists(st.floats(width=32, allow_infinity=False), min_size=1, max_size=40),
)
def test_a_bin_holds_what_lies_between_its_edges(quantiles, values) -> None:
    edges = Edges.at([np.array(quantiles)], 8)
    array = np.array([values], np.float32)
    for value, code in zip(array[0], edges.codes(array)[0], strict=True):
        if np.isnan(value):
            assert code == MISSING
        elif not quantiles or not quantiles[0] <= value <= quantiles[-1]:
            assert code == OUTSIDE
        else:
            assert code == FIRST + np.searchsorted(edges.inner[0], value, side="right")


def test_a_quantitys_bins_are_even_and_ties_share_one() -> None:
    reference = REFERENCE["binary"]
    counts = reference.counts.sum(axis=0)
    even = counts[0, FIRST:]
    assert even.sum() + counts[0, MISSING] == 3000
    assert even.min() > 0.7 * even.mean()
    assert np.count_nonzero(counts[2, FIRST:]) <= 6  # small whole numbers


def test_categories_keep_the_common_and_share_the_rest() -> None:
    binning = REFERENCE["binary"].binning
    ids = np.array([[0, 0], [1, 1], [2, 2], [5, 32], [5, 33], [5, 59]])
    codes = binning.feature_codes(Features(np.zeros((6, 3), np.float32), ids))
    assert codes[3].tolist() == [0, 1, 2, 5, 5, 5]
    assert codes[4].tolist() == [0, 1, 2, 32, 33, 33]
    assert binning.width == 34


def test_components_see_a_change_of_correlation_that_no_number_shows() -> None:
    reference = REFERENCE["binary"]
    examples, scores = _examples("binary", 3000, seed=2)
    number = examples.features.number.copy()
    number[:, 1] = np.random.default_rng(3).permutation(number[:, 1])
    counts = reference.binning.count(Features(number, examples.features.category), scores)

    def moved(kind: str) -> float:
        rows = [i for i, (found, _) in enumerate(reference.binning.watched) if found == kind]
        before = reference.counts.sum(axis=0)[rows] / 3000
        return float(np.abs(counts[rows] / 3000 - before).sum(axis=1).max() / 2)

    assert moved("number") < 0.15
    assert moved("component") > 0.3
    assert moved("distance") > 0.3


@pytest.mark.parametrize(("season", "slots"), [("none", 1), ("hour_of_day", 48), ("hour_of_week", 168)])
def test_rows_are_counted_in_their_season_slot(season, slots) -> None:
    reference = _reference(drift=Drift(season=season))
    assert reference.counts.shape[0] == slots
    saturday_one_o_clock = np.array([2 * 24 * HOUR + HOUR])  # 1970 began on a Thursday
    expected = {"none": 0, "hour_of_day": 25, "hour_of_week": 5 * 24 + 1}[season]
    assert reference.binning.slots(saturday_one_o_clock).tolist() == [expected]
    examples, scores = _examples("binary", 3000)
    at = reference.binning.slots(examples.time) == expected
    features = examples.features.rows(at)
    ours = reference.binning.count(features, scores[at])
    np.testing.assert_array_equal(reference.counts[expected][:5], ours[:5])


def test_without_time_there_is_one_slot() -> None:
    train, _ = _examples("binary", 300)
    train = train._replace(time=np.empty(0, np.int64))
    _, scores = _examples("binary", 300)
    reference = Reference.of(replace(_plan("binary", train), time=None), Drift(), train, train, scores)
    assert reference.counts.shape[0] == 1
    assert reference.counts[0, 0].sum() == 300
    assert not reference.wobble.days.any()  # taken for granted, not learned


@pytest.mark.parametrize("task", TARGETS)
def test_predictions_and_labels_are_counted_on_held_out_rows(task) -> None:
    reference = REFERENCE[task]
    kinds = [kind for kind, _ in reference.binning.watched]
    prediction = reference.counts.sum(axis=0)[kinds.index("prediction")]
    assert prediction.sum() == 500
    np.testing.assert_array_equal(reference.labels.sum(axis=1), prediction)
    assert ("confidence" in kinds) == (task == "multiclass")


@pytest.mark.parametrize("task", TARGETS)
def test_wobble_is_learned_from_hours_whatever_the_order_of_rows(task) -> None:
    train, _ = _examples(task, 2400)
    validation, scores = _examples(task, 480, seed=1)
    validation = validation._replace(time=validation.time + 2400 * HOUR)
    expected = Reference.of(_plan(task, train), Drift(components=0), train, validation, scores)
    mixed = np.random.default_rng(0).permutation(2400)
    shuffled = Examples(train.features.rows(mixed), *(part[mixed] for part in train[1:]))
    found = Reference.of(_plan(task, train), Drift(components=0), shuffled, validation, scores)
    assert (expected.wobble.days > 3).all()
    assert len(expected.wobble.day) == len(expected.directions)
    for ours, theirs in zip(found.wobble, expected.wobble, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)
    known = row_loss(TARGETS[task], scores, validation.target)
    assert expected.losses[:3] == pytest.approx((known.mean(), known.std(), known.max()))


def test_rows_without_a_label_meet_none() -> None:
    examples, scores = _examples("binary", 100)
    target = examples.target.copy()
    target[:40] = np.nan
    assert REFERENCE["binary"].binning.count_labels(scores, target).sum() == 60


def test_the_unseen_rate_comes_from_validation_and_is_never_zero() -> None:
    train, _ = _examples("binary", 100)
    validation, scores = _examples("binary", 100)
    category = validation.features.category.copy()
    category[:, 0] = 2
    category[:, 1] = np.where(np.arange(100) < 25, OUTSIDE, 2)
    validation = validation._replace(features=Features(validation.features.number, category))
    reference = Reference.of(_plan("binary", train), Drift(), train, validation, scores)
    np.testing.assert_allclose(reference.unseen, [0.5 / 101, 25.5 / 101])


@pytest.mark.parametrize("task", TARGETS)
@pytest.mark.parametrize("components", [0, 20])
def test_the_file_gives_back_the_reference(task, components) -> None:
    reference = _reference(task, Drift(components=components, bins=16), rows=400)
    data = reference.to_bytes()
    again = Reference.from_bytes(data)
    assert again.binning.watched == reference.binning.watched
    assert again.to_bytes() == data
    examples, scores = _examples(task, 200, seed=7)
    np.testing.assert_array_equal(
        again.binning.count(examples.features, scores), reference.binning.count(examples.features, scores)
    )
    np.testing.assert_array_equal(again.labels, reference.labels)
    np.testing.assert_array_equal(again.unseen, reference.unseen)
    for ours, theirs in zip(again.wobble, reference.wobble, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert again.losses[:4] == reference.losses[:4]
    np.testing.assert_array_equal(again.losses.season, reference.losses.season)
    assert again.losses.wobble == reference.losses.wobble


def test_a_file_of_another_format_is_refused() -> None:
    sink = pa.BufferOutputStream()
    table = pa.table({"counts": [1]})
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(UserError, match="found format None, allowed 2"):
        Reference.from_bytes(sink.getvalue().to_pybytes())


@pytest.mark.parametrize(("numbers", "categories"), [(0, 2), (3, 0), (1, 0)])
def test_any_mix_of_features_has_a_reference(numbers, categories) -> None:
    train, scores = _examples("binary", 200)
    plan = _plan("binary", train)
    plan = replace(plan, number=plan.number[:numbers], category=plan.category[:categories])
    features = Features(train.features.number[:, :numbers], train.features.category[:, :categories])
    train = train._replace(features=features)
    reference = Reference.from_bytes(Reference.of(plan, Drift(), train, train, scores).to_bytes())
    np.testing.assert_array_equal(reference.binning.count(features, scores), reference.counts.sum(axis=0))


def test_an_empty_column_is_missing_until_it_is_not() -> None:
    train, scores = _examples("binary", 200)
    number = train.features.number.copy()
    number[:, 0] = np.nan
    train = train._replace(features=Features(number, train.features.category))
    plan = _plan("binary", _examples("binary", 200)[0])
    plan = replace(plan, number=(NumberColumn("empty", nulls=1.0), *plan.number[1:]))
    binning = Reference.of(plan, Drift(), train, train, scores).binning
    now = binning.feature_codes(Features(np.zeros((1, 3), np.float32), train.features.category[:1]))
    assert now[0, 0] == OUTSIDE


def test_numbers_that_never_change_have_no_components() -> None:
    train, scores = _examples("binary", 200)
    features = Features(np.ones((200, 3), np.float32), train.features.category)
    plan = _plan("binary", train._replace(features=features))
    reference = Reference.of(plan, Drift(), train._replace(features=features), train, scores)
    assert "component" not in {kind for kind, _ in reference.binning.watched}
    reference.binning.count(features, scores)
