"""Importance finds the features that count, and only those."""

import numpy as np

from app.model.importance import permutation_importance
from app.types import Features


def test_only_what_the_score_uses_is_important(make_plan, make_features) -> None:
    plan = make_plan("regression")
    features = make_features(plan, 400)
    kept = Features(features.number.copy(), features.category.copy())

    def score(rows: Features):
        return np.nan_to_num(rows.number[:, 1]) + 3.0 * rows.category[:, 0]

    target = score(features).astype(np.float32)
    target[:10] = np.nan
    found = permutation_importance(score, lambda s, t: float(np.mean((s - t) ** 2)), plan, features, target, rows=300)
    assert list(found) == list(plan.names)
    assert {name for name, rise in found.items() if rise > 0} == {"n1", "c0"}
    np.testing.assert_array_equal(features.number, kept.number)
    np.testing.assert_array_equal(features.category, kept.category)


def test_no_labels_no_importance(make_plan, make_features) -> None:
    plan = make_plan()
    none = np.full(5, np.nan, np.float32)
    assert permutation_importance(lambda f: none, lambda s, t: 0.0, plan, make_features(plan, 5), none) == {}
