"""Halving: what lags behind its kind ends at epochs 1, 3, 9; the declared settings never do."""

from types import SimpleNamespace

import pytest
from ray.tune.schedulers import TrialScheduler

from app.training.search.halving import EPOCH, LOSS, STATE, Halving

GO_ON, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


@pytest.fixture
def halving(spec_of):
    return Halving(spec_of(train={"epochs": 20}))


def runs(halving, number, losses, kind="network"):
    """Return what is said of a trial after each epoch, until it is ended."""
    trial = SimpleNamespace(trial_id=f"t{number}", config={"number": number, "kind": kind})
    halving.on_trial_add(None, trial)
    said = []
    for epoch, loss in enumerate(losses, 1):
        said.append(halving.on_trial_result(None, trial, {EPOCH: epoch, LOSS: loss}))
        if said[-1] == STOP:
            break
    halving.on_trial_complete(None, trial, {})
    return said


def test_the_worst_end_at_the_first_rung_and_better_ones_go_on(halving):
    for number in range(2, 8):
        runs(halving, number, [0.5] * 2)
    assert runs(halving, 9, [0.9]) == [STOP]
    assert runs(halving, 10, [0.1, 0.1]) == [GO_ON, GO_ON]


def test_between_rungs_nobody_ends(halving):
    for number in range(2, 8):
        runs(halving, number, [0.5, 0.5, 0.5, 0.5])
    assert runs(halving, 9, [0.4, 0.9, 0.9]) == [GO_ON, GO_ON, STOP]  # rungs at 1 and 3


def test_the_declared_settings_are_known_to_the_last_epoch(halving):
    for number in range(2, 8):
        runs(halving, number, [0.5] * 10)
    assert set(runs(halving, 1, [0.9] * 20)) == {GO_ON}


def test_kinds_are_held_against_their_own(halving):
    for number in range(2, 8):
        runs(halving, number, [0.1] * 4)
    assert runs(halving, 9, [0.9, 0.9], "linear") == [GO_ON, GO_ON]


@pytest.mark.parametrize("kind", ["lightgbm", "average", "auto"])
def test_what_is_no_network_learns_on(halving, kind):
    for number in range(2, 8):
        runs(halving, number, [0.1] * 4, kind)
    assert set(runs(halving, 9, [0.9] * 9, kind)) == {GO_ON}


def test_the_last_word_of_a_trial_ends_nothing(halving):
    trial = SimpleNamespace(trial_id="t", config={"number": 2, "kind": "network"})
    halving.on_trial_add(None, trial)
    assert halving.on_trial_result(None, trial, {STATE: "failed"}) == GO_ON


def test_a_search_that_goes_on_knows_the_rungs_of_before(halving, spec_of, ended):
    for number in range(2, 8):
        halving.replay(ended(number, {}, 0.5, losses=((1, 0.5), (2, 0.5))), "network")
    assert runs(halving, 9, [0.9]) == [STOP]
