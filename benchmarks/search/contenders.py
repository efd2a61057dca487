"""Who searches: all on the same rows, judged by the same validation rows, for the same seconds."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import TypeAlias

import optuna

from app.model.runtime import Runtime
from app.spec import Tune, Value
from app.training.kinds import fit_model
from app.training.resources import cpu_count
from app.training.search.sampler import Sampler
from app.training.search.space import Space
from app.training.search.trials import DECLARED, Record, Trial
from app.types import Scores
from app.workspace import Workspace
from benchmarks.train import automl
from benchmarks.train.rows import Rows

_MOST = 5000  # trials: more than anybody gets done


@dataclass(frozen=True)
class Searched:
    """What a search came to.

    `reached` are pairs of seconds since it began and the least validation loss known by then, rising in time; `trials` how
    many ended (None where there are no trials), `seconds` what it took in all, `scores` those of the test rows.
    """

    reached: list[tuple[float, float]]
    trials: int | None
    seconds: float
    scores: Scores


Contender: TypeAlias = Callable[[Rows, int, int], Searched]
"""Searches the rows for so many seconds, by a seed. Raises UserError when it cannot run here."""


@dataclass
class _Curve:
    """The least loss so far over time; also who looks on at a search of ours."""

    begin: float = field(default_factory=time.perf_counter)
    reached: list[tuple[float, float]] = field(default_factory=list)

    def add(self, loss: float) -> None:
        if not self.reached or loss < self.reached[-1][1]:
            self.reached.append((time.perf_counter() - self.begin, loss))

    def began(self, trial: Trial) -> None:
        """Look on."""

    def heard(self, trial: Trial) -> None:
        """Look on."""

    def ended(self, trial: Trial) -> None:
        if trial.state == "finished" and trial.loss is not None:
            self.add(trial.loss)


def evertrue(rows: Rows, seconds: int, seed: int) -> Searched:
    """Search as `jobs.tune` does: one trial a CPU, Parzen estimators, asynchronous halving."""
    return _ours(rows, seconds, rows.spec.tune.model_copy(update={"seed": seed}))


def at_random(rows: Rows, seconds: int, seed: int) -> Searched:
    """Search by chance, one trial a CPU, every trial to its end."""
    chance = {"seed": seed, "sampler": "random", "stop_early": False}
    return _ours(rows, seconds, rows.spec.tune.model_copy(update=chance))


def _ours(rows: Rows, seconds: int, tune: Tune) -> Searched:
    from app.training.search.driver import search  # it imports Ray, which reads its environment then

    spec = rows.spec.model_copy(update={"tune": tune.model_copy(update={"trials": _MOST, "finalists": 0})})
    with TemporaryDirectory() as folder:
        curve = _Curve()
        record = Record(f"{folder}/record", "benchmark")
        found = search(rows.parts, rows.plan, spec, Workspace.open(folder), "benchmark", record, curve, seconds)
        took = time.perf_counter() - curve.begin
    return Searched(curve.reached, len(found.trials), took, trained(rows, found.best.settings))


def one_process(rows: Rows, seconds: int, seed: int) -> Searched:
    """Search the same space with Optuna as its documentation does: a loop in this process, which has all CPUs."""
    space = Space.of(rows.spec, len(rows.parts.train.target))
    asking = Sampler(space, "tpe", seed)  # knows the distributions of the space
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=3),
    )
    study.enqueue_trial(asking.frozen(Trial(DECLARED, {}, loss=0.0), optuna.trial.TrialState.COMPLETE).params)
    curve = _Curve()

    def objective(trial: optuna.Trial) -> float:
        settings = asking.suggest(trial)

        def on_epoch(line: dict[str, float]) -> None:
            trial.report(line["validation_loss"], int(line["epoch"]))
            if trial.should_prune():
                raise optuna.TrialPruned

        with TemporaryDirectory() as folder:
            fitted = fit_model(
                rows.parts, rows.plan, space.declare(settings), Workspace.open(folder), "benchmark", on_epoch
            )
        curve.add(fitted.loss)
        trial.set_user_attr("settings", settings)
        return fitted.loss

    study.optimize(objective, timeout=seconds)
    took = time.perf_counter() - curve.begin
    return Searched(curve.reached, len(study.trials), took, trained(rows, study.best_trial.user_attrs["settings"]))


def autogluon(rows: Rows, seconds: int, _: int) -> Searched:
    """Let AutoGluon use the seconds as it sees fit: boosted trees, forests and an ensemble of them; it has no seed."""
    learned = automl.learn(rows, seconds)
    return Searched(learned.reached, None, learned.seconds, learned.scores)


def trained(rows: Rows, settings: dict[str, Value]) -> Scores:
    """Train with what was found on the same rows, and score the test rows."""
    with TemporaryDirectory() as folder:
        spec = rows.spec.with_settings(settings)
        fitted = fit_model(rows.parts, rows.plan, spec, Workspace.open(folder), "benchmark")
    return Runtime(fitted.onnx, rows.plan, threads=cpu_count()).score(rows.test.features)


CONTENDERS: dict[str, Contender] = {
    "Evertrue": evertrue,
    "Optuna, one process without Ray": one_process,
    "random search": at_random,
    "AutoGluon": autogluon,
}
