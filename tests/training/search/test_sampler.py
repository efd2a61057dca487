"""Proposals: within the space, the same after a kill, and learning from what was tried."""

import math

import pytest
from optuna.trial import TrialState

from app.training.search.sampler import Sampler
from app.training.search.space import KIND, Space
from app.training.search.trials import Trial

OWN = {
    "model.width": {"type": "range", "low": 8, "high": 512, "log": True},
    "model.dropout": {"type": "range", "low": 0, "high": 0.5},
    "train.batch_size": {"type": "choice", "values": ["auto", 64]},
}


@pytest.fixture
def space(spec_of):
    return Space.of(spec_of(tune={"space": OWN}), 1000)


@pytest.mark.parametrize("how", ["tpe", "random"])
def test_what_is_proposed_is_allowed_and_of_the_declared_types(space, ended, how):
    sampler = Sampler(space, how, 0)
    for number in range(2, 30):
        found = sampler.propose(number)
        assert list(found) == list(OWN)
        assert type(found["model.width"]) is int
        assert type(found["model.dropout"]) is float  # though its ends are written as 0 and .5
        space.declare(found)
        sampler.tell(ended(number, found, found["model.dropout"]))


@pytest.mark.parametrize("how", ["tpe", "random"])
def test_a_search_that_goes_on_proposes_what_it_would_have_proposed(space, ended, how):
    def loss(settings):
        return abs(math.log(settings["model.width"] / 100)) + settings["model.dropout"]

    def proposed(sampler, numbers):
        told = []
        for number in numbers:
            settings = sampler.propose(number)
            told.append(ended(number, settings, loss(settings)))
            sampler.tell(told[-1])
        return told

    whole = proposed(Sampler(space, how, 5), range(2, 20))
    goes_on = Sampler(space, how, 5)
    for trial in whole[:9]:
        goes_on.tell(trial)
    assert proposed(goes_on, range(11, 20)) == whole[9:]


def test_estimators_come_closer_than_chance(space, ended):
    def nearest(how, seed):
        sampler, losses = Sampler(space, how, seed), []
        for number in range(2, 40):
            settings = sampler.propose(number)
            losses.append(abs(math.log(settings["model.width"] / 100)) + settings["model.dropout"])
            sampler.tell(ended(number, settings, losses[-1]))
        return sum(losses[-10:])

    assert sum(nearest("tpe", seed) for seed in range(5)) < 0.6 * sum(nearest("random", seed) for seed in range(5))


def test_trials_that_failed_or_were_stopped_do_not_attract(space, ended):
    sampler = Sampler(space, "tpe", 0)
    for number in range(2, 12):
        settings = {"model.width": 8 + number, "model.dropout": 0.4, "train.batch_size": "auto"}
        sampler.tell(ended(number, settings, None, state="failed", reason="diverged"))
        good = {"model.width": 400 + number, "model.dropout": 0.1, "train.batch_size": 64}
        sampler.tell(ended(number + 20, good, 0.1))
    widths = [sampler.propose(number)["model.width"] for number in range(50, 60)]
    assert sorted(widths)[5] > 100


def test_declared_values_outside_of_the_space_are_told_all_the_same(spec_of, ended):
    space = Space.of(spec_of(model={"width": 1024}, tune={"space": OWN}), 1000)
    sampler = Sampler(space, "tpe", 0)
    sampler.tell(ended(1, {}, 0.5))
    assert "model.width" not in sampler.frozen(ended(1, {}, 0.5), TrialState.COMPLETE).params
    space.declare(sampler.propose(2))


def test_a_trial_that_was_interrupted_is_known_by_its_settings(space, ended):
    settings = {"model.width": 99, "model.dropout": 0.25, "train.batch_size": 64}
    sampler = Sampler(space, "tpe", 0)
    sampler.again(7, settings)
    sampler.tell(ended(7, settings, 0.2))
    [known] = [trial for trial in sampler._study.trials if trial.value == 0.2]
    assert known.params == settings


def test_with_several_kinds_a_proposal_has_the_keys_of_its_kind(spec_of, ended):
    space = Space.of(spec_of(model={"kind": "auto", "members": ["linear", "lightgbm"]}), 1000)
    sampler, seen = Sampler(space, "random", 0), set()
    for number in range(2, 20):
        found = sampler.propose(number)
        seen.add(found[KIND])
        assert list(found) == list(space.searched(found))
        assert space.declare(found).model.kind == found[KIND]
        sampler.tell(Trial(number, found, "finished", loss=0.5))
    assert seen == {"linear", "lightgbm"}
