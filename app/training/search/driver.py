"""How are trials run? As plain functions under Ray Tune, which read the encoded rows from the object store.

What Ray Tune keeps is in a temporary folder and is never read again: a search goes on from its own record.
"""

import logging
import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import ray
import torch
from ray import tune
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import Searcher

from app.data.features import FeaturePlan
from app.spec import Kind, Spec, Value
from app.training.kinds import fit_model
from app.training.loader import Parts
from app.training.resources import room, worker_need, worker_range, workers_use_gpu
from app.training.search.course import Course, Watch
from app.training.search.finals import (
    FOLDS,
    Heat,
    Losses,
    Standing,
    Stretches,
    describe_heat,
    finalists,
    heats,
    judge_heat,
    read_heat,
    standings,
    winner,
    write_heat,
)
from app.training.search.halving import EPOCH, LOSS, STATE, Halving
from app.training.search.space import Space
from app.training.search.trials import DECLARED, Record, State, Trial, busy_seconds
from app.types import UserError
from app.workspace import Workspace, delete_folder

log = logging.getLogger(__name__)

_LOSSES, _REASON = "losses", "reason"
_NEXT_TO_NOTHING = 0.001  # CPUs of a trial whose workers take their own
_SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints a table of its own, however quiet it is told to be
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # who interrupts a search wants it to end, not its best trial trained
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # no TensorBoard, CSV and JSON beside our own record
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a trial that failed has no loss
    "TUNE_WARN_THRESHOLD_S": "60",  # a step may write to a store
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@dataclass(frozen=True)
class Found:
    """What a search found: `best` is never worse than `declared`, on the rows that judged both.

    `chosen` is the one to go on with: proven better than `declared` by the finals, of which `standings` tells; else
    `declared` itself.
    """

    space: Space
    trials: list[Trial]
    best: Trial
    declared: Trial
    seconds: float
    standings: list[Standing]
    chosen: Trial


class _Config(TypedDict):
    number: int
    kind: Kind
    settings: dict[str, Value]


@dataclass(frozen=True)
class _Work:
    """What all trials share; in the object store, so that its rows are in memory once a machine."""

    parts: Parts
    plan: FeaturePlan
    space: Space
    workspace: Workspace
    run: str
    threads: int


def search(
    parts: Parts,
    plan: FeaturePlan,
    spec: Spec,
    workspace: Workspace,
    run: str,
    record: Record,
    watch: Watch,
    seconds: float | None = None,
) -> Found:
    """Search the settings of the declared kind: `parts.train` teaches the trials, `parts.validation` judges them.

    Ray must be initialised. `run` names the trials' checkpoints, and `record` is where the search goes on: trials in
    it that ended are not repeated. `seconds`: none begins later than that (or than `tune.time_budget`, when None).

    Raises UserError when there is nothing to search, when the cluster can never hold a trial, when the record is of
    another search, and when the declared settings fail.
    """
    if seconds is None and spec.tune.time_budget is not None:
        seconds = spec.tune.time_budget.total_seconds()
    space = Space.of(spec, len(parts.train.target))
    course = Course(space, record, watch, spec.tune.trials, seconds)
    work = _Work(parts, plan, space, workspace, run, max(1, int(spec.tune.cpus_per_trial)))
    if course.missing:
        _run(course, work)
    held = finalists(course.ended, spec.tune.finalists)
    found = _finals(held, course.trials[DECLARED], work, record) if held else []
    delete_folder(workspace.uri(spec.name, "checkpoints", run))
    best = course.best
    assert best is not None, "the declared settings have finished"
    chosen = course.trials[winner(found)] if spec.tune.finalists else best
    return Found(space, course.ended, best, course.trials[DECLARED], busy_seconds(course.ended), found, chosen)


def _run(course: Course, work: _Work) -> None:
    """Run the trials that are missing, as many at once as the cluster holds."""
    spec = work.space.spec
    need, at_once = _place(spec)
    halving = Halving(spec) if spec.tune.stop_early else None
    if halving is not None:
        for trial in course.ended:
            halving.replay(trial, work.space.declare(trial.settings).model.kind)
    watcher = _Watcher(course, work)
    with tempfile.TemporaryDirectory() as folder, _quiet():
        tune.Tuner(
            tune.with_resources(tune.with_parameters(_train, work=work), need),
            tune_config=tune.TuneConfig(
                search_alg=_Proposals(course, work.space),
                scheduler=halving,
                num_samples=course.missing,
                max_concurrent_trials=at_once,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=folder,
                verbose=0,
                callbacks=[watcher],
                failure_config=tune.FailureConfig(max_failures=spec.train.max_failures),
            ),
        ).fit()


def _finals(held: list[Trial], declared: Trial, work: _Work, record: Record) -> list[Standing]:
    """Hold the best trials against the declared settings, as many trainings at once as the cluster holds."""
    spec = work.space.spec
    stretches = Stretches.of(work.parts)
    every = list(heats(declared, held))
    known: dict[Heat, Losses | str] = {
        heat: found for heat in every if (found := read_heat(record, heat)) is not None
    }
    waiting = [heat for heat in every if heat not in known]
    if waiting:
        need, at_once = _place(spec)
        judge = ray.remote(judge_heat).options(
            num_cpus=need["CPU"], num_gpus=need.get("GPU", 0), max_retries=spec.train.max_failures
        )
        shared = ray.put(stretches), ray.put(work.plan)
        running: dict[ray.ObjectRef[Losses | str], Heat] = {}
        while waiting or running:
            while waiting and len(running) < at_once:
                heat = waiting.pop(0)
                given = work.space.declare(heat.settings)
                running[judge.remote(*shared, given, heat, work.workspace, work.run, work.threads)] = heat
            [done], _ = ray.wait([*running])
            heat = running.pop(done)
            known[heat] = found = ray.get(done)
            if not isinstance(found, str):
                write_heat(record, heat, found)
            log.info("final of trial %d, part %d of %d: %s", heat.number, heat.fold + 1, FOLDS, describe_heat(found))
    return standings(spec, known)


def _train(config: _Config, work: _Work) -> None:
    """Train with a trial's settings and report every epoch, then how it ended."""
    alone = config["kind"] not in ("average", "auto")  # the epochs of several members are no curve

    def on_epoch(line: dict[str, float]) -> None:
        tune.report({EPOCH: int(line["epoch"]), LOSS: line["validation_loss"]})

    try:
        fitted = fit_model(
            work.parts,
            work.plan,
            work.space.declare(config["settings"]),
            work.workspace,
            f"{work.run}/{config['number']:06d}",
            on_epoch if alone else None,
            threads=work.threads,
        )
    except (UserError, MemoryError, torch.OutOfMemoryError) as error:
        tune.report({STATE: "failed", _REASON: str(error) or "out of memory"})
        return
    if not math.isfinite(fitted.loss):
        tune.report({STATE: "failed", _REASON: f"training diverged: the loss is {fitted.loss}"})
        return
    losses = [(int(line["epoch"]), line["validation_loss"]) for line in fitted.history] if alone else []
    tune.report({STATE: "finished", LOSS: fitted.loss, _LOSSES: losses})


class _Proposals(Searcher):
    """The course's next trials, for Ray Tune."""

    def __init__(self, course: Course, space: Space) -> None:
        super().__init__(metric=LOSS, mode="min")
        self._course, self._space = course, space

    def suggest(self, trial_id: str) -> _Config | str:  # type: ignore[override]  # as Ray's own do, FINISHED is text
        trial = self._course.next()
        if trial is None:
            return str(Searcher.FINISHED)
        kind = self._space.declare(trial.settings).model.kind
        return {"number": trial.number, "kind": kind, "settings": trial.settings}

    def on_trial_complete(self, trial_id: str, result: dict[str, object] | None = None, error: bool = False) -> None:
        """The watcher hears it."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Save nothing: the record knows all."""


class _Watcher(tune.Callback):
    """Brings the course what Ray Tune hears; ends between two of its steps, where an error ends the search."""

    def __init__(self, course: Course, work: _Work) -> None:
        self._course, self._work = course, work
        self._over: list[TuneTrial] = []

    def on_trial_result(
        self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, result: dict[str, object], **_: object
    ) -> None:
        if STATE not in result:
            self._course.hear(trial.config["number"], int(str(result[EPOCH])), float(str(result[LOSS])))

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: object) -> None:
        self._over.append(trial)

    def on_trial_error(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **_: object) -> None:
        self._over.append(trial)

    def on_step_end(self, iteration: int, trials: list[TuneTrial], **_: object) -> None:
        over, self._over = self._over, []
        for trial in over:
            self._end(trial.config["number"], trial)

    def _end(self, number: int, trial: TuneTrial) -> None:
        last = trial.last_result or {}
        if trial.status == TuneTrial.ERROR:
            self._course.end(number, "failed", reason=_last_line(trial.error_file))
        else:
            state: State = last.get(STATE, "stopped early")
            loss = last[LOSS] if state == "finished" else None
            losses = tuple((epoch, value) for epoch, value in last.get(_LOSSES, ()))
            self._course.end(number, state, loss, losses, last.get(_REASON, ""))
        name, run = self._work.space.spec.name, self._work.run
        delete_folder(self._work.workspace.uri(name, "checkpoints", run, f"{number:06d}"))
        if number == DECLARED and self._course.trials[number].state == "failed":
            raise UserError(
                f"the declared settings, which every search begins with, fail: {self._course.trials[number].reason}"
            )


def _place(spec: Spec) -> tuple[dict[str, float], int]:
    """Return what a trial reserves, and how many fit at once. Raises UserError when none ever does."""
    if spec.train.num_workers != 0:
        fewest, _ = worker_range(spec.train)
        each = worker_need(spec.train, workers_use_gpu(spec.train))
        return {"CPU": _NEXT_TO_NOTHING}, max(1, room(each) // fewest)
    need = {"CPU": spec.tune.cpus_per_trial} | ({"GPU": spec.tune.gpus_per_trial} if spec.tune.gpus_per_trial else {})
    at_once = room(need)
    if not at_once:
        each_needs = " and ".join(f"{amount:g} {name}" for name, amount in need.items())
        raise UserError(
            f"a trial asks for {each_needs}, which no machine of the cluster has; "
            "allowed: smaller tune.cpus_per_trial and tune.gpus_per_trial"
        )
    return need, at_once


def _last_line(path: str | None) -> str:
    lines = Path(path).read_text().strip().splitlines() if path else []
    return lines[-1].strip() if lines else "the trial's process was lost"


@contextmanager
def _quiet() -> Iterator[None]:
    """Let Ray Tune keep to itself, for as long as it runs, what our own record and table say."""
    before = {name: os.environ.get(name) for name in _SETTINGS}
    analysis = logging.getLogger("ray.tune.analysis.experiment_analysis")
    level = analysis.level
    os.environ.update(_SETTINGS)
    analysis.setLevel(logging.ERROR)  # it misses the files of the loggers that are off
    try:
        yield
    finally:
        analysis.setLevel(level)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
