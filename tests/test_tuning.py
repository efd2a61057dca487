"""A search from the declaration to the judged version, and a driver that is killed half way."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray
import yaml

from app.declaration import Declaration, read
from app.model.bundle import open_bundle
from app.registry import Registry
from app.tuning import tune
from app.workspace import Workspace

pytestmark = pytest.mark.ray

# As many CPUs a trial as there are: one process, which trials take in turn.
QUICK = ["tune.trials=3", "train.epochs=2", "model.trees.rounds=50", "tune.cpus_per_trial=4"]


def declared(declaration: Declaration, *settings: str) -> Declaration:
    source = f"data.source={declaration.path.parent / 'rides.parquet'}"
    return read(declaration.path, [source, *QUICK, *settings])


@pytest.fixture(scope="module")
def made(ray_session, declaration, tmp_path_factory):
    given, workspace = declared(declaration), Workspace.open(str(tmp_path_factory.mktemp("tuned")))
    return given, workspace, tune(given, workspace)


def test_the_best_settings_become_a_judged_version_that_knows_them(made):
    _, workspace, found = made
    bundle = open_bundle(found.version.bundle)
    assert bundle.data["tuned"] == found.settings
    for key, value in found.found.chosen.settings.items():
        section, name = key.split(".")
        assert getattr(getattr(bundle.spec, section), name) == value
    [version] = Registry.open(workspace, "rides").versions()
    chosen = found.found.chosen.number
    told = "as declared: none of 3 trials is proven better" if chosen == 1 else f"trial {chosen} of 3"
    assert (version.number, version.reason) == (1, told)
    assert found.found.best.loss <= found.found.declared.loss


def test_only_what_is_proven_better_takes_the_declared_settings_place(made):
    _, _, found = made
    for one in (found.found, found.trees):
        proven = {standing.number for standing in one.standings if standing.proven}
        assert one.chosen.number in (proven or {1})


def test_lightgbm_was_searched_with_the_same_budget_and_is_the_baseline(made):
    _, _, found = made
    assert len(found.trees.trials) <= 3
    assert any(key.startswith("model.trees.") for key in found.settings) or found.trees.chosen == found.trees.declared
    for who, one in {"": found.found, "LightGBM, ": found.trees}.items():
        assert f"{who}chosen" in found.sides
        assert (f"{who}declared" in found.sides) == (one.chosen != one.declared)
        assert (f"{who}best trial" in found.sides) == (one.chosen != one.best)
    baseline = open_bundle(found.version.bundle).metrics["baseline"]["overall"]["log_loss"]
    assert found.sides["LightGBM, chosen"].overall["log_loss"] == pytest.approx(baseline, rel=1e-3)


def test_the_report_holds_every_trial_and_how_all_stand_on_rows_no_trial_has_seen(made):
    _, _, found = made
    report = json.loads(Path(found.report).read_text())
    assert report["judged"] == "the test part, which no trial has seen"
    assert [trial["number"] for trial in report["search"]["trials"]] == [1, 2, 3]
    served = open_bundle(found.version.bundle).metrics["model"]["overall"]["log_loss"]
    assert report["sides"]["chosen"]["overall"]["log_loss"] == pytest.approx(served, rel=1e-4)
    assert Path(found.report).with_name("parallel.png").exists()


def test_rows_that_judged_the_trials_are_not_called_unseen(declaration, tmp_path):
    given = declared(declaration, "data.split.test=0", "tune.trials=1", "tune.baseline=false")
    found = tune(given, Workspace.open(str(tmp_path)))
    assert found.judged.startswith("the validation part, which has judged the trials, too")


def test_the_search_and_its_trials_are_among_the_runs(made):
    from mlflow import MlflowClient

    _, workspace, found = made
    client = MlflowClient(Registry.open(workspace, "rides").client.tracking_uri)
    experiment = client.get_experiment_by_name("rides")
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    trials = {run.info.run_name: run for run in runs if "mlflow.parentRunId" in run.data.tags}
    assert trials.keys() == {"trial 1", "trial 2", "trial 3"}
    best = trials[f"trial {found.found.best.number}"]
    assert best.data.metrics["loss"] == pytest.approx(found.found.best.loss)
    assert best.data.params.keys() >= {"model.dropout", "train.weight_decay"}


def test_the_same_search_again_trains_nothing(made, monkeypatch):
    declaration, workspace, found = made

    def never(*_, **__):
        raise AssertionError("all is known")

    monkeypatch.setattr("app.training.search.driver._run", never)
    monkeypatch.setattr("app.training.search.driver.judge_heat", never)
    again = tune(declaration, workspace)
    assert (again.found, again.trees, again.settings) == (found.found, found.trees, found.settings)
    assert again.version.number == found.version.number


def test_more_trials_go_on_with_those_there_are(made):
    given, workspace, found = made
    again = tune(declared(given, "tune.trials=4"), workspace)
    assert again.found.trials[:3] == found.found.trials
    assert len(again.found.trials) == 4
    assert again.found.best.loss <= found.found.best.loss


@pytest.mark.timeout(600)  # two drivers, one after the other, each of which has to import all there is
def test_a_killed_driver_goes_on_and_repeats_no_trial(ray_session, declaration, tmp_path, wait_for):
    source = f"data.source={declaration.path.parent / 'rides.parquet'}"
    settings = [*QUICK, source, "tune.trials=4", "tune.baseline=false", "tune.stop_early=false", "train.epochs=6"]
    settings.append("tune.finalists=0")
    command = [sys.executable, "-m", "jobs.tune", str(declaration.path), "--workspace", str(tmp_path), "--run", "one"]
    command += [word for setting in settings for word in ("--set", setting)]
    environment = {**os.environ, "RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    folder = tmp_path / "rides" / "tune" / "one"

    def states() -> dict[str, str]:
        return {path.name: json.loads(path.read_text())["state"] for path in folder.glob("trial-*.json")}

    driver = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    wait_for(lambda: {"finished", "running"} <= {*states().values()}, 240)
    driver.kill()
    assert driver.wait() == -signal.SIGKILL
    ended = {path: path.read_bytes() for path in folder.glob("trial-*.json") if b'"finished"' in path.read_bytes()}
    assert ended

    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert again.returncode == 0, again.stderr
    assert f"search: {len(ended)} trials are known from before" in again.stdout
    assert {path: path.read_bytes() for path in ended} == ended
    assert states() == {f"trial-{number:06d}.json": "finished" for number in range(1, 5)}
    snippet = again.stdout.partition("put this into the declaration:\n")[2].partition("\non the test part")[0]
    found = open_bundle(Registry.open(Workspace.open(str(tmp_path)), "rides").versions()[0].bundle).data["tuned"]
    assert yaml.safe_load(snippet or "{}").keys() == {key.partition(".")[0] for key in found}
