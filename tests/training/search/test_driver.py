"""A whole search under Ray Tune: it ends, goes on, says what failed, and gives workers to the trials that need them."""

import psutil
import pytest
from ray.tune import TuneError

from app.training.search.driver import search
from app.training.search.trials import Record
from app.types import UserError
from app.workspace import Workspace, exists

pytestmark = pytest.mark.ray

SMALL = {"width": 16, "depth": 1, "number_embedding": 4, "frequencies": 4}
OWN = {
    "model.width": {"type": "range", "low": 8, "high": 32},
    "train.learning_rate": {"type": "range", "low": 0.001, "high": 0.1, "log": True},
}


class StoppedError(Exception):
    """The driver goes away."""


class Nobody:
    """Who looks on, and does something when a trial says its epoch."""

    def __init__(self, heard=lambda _: None):
        self.heard = heard

    def began(self, trial):
        """Look on."""

    def ended(self, trial):
        """Look on."""


@pytest.fixture
def run(ray_session, spec_of, parts, plan, tmp_path):
    """Return a function that searches, by default three small networks of four epochs."""
    workspace = Workspace.open(str(tmp_path))

    def made(watch=None, seconds=None, tune=None, model=None, **train):
        train = {"epochs": 4, "batch_size": 64, "learning_rate": 0.01, **train}
        spec = spec_of(
            tune={"trials": 3, "space": OWN, "cpus_per_trial": 4, **(tune or {})},
            model={**SMALL, **(model or {})},
            train=train,
        )
        record = Record(workspace.uri("x", "tune", "one"), "same")
        return search(parts, plan, spec, workspace, "one", record, watch or Nobody(), seconds)

    made.workspace = workspace
    return made


def test_trials_are_trained_judged_and_written_down(run):
    found = run(tune={"stop_early": False})
    assert [trial.number for trial in found.trials] == [1, 2, 3]
    assert found.declared.settings == {}
    for trial in found.trials:
        assert trial.state == "finished"
        assert [epoch for epoch, _ in trial.losses] == [1, 2, 3, 4]
        assert 0.2 < trial.loss < min(loss for _, loss in trial.losses) + 0.01  # the graph is calibrated
    assert found.best.loss == min(trial.loss for trial in found.trials)
    assert found.best.loss < 0.55
    assert found.seconds > 0
    assert Record(run.workspace.uri("x", "tune", "one"), "same").open() == found.trials
    assert not exists(run.workspace.uri("x", "checkpoints", "one"))


def test_a_much_better_trial_is_proven_so_and_chosen(run):
    better = {"train.learning_rate": {"type": "choice", "values": [0.02]}}
    tune = {"space": better, "trials": 2, "stop_early": False}
    found = run(tune=tune, learning_rate=1e-6)
    [standing] = found.standings
    assert standing.number == found.chosen.number == 2
    assert standing.proven
    assert run(tune=tune, learning_rate=1e-6).standings == found.standings  # from what was written down
    assert run(tune={**tune, "finalists": 0}, learning_rate=1e-6).chosen == found.best


def test_a_search_that_is_stopped_goes_on_where_it_was(run):
    def stop(trial):
        if trial.number == 2 and trial.losses[-1][0] == 2:
            raise StoppedError

    alone = {"cpus_per_trial": 4, "stop_early": False}  # one after the other, each to its end
    with pytest.raises(TuneError, match="StoppedError"):
        run(Nobody(stop), tune=alone)
    first = {trial.number: trial for trial in Record(run.workspace.uri("x", "tune", "one"), "same").open()}
    assert (first[1].ended, first[2].ended) == (True, False)
    heard = []
    found = run(Nobody(lambda trial: heard.append((trial.number, trial.losses[-1][0]))), tune=alone)
    assert found.trials[0] == first[1]
    assert found.trials[1].settings == first[2].settings
    assert min(epoch for number, epoch in heard if number == 2) > 1  # from its checkpoint on
    assert {number for number, _ in heard} == {2, 3}


def test_a_trial_whose_process_is_killed_begins_again(run):
    killed = []

    def kill(trial):
        for process in psutil.process_iter(["cmdline"]):
            if not killed and "ray::ImplicitFunc" in " ".join(process.info["cmdline"] or ()):
                killed.append(process.pid)
                process.kill()

    found = run(Nobody(kill), tune={"trials": 2, "cpus_per_trial": 4, "stop_early": False})
    assert len(killed) == 1
    assert [trial.state for trial in found.trials] == ["finished", "finished"]


def test_what_fails_says_why_and_the_others_go_on(run):
    wild = {"train.learning_rate": {"type": "choice", "values": [1e30]}}
    found = run(tune={"space": wild, "trials": 2})
    assert found.best == found.declared
    assert found.trials[1].state == "failed"
    assert "diverged" in found.trials[1].reason or "not finite" in found.trials[1].reason


def test_declared_settings_that_fail_end_the_search_and_are_tried_again_by_the_next(run):
    with pytest.raises(UserError, match=r"the declared settings, which every search begins with, fail: .*diverged"):
        run(
            tune={"trials": 20, "cpus_per_trial": 4, "space": {"model.width": OWN["model.width"]}}, learning_rate=1e30
        )
    known = Record(run.workspace.uri("x", "tune", "one"), "same").open()
    assert known[0].state == "failed"
    assert len(known) < 20
    assert run(tune={"trials": 1}).declared.state == "finished"


def test_a_trial_that_no_machine_can_hold_is_refused_at_once(run):
    with pytest.raises(UserError, match=r"a trial asks for 1000 CPU.*allowed: smaller tune.cpus_per_trial"):
        run(tune={"cpus_per_trial": 1000})


def test_no_trial_begins_when_the_time_is_over(run):
    found = run(seconds=0.001, tune={"trials": 50})
    assert [trial.number for trial in found.trials] == [1]
    assert run(seconds=1000, tune={"trials": 2}).trials[0] == found.trials[0]


def test_hopeless_trials_are_ended_early(run):
    hopeless = {"train.learning_rate": {"type": "choice", "values": [1e-9]}}
    tune = {"space": hopeless, "trials": 5, "cpus_per_trial": 4}
    found = run(tune=tune, epochs=9)
    assert {trial.state for trial in found.trials[1:]} == {"stopped early"}
    assert all(len(trial.losses) < 9 for trial in found.trials[1:])
    assert found.best == found.declared


@pytest.mark.slow  # starts Ray Train within trials, which costs half a minute and is what has to be seen
def test_a_trial_of_several_workers_gets_them(run):
    [trial] = run(tune={"trials": 1}, num_workers=2, epochs=2).trials
    assert trial.state == "finished"
    assert [epoch for epoch, _ in trial.losses] == [1, 2]


@pytest.mark.parametrize("kind", ["lightgbm", "average", "auto"])
def test_every_kind_can_be_searched(run, kind):
    tune = {"space": {}, "finalists": 0}
    found = run(tune=tune, model={"kind": kind, "members": ["linear", "lightgbm"], "trees": {"rounds": 60}})
    assert [trial.state for trial in found.trials] == ["finished"] * 3
    assert found.best.loss <= found.declared.loss
