"""Which trials lag behind? Asynchronous successive halving (Li et al. 2020), Ray Tune's, by epoch and kind of model."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from app.spec import Spec
from app.training.search.trials import DECLARED, Trial

if TYPE_CHECKING:
    from ray.tune.execution.tune_controller import TuneController
    from ray.tune.experiment import Trial as TuneTrial

EPOCH, LOSS, STATE = "epoch", "loss", "state"
"""What a trial reports every epoch; with a state, it reports that it has ended."""

_HALVED = ("network", "tabm", "linear")
_REDUCTION = 3  # of three trials that reach an epoch with a rung, one goes on


class Halving(FIFOScheduler):
    """Ends networks that are not among the best third of their kind at epochs 1, 3, 9, ...

    What is not a network learns on: with as few trees, a small learning rate always looks worse; and the members of an
    average come one after the other. The declared settings are never ended, so that they are known to the last epoch.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        most = max(1, spec.train.epochs - 1)  # at the last epoch there is nothing left to save
        self._by_kind = {kind: _halving(most) for kind in _HALVED}

    def replay(self, ended: Trial, kind: str) -> None:
        """Hear of a trial that ended before."""
        stub = SimpleNamespace(trial_id=f"ended-{ended.number}", config={"number": ended.number, "kind": kind})
        trial, nobody = cast("TuneTrial", stub), cast("TuneController", None)  # neither is asked for more
        self.on_trial_add(nobody, trial)
        for epoch, loss in ended.losses:
            self.on_trial_result(nobody, trial, {EPOCH: epoch, LOSS: loss})
        self.on_trial_remove(nobody, trial)

    def on_trial_add(self, tune_controller: "TuneController", trial: "TuneTrial") -> None:
        """Hear of a trial that begins."""
        if one := self._of(trial):
            one.on_trial_add(tune_controller, trial)

    def on_trial_result(
        self,
        tune_controller: "TuneController",
        trial: "TuneTrial",
        result: dict[str, object],
    ) -> str:
        """Say whether a trial goes on."""
        one = self._of(trial)
        if one is None or STATE in result:
            return str(TrialScheduler.CONTINUE)
        decision = str(one.on_trial_result(tune_controller, trial, result))
        return str(TrialScheduler.CONTINUE) if trial.config["number"] == DECLARED else decision

    def on_trial_complete(
        self,
        tune_controller: "TuneController",
        trial: "TuneTrial",
        result: dict[str, object],
    ) -> None:
        """Forget a trial that ended; its rungs stay."""
        self.on_trial_remove(tune_controller, trial)

    def on_trial_remove(self, tune_controller: "TuneController", trial: "TuneTrial") -> None:
        """Forget a trial; its rungs stay."""
        if one := self._of(trial):
            one.on_trial_remove(tune_controller, trial)

    def _of(self, trial: "TuneTrial") -> AsyncHyperBandScheduler | None:
        return self._by_kind.get(trial.config["kind"])


def _halving(most: int) -> AsyncHyperBandScheduler:
    return AsyncHyperBandScheduler(EPOCH, LOSS, "min", most, 1, _REDUCTION, stop_last_trials=False)
