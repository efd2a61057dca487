"""Which rows judge a trial? The newest ones, and whole days drawn from within the training window.

Cai and Ye (2025), "Understanding the Limits of Deep Tabular Methods with Temporal Shift": where the newest rows alone
validate, the choice fits their weather (a bias of the validation), and what was learned lags behind them; rows drawn
at random within the window take from both. Whole days, because rows of one day know each other's answers.
"""

import numpy as np
import numpy.typing as npt

from app.data.encode import Examples, joined
from app.training.loader import Parts

_DAY = 86_400_000


def with_drawn_days(parts: Parts, fraction: float, seed: int) -> Parts:
    """Move a `fraction` of the training rows to those that validate: whole UTC days drawn at random by `seed`.

    Rows without a time are drawn one by one. Training keeps at least one day, or row.
    """
    train, validation = parts
    drawn = _drawn(train, fraction, seed)
    return Parts(train.chosen(~drawn), joined(train.chosen(drawn), validation))


def _drawn(train: Examples, fraction: float, seed: int) -> npt.NDArray[np.bool_]:
    """Return which rows are drawn (n,): groups in random order, as long as one more comes closer to the fraction."""
    rows = len(train.target)
    group = train.time // _DAY if len(train.time) else np.arange(rows)
    groups, of_row, sizes = np.unique(group, return_inverse=True, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(groups))
    reached = np.cumsum(sizes[order])
    chosen = order[:-1][reached[:-1] - sizes[order][:-1] / 2 < fraction * rows]
    taken = np.zeros(len(groups), np.bool_)
    taken[chosen] = True
    return np.asarray(taken[of_row])
