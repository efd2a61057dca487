"""The finals of a search: every row judges once, far from what was learned, and only proof unseats the declaration."""

import itertools

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import torch

from app.data.encode import Examples
from app.training.loader import Parts
from app.training.search.finals import (
    FOLDS,
    Heat,
    Losses,
    Stretches,
    finalists,
    heats,
    judge_heat,
    read_heat,
    standings,
    winner,
    write_heat,
)
from app.training.search.trials import DECLARED, Record
from app.types import Features
from app.workspace import Workspace

DAY = 86_400_000
BLOCKS = 15


def examples(days, first=0):
    n = len(days)
    nothing = Features(np.zeros((n, 1), np.float32), np.zeros((n, 1), np.int64))
    return Examples(nothing, np.arange(n) % 2.0, np.array(days, np.int64) * DAY, np.arange(first, first + n))


@hypothesis.given(st.lists(st.integers(0, 60), min_size=30, max_size=300))
def test_every_row_judges_once_and_no_day_does_so_twice(days):
    stretches = Stretches.of(Parts(examples(sorted(days)), examples([61, 62], 1000)))
    judges = [stretches.parts(fold) for fold in range(FOLDS)]
    positions = np.concatenate([part.validation.position for part in judges])
    assert sorted(positions) == [*range(len(days)), 1000, 1001]
    for part in judges:
        assert len(part.train.target) + len(part.validation.target) == len(days) + 2
        assert not set(part.train.time) & set(part.validation.time)
    ends = [(part.validation.time.min(), part.validation.time.max()) for part in judges if len(part.validation.time)]
    assert ends == sorted(ends)
    assert all(one[1] < next_one[0] for one, next_one in itertools.pairwise(ends))


def test_stretches_are_about_alike_though_days_are_not():
    days = np.repeat(np.arange(60), np.where(np.arange(60) < 10, 100, 10))
    stretches = Stretches.of(Parts(examples(days), examples([60], 5000)))
    sizes = [len(stretches.parts(fold).validation.target) for fold in range(FOLDS)]
    assert min(sizes) > 0.5 * max(sizes)


def test_rows_without_a_label_or_a_time_are_taken_as_they_are():
    rows = examples([0] * 300)._replace(time=np.empty(0, np.int64))
    rows.target[:100] = np.nan
    stretches = Stretches.of(Parts(rows, examples([], 0)))
    assert sum(len(stretches.parts(fold).validation.target) for fold in range(FOLDS)) == 200


def test_only_what_finished_better_than_the_declared_settings_goes_to_the_finals(ended):
    trials = [
        ended(1, {}, 0.5),
        ended(2, {}, 0.4),
        ended(3, {}, 0.6),
        ended(4, {}, 0.1, state="stopped early"),
        ended(5, {}, 0.3),
        ended(6, {}, 0.45),
    ]
    assert [trial.number for trial in finalists(trials, 2)] == [5, 2]
    assert finalists(trials, 0) == []
    assert [heat.number for heat in heats(trials[0], finalists(trials, 2))] == [1, 5, 2] * FOLDS


def known(differences, noise=0.05, blocks=BLOCKS):
    """Return the heats' losses of the declared settings, and of trials that differ from them by so much."""
    random = np.random.default_rng(0)
    base, counts = random.uniform(0.3, 0.7, blocks), np.full(blocks, 100.0)
    found = {}
    for number, difference in {DECLARED: 0.0, **differences}.items():
        mean = base + difference + (0 if number == DECLARED else random.normal(0, noise, blocks))
        for fold in range(FOLDS):
            mine = np.arange(blocks) % FOLDS == fold
            found[Heat(number, fold, {})] = Losses(mean * counts * mine, counts * mine)
    return found


def test_what_is_better_in_truth_wins_and_by_the_most(spec_of):
    found = standings(spec_of(), known({2: -0.05, 3: -0.1, 4: 0.1}, noise=0.02))
    assert [one.number for one in found] == [2, 3, 4]
    assert [one.proven for one in found] == [True, True, False]
    assert found[1].low < found[1].difference < found[1].high < 0
    assert winner(found) == 3


def test_luck_alone_wins_nothing(spec_of):
    found = standings(spec_of(), known({2: -0.005, 3: 0.0, 4: 0.01}))
    assert winner(found) == DECLARED
    assert winner([]) == DECLARED


def test_a_finalist_that_fails_is_out_and_without_the_declared_settings_nobody_wins(spec_of):
    losses = known({2: -0.2, 3: -0.1}, noise=0.02)
    losses[Heat(2, 1, {})] = "training diverged"
    assert winner(standings(spec_of(), losses)) == 3
    losses[Heat(DECLARED, 0, {})] = "out of memory"
    assert standings(spec_of(), losses) == []


def test_a_few_days_prove_nothing(spec_of):
    assert standings(spec_of(), known({2: -0.2}, noise=0.0, blocks=4)) == []


def test_what_came_of_a_heat_is_known_after_a_kill(tmp_path):
    record, heat = Record(str(tmp_path), "same"), Heat(14, 2, {"model.width": 9})
    losses = Losses(np.array([0.5, 0.1]), np.array([3.0, 2.0]))
    assert read_heat(record, heat) is None
    write_heat(record, heat, losses)
    assert np.array_equal(read_heat(record, heat), losses)
    assert record.open() == []  # heats are no trials


def test_a_heat_judges_the_rows_of_its_stretch_by_what_others_taught(spec_of, parts, plan, tmp_path):
    small = {"width": 16, "depth": 1, "number_embedding": 4, "frequencies": 4}
    spec = spec_of(model=small, train={"epochs": 3, "batch_size": 64, "learning_rate": 0.02})
    stretches, workspace = Stretches.of(parts), Workspace.open(str(tmp_path))
    found = [judge_heat(stretches, plan, spec, Heat(1, fold, {}), workspace, "x", 1) for fold in range(FOLDS)]
    counts = np.sum([one.counts for one in found], axis=0)
    assert counts.sum() == 1000
    assert (counts > 0).all()
    assert 0.2 < np.sum([one.sums for one in found]) / 1000 < 0.6
    diverging = spec.with_settings({"train.learning_rate": 1e30})
    assert "diverged" in judge_heat(stretches, plan, diverging, Heat(2, 0, {}), workspace, "y", 1)


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("out of memory")])
def test_a_heat_that_memory_does_not_hold_has_failed_and_ends_nothing_else(
    spec_of, parts, plan, tmp_path, monkeypatch, error
):
    def full(*_: object) -> Losses:
        raise error

    monkeypatch.setattr(Stretches, "losses", full)
    workspace = Workspace.open(str(tmp_path))
    assert judge_heat(Stretches.of(parts), plan, spec_of(), Heat(2, 0, {}), workspace, "z", 1) == "out of memory"
