"""What does a person see of a training? A bar on a terminal, a plain line an epoch, or every 50 trees, in a log."""

import contextlib
import logging
import sys
from collections.abc import Iterator

from tqdm import tqdm

from app.training.loop import OnEpoch

logger = logging.getLogger(__name__)

_FIGURES = ("auc", "accuracy", "rmse")


@contextlib.contextmanager
def show_epochs(epochs: int) -> Iterator[OnEpoch]:
    """Yield what `train` calls with every epoch: it moves a bar when stdout is a terminal, else it logs a line.

    Boosted trees have no epochs: they are counted, and move no bar.
    """
    if not sys.stdout.isatty():
        yield lambda line: logger.info("%s: %s", _place(line, epochs), describe(line))
        return
    with tqdm(total=epochs, unit="epoch", file=sys.stdout) as bar:

        def move(line: dict[str, float]) -> None:
            if "rounds" in line:
                bar.set_postfix_str(f"{_place(line, epochs)}, {describe(line)}")
                return
            bar.n = int(line["epoch"])
            bar.set_postfix_str(describe(line))

        yield move


def _place(line: dict[str, float], epochs: int) -> str:
    return f"{line['rounds']:,.0f} trees" if "rounds" in line else f"epoch {line['epoch']:.0f} of {epochs}"


def describe(line: dict[str, float]) -> str:
    """Return a history's line in words.

    >>> describe({"train_loss": 0.5, "validation_loss": 0.25, "validation_auc": 0.75, "rows_per_second": 1e5})
    'loss 0.5000, validation 0.2500, auc 0.7500, 100,000 rows/s'
    """
    told = [f"loss {line['train_loss']:.4f}"] if "train_loss" in line else []
    told.append(f"validation {line['validation_loss']:.4f}")
    told += [f"{name} {line[f'validation_{name}']:.4f}" for name in _FIGURES if f"validation_{name}" in line]
    if "rows_per_second" in line:
        told.append(f"{line['rows_per_second']:,.0f} rows/s")
    return ", ".join(told)
