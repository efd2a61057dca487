"""Every label finds its prediction whichever came first, the first one counts, and nothing waits for ever."""

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data.features import TargetColumn
from app.journal.rows import FIXED, MOMENT
from app.monitor import outcomes
from app.monitor.outcomes import Outcomes, losses

HOUR = 3_600_000
LATE = TargetColumn("late", "binary", (False, True))
KIND = TargetColumn("kind", "multiclass", ("a", "b", "c"))
NOTHING = FIXED["predictions"].empty_table(), FIXED["labels"].empty_table()


def _predictions(ids, event=0, score=0.25, shadow=None) -> pa.Table:
    size = len(ids)
    schema = FIXED["predictions"]
    score = [score] * size
    if size and isinstance(score[0], list):
        for name in ("score", "shadow_score"):
            schema = schema.set(schema.get_field_index(name), pa.field(name, pa.list_(pa.float32())))
    moments = pa.array([event] * size).cast(MOMENT)
    columns = {"id": ids, "event": moments, "arrival": moments, "version": ["1"] * size, "role": ["champion"] * size}
    columns |= {"score": score, "shadow_version": ["2" if shadow is not None else None] * size}
    columns |= {"shadow_score": [shadow] * size, "features": [{}] * size}
    return pa.Table.from_pydict(columns, schema)


def _labels(ids, label=True, event=HOUR, arrival=None) -> pa.Table:
    size = len(ids)
    moments = [pa.array([at] * size).cast(MOMENT) for at in (event, event if arrival is None else arrival)]
    return pa.table(
        {
            "id": pa.array(ids, pa.string()),
            "label": pa.array([label] * size),
            "event": moments[0],
            "arrival": moments[1],
        }
    )


@given(
    order=st.permutations(range(12)),
    cuts=st.lists(st.integers(0, 12), min_size=2, max_size=4),
    seed=st.integers(0, 3),
)
def test_labels_and_predictions_meet_in_any_order(order, cuts, seed) -> None:
    pieces = [list(order)[a:b] for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 12], strict=True)]
    waiting, found = Outcomes(HOUR), []
    for piece in pieces:  # 0-5 are predictions, 6-11 their labels
        mine = [f"{i}" for i in piece if i < 6]
        theirs = [f"{i - 6}" for i in piece if i >= 6]
        joined = waiting.join(_predictions(mine), _labels(theirs), 0)
        found += [] if joined.is_empty() else joined["id"].to_list()
    assert sorted(found) == [f"{i}" for i in range(6)]
    assert (waiting.tally.joined, waiting.tally.duplicates, waiting.tally.unmatched) == (6, 0, 0)
    assert waiting.predictions.is_empty()
    assert waiting.labels.is_empty()


def test_the_first_label_counts_and_the_second_is_a_duplicate() -> None:
    waiting = Outcomes(10 * HOUR)
    first = waiting.join(_predictions(["a"]), pa.concat_tables([_labels(["a"]), _labels(["a"], label=False)]), 0)
    assert first["label"].to_list() == [True]
    assert waiting.join(NOTHING[0], _labels(["a"], label=False), HOUR).is_empty()
    assert waiting.tally.duplicates == 2


def test_what_waits_too_long_is_given_up_and_its_label_is_late() -> None:
    waiting = Outcomes(10 * HOUR)
    waiting.join(_predictions(["a", "b"]), _labels(["unknown"]), 0)
    waiting.join(NOTHING[0], _labels(["b"]), 5 * HOUR)
    assert waiting.coverage == 1.0
    waiting.join(*NOTHING, 11 * HOUR)
    assert (waiting.tally.expired, waiting.tally.unmatched) == (1, 1)
    assert waiting.coverage == 0.5
    waiting.join(NOTHING[0], _labels(["a"]), 12 * HOUR)
    assert (waiting.tally.late, waiting.tally.joined) == (1, 1)
    waiting.join(*NOTHING, 40 * HOUR)
    assert waiting.settled.is_empty()


def test_an_id_that_comes_again_is_not_joined_again() -> None:
    waiting = Outcomes(10 * HOUR)
    waiting.join(_predictions(["a", "a", "b"]), _labels(["b"]), 0)
    waiting.join(_predictions(["a", "b"]), NOTHING[1], 0)
    assert (waiting.tally.predictions, waiting.tally.repeated, len(waiting.predictions)) == (5, 3, 1)


def test_memory_is_bounded_and_the_oldest_go_first(monkeypatch) -> None:
    monkeypatch.setattr(outcomes, "MOST", 3)
    waiting = Outcomes(10 * HOUR)
    for i in range(5):
        waiting.join(_predictions([str(i)]), NOTHING[1], i)
    assert waiting.predictions["id"].to_list() == ["2", "3", "4"]
    assert waiting.tally.expired == 2


def test_the_delay_is_that_of_the_label_s_own_time_where_it_was_sent() -> None:
    waiting = Outcomes(10 * HOUR)
    waiting.join(_predictions(["a"]), _labels(["a"], event=2 * HOUR, arrival=9 * HOUR), 0)
    waiting.join(_predictions(["b"]), _labels(["b"], event=9 * HOUR), 0)
    assert waiting.delays.tolist() == [7200, 32400]
    assert waiting.usual_delay == pytest.approx(29880)


def test_losses_of_answer_and_shadow_and_none_for_labels_that_say_nothing() -> None:
    labels = pa.concat_tables(
        [
            _labels(["a", "b"]),
            pa.table(
                {
                    **dict(zip(["id", "label", "event", "arrival"], _labels(["c"]).columns, strict=True)),
                    "label": pa.array([None], pa.bool_()),
                }
            ),
        ]
    )
    joined = Outcomes(HOUR).join(_predictions(["a", "b", "c"], score=0.25, shadow=0.5), labels, 0)
    known = losses(joined, lambda version: LATE)
    assert known["loss"].to_list() == [pytest.approx(-np.log(0.25)), pytest.approx(-np.log(0.25)), None]
    assert known["shadow_loss"].to_list() == [pytest.approx(-np.log(0.5))] * 2 + [None]
    assert known["difference"].to_list() == [pytest.approx(np.log(2))] * 2 + [None]


def test_losses_of_different_kinds_are_not_compared() -> None:
    labels = pa.concat_tables([_labels(["a"], label=10.0), _labels(["b"], label=1.0)])
    joined = Outcomes(HOUR).join(_predictions(["a", "b"], score=8.0, shadow=5.0), labels, 0)
    kinds = [("squared", 0.5), ("absolute", 0.5), ("quantile", 0.75), ("quantile", 0.9)]
    one, *others = (TargetColumn("y", "regression", regression_loss=loss, quantile=q) for loss, q in kinds)
    alike = losses(joined, lambda version: one)
    assert alike["loss"].to_list() == [4.0, 49.0]
    assert alike["difference"].to_list() == [4.0 - 25.0, 49.0 - 16.0]
    for mine, theirs, ours, shadow in [
        (one, others[0], [4.0, 49.0], [5.0, 4.0]),
        (others[0], others[1], [2.0, 7.0], [3.75, 1.0]),
        (others[1], others[2], [1.5, 1.75], [4.5, pytest.approx(0.4)]),
    ]:
        known = losses(joined, {"1": mine, "2": theirs}.__getitem__)
        assert known["loss"].to_list() == ours
        assert known["shadow_loss"].to_list() == shadow
        assert known["difference"].to_list() == [None, None]


def test_losses_of_several_classes_and_none_of_a_class_nobody_declared() -> None:
    labels = pa.concat_tables([_labels(["a"], label="b"), _labels(["b"], label="z")])
    joined = Outcomes(HOUR).join(_predictions(["a", "b"], score=[0.5, 0.25, 0.25]), labels, 0)
    assert losses(joined, lambda version: KIND)["loss"].to_list() == [pytest.approx(-np.log(0.25)), None]


def test_a_score_that_is_not_finite_has_no_loss() -> None:
    joined = Outcomes(HOUR).join(_predictions(["a"], score=float("nan")), _labels(["a"]), 0)
    known = losses(joined, lambda version: LATE)
    assert known["loss"].null_count() == 1
    assert isinstance(known, pl.DataFrame)


@pytest.mark.parametrize("kinds", [(LATE, KIND), (KIND, LATE)])
def test_a_task_that_changed_costs_the_losses_of_rows_that_still_waited_and_no_more(kinds) -> None:
    """A third class, and a version for it that was put up by hand."""
    scores, labels = {"late": 0.25, "kind": [0.25, 0.5, 0.25]}, {"late": True, "kind": "a"}
    waiting, (before, after) = Outcomes(HOUR), (target.name for target in kinds)
    waiting.join(_predictions(["a", "b"], score=scores[before]), NOTHING[1], 0)
    newer = _predictions(["c", "d"], score=scores[after])
    newer = newer.set_column(newer.column_names.index("version"), "version", pa.array(["2", "2"]))
    told = [waiting.join(newer, _labels(["a", "c"], label=labels[after]), 0)]
    told.append(waiting.join(NOTHING[0], _labels(["b", "d"], label=labels[after]), 0))
    for joined in told:
        known = losses(joined, dict(zip("12", kinds, strict=True)).__getitem__)
        assert known["loss"].to_list() == [None, pytest.approx(-np.log(0.25))]


@pytest.mark.parametrize(
    ("target", "score", "label"),
    [
        (LATE, 0.25, True),
        (TargetColumn("late", "binary", (0, 1)), 0.25, 1),
        (TargetColumn("y", "regression"), 0.25, 1.5),
    ],
)
def test_labels_of_another_versions_type_have_no_loss_here_and_do_not_stop_the_fold(target, score, label) -> None:
    waiting = Outcomes(HOUR)
    waiting.join(NOTHING[0], _labels(["a"], label=label), 0)
    waiting.join(NOTHING[0], _labels(["b"], label="yes"), 0)
    joined = waiting.join(_predictions(["a", "b"], score=score), NOTHING[1], 0)
    one, other = losses(joined, lambda version: target)["loss"].to_list()
    assert one > 1
    assert other is None
