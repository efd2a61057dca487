"""How does a search go on? Which trial comes next, and who hears how the others fare; whoever trains them."""

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from app.spec import Value
from app.training.search.sampler import Sampler
from app.training.search.space import Space
from app.training.search.trials import DECLARED, Record, State, Trial, best_of, busy_seconds


class Watch(Protocol):
    """Who looks on."""

    def began(self, trial: Trial) -> None:
        """Hear of a trial that starts."""

    def heard(self, trial: Trial) -> None:
        """Hear of a trial's next epoch."""

    def ended(self, trial: Trial) -> None:
        """Hear of a trial that is over."""


class Course:
    """A search of at most `trials` trials, none of which begins after `seconds`; all it knows is in its record.

    Trials that ended before a kill are told to the sampler; one that ran begins again with the same settings, and so do
    the declared settings where they failed. They come first, and are tried however little time there is.
    """

    def __init__(self, space: Space, record: Record, watch: Watch, trials: int, seconds: float | None) -> None:
        self.space, self._record, self._watch, self._budget = space, record, watch, seconds
        tune = space.spec.tune
        self._sampler = Sampler(space, tune.sampler, tune.seed)
        known = record.open()
        self.trials = {trial.number: trial for trial in known if trial.ended and not _failed_as_declared(trial)}
        for trial in self.trials.values():
            self._sampler.tell(trial)
        self._interrupted = {trial.number: trial for trial in known if trial.number not in self.trials}
        self._waiting = self._numbers(trials)
        self._spent, self._start = busy_seconds(known), time.monotonic()

    @property
    def missing(self) -> int:
        """How many trials are still to begin; only the declared settings do when the time is over."""
        if self._late():
            return int(DECLARED in self._waiting)
        return len(self._waiting)

    @property
    def ended(self) -> list[Trial]:
        """The trials that are over, in order."""
        return sorted((trial for trial in self.trials.values() if trial.ended), key=lambda trial: trial.number)

    @property
    def best(self) -> Trial | None:
        """The finished trial with the least loss so far."""
        return best_of(self.trials.values())

    def next(self) -> Trial | None:
        """Begin the next trial; None when there is none left, or no time."""
        if not self.missing:
            return None
        number = self._waiting.pop(0)
        trial = replace(Trial(number, self._settings(number)), began=time.time())
        self.trials[number] = trial
        self._record.write(trial)
        self._watch.began(trial)
        return trial

    def hear(self, number: int, epoch: int, loss: float) -> None:
        """Hear a trial's loss after an epoch."""
        self.trials[number] = self.trials[number].heard(epoch, loss)
        self._watch.heard(self.trials[number])

    def end(
        self,
        number: int,
        state: State,
        loss: float | None = None,
        losses: tuple[tuple[int, float], ...] = (),
        reason: str = "",
    ) -> None:
        """Write down how a trial ended; `losses` of all epochs, where more is known than was heard."""
        running = self.trials[number]
        losses = losses or running.losses
        if state == "stopped early":
            loss = min(value for _, value in losses)
        seconds = time.time() - running.began
        trial = replace(running, state=state, loss=loss, losses=losses, reason=reason, seconds=seconds)
        self.trials[number] = trial
        self._record.write(trial)
        self._sampler.tell(trial)
        self._watch.ended(trial)

    def _settings(self, number: int) -> dict[str, Value]:
        if number == DECLARED:
            return {}
        if number in self._interrupted:
            settings = self._interrupted[number].settings
            self._sampler.again(number, settings)
            return settings
        return self._sampler.propose(number)

    def _late(self) -> bool:
        return self._budget is not None and self._spent + time.monotonic() - self._start >= self._budget

    def _numbers(self, trials: int) -> list[int]:
        """Return the numbers to run: those that were interrupted, then new ones."""

        def new() -> Iterator[int]:
            yield from (number for number in range(1, trials + 1) if number not in known)

        known = self.trials.keys() | self._interrupted.keys()
        return [*sorted(self._interrupted), *new()]


def _failed_as_declared(trial: Trial) -> bool:
    return trial.number == DECLARED and trial.state == "failed"
