"""What does a person see of a search? A line for every trial that ends, and on a terminal a table of all that runs."""

import logging
import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from app.spec import Value
from app.training.search.space import Settings
from app.training.search.trials import DECLARED, Trial, best_of

log = logging.getLogger(__name__)

_SHOWN = 5  # of the best


class Show:
    """Tells of a search of `total` trials, called `name`; `terminal` also gets a table that stays below the lines."""

    def __init__(self, name: str, total: int, terminal: TextIO | None = None, known: Sequence[Trial] = ()) -> None:
        self._name, self._total, self._terminal = name, total, terminal
        self._trials = {trial.number: trial for trial in known}
        self._drawn = 0
        if self._trials:
            log.info("%s: %d trials are known from before", name, len(self._trials))

    @staticmethod
    def on_stdout(name: str, total: int, known: Sequence[Trial] = ()) -> "Show":
        """Tell of it in the log; draw the table where stdout is a terminal."""
        return Show(name, total, sys.stdout if sys.stdout.isatty() else None, known)

    def began(self, trial: Trial) -> None:
        """Show a trial that starts."""
        self._trials[trial.number] = trial
        self._draw()

    def heard(self, trial: Trial) -> None:
        """Show a trial's next epoch."""
        self._trials[trial.number] = trial
        self._draw()

    def ended(self, trial: Trial) -> None:
        """Tell how a trial ended."""
        self._trials[trial.number] = trial
        self._erase()
        log.info("%s %s", self._name, describe(trial, self._total, best_of(self._trials.values())))
        self._draw()

    def close(self) -> None:
        """Take the table away."""
        self._erase()

    def _draw(self) -> None:
        if self._terminal is None:
            return
        self._erase()
        width = shutil.get_terminal_size().columns
        lines = [line[: width - 1] for line in table(self._trials.values(), self._total)]
        self._terminal.write("".join(f"{line}\n" for line in lines))
        self._terminal.flush()
        self._drawn = len(lines)

    def _erase(self) -> None:
        if self._terminal is not None and self._drawn:
            self._terminal.write(f"\x1b[{self._drawn}F\x1b[J")  # up by so many lines, and all below is gone
            self._terminal.flush()
        self._drawn = 0


def describe(trial: Trial, total: int, best: Trial | None) -> str:
    """Tell how a trial ended, in one line.

    >>> describe(Trial(2, {"model.width": 64}, "finished", ((1, 0.5),), 0.5, seconds=3.0), 9, None)
    'trial 2 of 9: loss 0.5000 in 3.0 s; width 64'
    """
    told: str = trial.state
    if trial.loss is not None:
        told = f"loss {trial.loss:.4f}" + (f", {trial.state}" if trial.state != "finished" else "")
    told += f" in {trial.seconds:.1f} s"
    if best is not None and best.number != trial.number:
        told += f" (best {best.loss:.4f}, trial {best.number})"
    return f"trial {trial.number} of {total}: {told}; {trial.reason or describe_settings(trial)}"


def describe_settings(trial: Trial) -> str:
    """Name the settings that differ from the declaration."""
    return write_settings(trial.settings) if trial.number != DECLARED else "as declared"


def write_settings(settings: Settings) -> str:
    """Write settings in short.

    >>> write_settings({"model.trees.leaves": 31, "train.learning_rate": 0.0012345})
    'leaves 31, learning_rate 0.00123'
    """
    return ", ".join(f"{key.rpartition('.')[2]} {write_value(value)}" for key, value in settings.items())


def write_value(value: Value) -> str:
    """Write a value in three digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def table(trials: Iterable[Trial], total: int) -> list[str]:
    """Return the best trials and those that run, as lines of text."""
    known = sorted(trials, key=lambda trial: trial.number)
    ended = [trial for trial in known if trial.ended]
    best = sorted((trial for trial in ended if trial.state == "finished"), key=_loss)[:_SHOWN]
    running = [trial for trial in known if not trial.ended]
    lines = [f"{'trial':>6} {'epoch':>6} {'loss':>8}  settings"]
    lines += [_line(trial, trial.loss) for trial in best]
    lines += [_line(trial, trial.losses[-1][1] if trial.losses else None) + "  ..." for trial in running]
    counts = [(words, sum(trial.state == words for trial in ended)) for words in ("stopped early", "failed")]
    others = "".join(f", {count} {words}" for words, count in counts if count)
    return [*lines, f"{len(ended)} of {total} trials ended{others}"]


def _line(trial: Trial, loss: float | None) -> str:
    epoch = str(trial.losses[-1][0]) if trial.losses else "-"
    shown = "-" if loss is None else f"{loss:.4f}"
    return f"{trial.number:>6} {epoch:>6} {shown:>8}  {describe_settings(trial)}"


def _loss(trial: Trial) -> float:
    assert trial.loss is not None
    return trial.loss
