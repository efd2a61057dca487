"""Which settings are tried next? Optuna proposes; all it knows it is told from the record of trials.

Each proposal draws from (seed, number of the trial), so that a search which goes on after a kill proposes nothing
twice, and asks Optuna the same as one that was never stopped, once the same trials have ended.
"""

from typing import Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from app.spec import Choice, Searched, Value
from app.training.search.space import Settings, Space, is_whole
from app.training.search.trials import Trial

_AT_RANDOM = 6  # trials before the estimators have enough to go by


class Sampler:
    """Optuna's tree of Parzen estimators (Bergstra et al. 2011), or chance, over a space."""

    def __init__(self, space: Space, how: Literal["tpe", "random"], seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space, self._how, self._seed = space, how, seed
        self._study = optuna.create_study(direction="minimize")
        self._asked: dict[int, optuna.Trial] = {}

    def propose(self, number: int) -> dict[str, Value]:
        """Return the settings of a new trial."""
        self._study.sampler = self._sampler(number)
        asked = self._asked[number] = self._study.ask()
        return self.suggest(asked)

    def suggest(self, asked: optuna.Trial) -> dict[str, Value]:
        """Return the settings that a trial of a study draws from the space."""
        settings: dict[str, Value] = {}
        for key, searched in self._space.searched(settings).items():  # the kind first, where there are several
            settings[key] = _suggest(asked, key, self._distribution(key, searched))
        for key, searched in self._space.searched(settings).items():
            if key not in settings:
                settings[key] = _suggest(asked, key, self._distribution(key, searched))
        return settings

    def again(self, number: int, settings: Settings) -> None:
        """Hear that a trial runs which was proposed before."""
        self._study.enqueue_trial(dict(settings))
        self.propose(number)

    def tell(self, trial: Trial) -> None:
        """Hear how a trial ended. One that failed counts as worse than all."""
        asked = self._asked.pop(trial.number, None)
        state = TrialState.COMPLETE if trial.state == "finished" else TrialState.PRUNED
        if asked is None:
            self._study.add_trial(self.frozen(trial, state))
            return
        if trial.state == "stopped early":
            for epoch, loss in trial.losses:
                asked.report(loss, epoch)
        self._study.tell(asked, trial.loss if state == TrialState.COMPLETE else None, state)

    def frozen(self, trial: Trial, state: TrialState) -> optuna.trial.FrozenTrial:
        """Return an ended trial as Optuna keeps it; values outside of the space, as declared ones may be, stay out."""
        searched, values = self._space.searched(trial.settings), self._space.complete(trial.settings)
        distributions = {key: self._distribution(key, what) for key, what in searched.items()}
        inside = {key: value for key, value in values.items() if _contains(distributions[key], value)}
        return optuna.trial.create_trial(
            state=state,
            value=trial.loss if state == TrialState.COMPLETE else None,
            params=inside,
            distributions={key: distributions[key] for key in inside},
            intermediate_values=dict(trial.losses) if trial.state == "stopped early" else {},
        )

    def _sampler(self, number: int) -> BaseSampler:
        seed = int(np.random.SeedSequence((self._seed, number)).generate_state(1)[0])
        if self._how == "random":
            return RandomSampler(seed=seed)
        return TPESampler(seed=seed, n_startup_trials=_AT_RANDOM)

    def _distribution(self, key: str, searched: Searched) -> BaseDistribution:
        if isinstance(searched, Choice):
            return CategoricalDistribution(searched.values)
        if is_whole(self._space.spec, key, searched):
            return IntDistribution(int(searched.low), int(searched.high), log=searched.log)
        return FloatDistribution(searched.low, searched.high, log=searched.log)


def _suggest(trial: optuna.Trial, key: str, within: BaseDistribution) -> Value:
    if isinstance(within, IntDistribution):
        return trial.suggest_int(key, within.low, within.high, log=within.log)
    if isinstance(within, FloatDistribution):
        return trial.suggest_float(key, within.low, within.high, log=within.log)
    assert isinstance(within, CategoricalDistribution)
    chosen = trial.suggest_categorical(key, within.choices)
    assert chosen is not None
    return chosen


def _contains(within: BaseDistribution, value: Value) -> bool:
    if isinstance(within, CategoricalDistribution):
        return value in within.choices
    assert isinstance(within, IntDistribution | FloatDistribution)
    return isinstance(value, int | float) and within.low <= value <= within.high
