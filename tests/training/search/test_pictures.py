"""Pictures of a search: which settings mattered, and what the good trials have in common."""

import numpy as np
import pytest

from app.training.search.pictures import draw, importance
from app.training.search.space import KIND, Space

OWN = {
    "model.width": {"type": "range", "low": 8, "high": 512, "log": True},
    "model.dropout": {"type": "range", "low": 0, "high": 0.5},
    "train.batch_size": {"type": "choice", "values": ["auto", 64]},
}


@pytest.fixture
def space(spec_of):
    return Space.of(spec_of(tune={"space": OWN}), 1000)


@pytest.fixture
def trials(ended):
    random = np.random.default_rng(0)

    def one(number):
        settings = {
            "model.width": int(random.integers(8, 512)),
            "model.dropout": float(random.uniform(0, 0.5)),
            "train.batch_size": ["auto", 64][number % 2],
        }
        return ended(number, settings, 0.4 + settings["model.dropout"])

    return [ended(1, {}, 0.6), *(one(number) for number in range(2, 40))]


def test_the_key_that_decides_matters_most(space, trials):
    found = importance(space, trials)
    assert next(iter(found)) == "model.dropout"
    assert sum(found.values()) == pytest.approx(1.0)
    assert found["model.dropout"] > 0.6


def test_few_trials_tell_nothing(space, trials):
    assert importance(space, trials[:3]) == {}
    assert draw(space, trials[:1], trials[0]) == {}


def test_keys_that_did_not_vary_have_no_importance(space, trials, ended):
    same = [ended(trial.number, trial.settings | {"model.width": 9}, trial.loss) for trial in trials[1:]]
    assert "model.width" not in importance(space, same)


def test_both_pictures_are_drawn_even_where_a_trial_diverged_or_was_stopped(space, trials, ended):
    odd = [ended(50, trials[3].settings, 1e9), ended(51, trials[4].settings, 0.45, state="stopped early")]
    pictures = draw(space, [*trials, *odd], trials[1])
    assert pictures.keys() == {"parallel", "importance"}
    assert all(png.startswith(b"\x89PNG") and len(png) > 5000 for png in pictures.values())


def test_of_several_kinds_the_best_ones_trials_are_drawn(spec_of, ended):
    space = Space.of(spec_of(model={"kind": "auto", "members": ["linear", "lightgbm"]}), 1000)
    linear = [ended(n, {KIND: "linear", "train.learning_rate": 0.001 * n}, 0.5 - 0.01 * n) for n in range(2, 9)]
    trees = [ended(20, {KIND: "lightgbm", "model.trees.leaves": 9}, 0.9)]
    assert "parallel" in draw(space, [*linear, *trees], linear[-1])
