"""How does each version do? Sums by version and role, step by step, and losses by day.

What a rollout stage is judged by are sums since the step it began with, hours or weeks ago. They are kept a step apart
while they are fresh; older steps are put together, the more of them the longer ago they were.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from app.monitor.clock import DAY
from app.monitor.outcomes import matrix

Floats = npt.NDArray[np.float64]

_MOST_STEPS = 2048
_FINE = 32  # steps are put together once they were so many times as long ago as they are long
_MOST_DAYS = 800
FIGURES = (
    "rows",
    "calls",
    "errors",
    "not_finite",
    "pairs",  # rows that this version and the other have both scored
    "difference",  # sum of this version's score less the other's; of several classes, of the likeliest's
    "difference_squares",
    "distance",  # sum of |difference|; of several classes, half the sum over classes
    "labelled",
    "loss",
    "loss_squares",
    "paired_labelled",
    "loss_difference",  # sum of this version's loss less the other's, on the same rows
    "loss_difference_squares",
)
"""What is summed of a version in a role; behind them come the scoring calls by `telemetry.DURATION_BOUNDS`."""

_PLACE = {name: i for i, name in enumerate(FIGURES)}


@dataclass
class Series:
    """Sums of one version in one role: row i holds what came in the steps from `steps[i]` to the next row's."""

    steps: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    sums: Floats = field(default_factory=lambda: np.empty((0, len(FIGURES))))

    def add(self, step: int, values: Floats) -> None:
        """Add the sums (F,) of a step; steps come in order."""
        width = max(self.sums.shape[1], len(values))
        sums = np.pad(self.sums, ((0, 0), (0, width - self.sums.shape[1])))
        values = np.pad(values, (0, width - len(values)))
        if len(self.steps) and self.steps[-1] == step:
            sums[-1] += values
            self.sums = sums
            return
        self.steps, self.sums = np.append(self.steps, step), np.vstack([sums, values])
        if len(self.steps) > _MOST_STEPS:
            ends = np.append(self.steps[1:], step + 1)[1::2]  # of every two rows
            apart = np.ones(len(self.steps), np.bool_)
            apart[1::2] = (ends - self.steps[:-1:2]) * _FINE > step + 1 - ends
            begins = np.flatnonzero(apart)
            self.steps, self.sums = self.steps[begins], np.add.reduceat(self.sums, begins)

    def since(self, step: int) -> Floats:
        """Return the sums (F,) of the steps after `step`; of those next to it, at most one in `_FINE` may be left out."""
        total: Floats = self.sums[self.steps > step].sum(axis=0)
        return total


@dataclass
class Losses:
    """Labelled rows, sum and sum of squares of their losses, by day of the prediction."""

    days: dict[int, tuple[int, float, float]] = field(default_factory=dict)

    def add(self, event: npt.NDArray[np.int64], loss: Floats) -> None:
        """Add rows' losses (n,); what is not a number is left aside."""
        for day, chosen in by_day(event, loss):
            rows, total, squares = self.days.get(day, (0, 0.0, 0.0))
            self.days[day] = rows + len(chosen), total + float(chosen.sum()), squares + float((chosen**2).sum())
        keep_newest(self.days)

    def __iter__(self) -> Iterator[tuple[int, int, float, float]]:
        """Yield day (ms since 1970), rows, sum and sum of squares, oldest first."""
        return ((day, *self.days[day]) for day in sorted(self.days))


@dataclass
class Figures:
    """All versions' sums; keys are (version, role), role one of champion, challenger, shadow."""

    series: dict[tuple[str, str], Series] = field(default_factory=dict)
    losses: dict[tuple[str, str], Losses] = field(default_factory=dict)
    paired: dict[str, Losses] = field(default_factory=dict)  # by challenger: its loss less the champion's

    def add_profiles(self, step: int, profiles: pa.Table) -> None:
        """Add what replicas counted."""
        columns = ("version", "role", "rows", "calls", "errors", "not_finite", "seconds")
        for version, role, *counts, seconds in zip(*(profiles[name].to_pylist() for name in columns), strict=True):
            values = np.zeros(len(FIGURES) + len(seconds or ()))
            values[: len(counts)] = [count or 0 for count in counts]
            values[len(FIGURES) :] = seconds or ()
            self._series(version, role).add(step, values)

    def add_pairs(self, step: int, predictions: pa.Table) -> None:
        """Compare the scores of rows that champion and challenger have both scored."""
        paired = predictions.filter(predictions["shadow_version"].is_valid())
        if paired.num_rows == 0:
            return
        frame = pl.from_arrow(paired.select(["version", "role", "score", "shadow_version", "shadow_score"]))
        assert isinstance(frame, pl.DataFrame)
        for version, role, ours, rows in _challengers(frame):
            mine, other = ("score", "shadow_score") if ours else ("shadow_score", "score")
            ours_scores, theirs = (matrix(frame[name][rows]).astype(np.float64) for name in (mine, other))
            good = np.isfinite(ours_scores + theirs).reshape(len(rows), -1).all(axis=1)
            ours_scores, theirs = ours_scores[good], theirs[good]
            if ours_scores.ndim == 2:
                distance = np.abs(ours_scores - theirs).sum(axis=1) / 2
                difference = ours_scores.max(axis=1, initial=0) - theirs.max(axis=1, initial=0)
            else:
                difference = ours_scores - theirs
                distance = np.abs(difference)
            self._add(
                step,
                (version, role),
                pairs=len(difference),
                difference=difference.sum(),
                difference_squares=(difference**2).sum(),
                distance=distance.sum(),
            )

    def add_losses(self, step: int, joined: pl.DataFrame) -> None:
        """Add rows that have got their label, as `outcomes.losses` returns them."""
        event = joined["event"].to_numpy()
        loss, shadow, less = (
            joined[name].fill_null(np.nan).to_numpy() for name in ("loss", "shadow_loss", "difference")
        )
        answered = joined.select("version", "role").with_row_index()
        for (version, role), rows in answered.group_by("version", "role", maintain_order=True):
            self._add_loss(step, (str(version), str(role)), event, loss, rows["index"].to_numpy())
        scored = answered.with_columns(joined["shadow_version"]).filter(pl.col("shadow_version").is_not_null())
        for (version,), rows in scored.group_by("shadow_version", maintain_order=True):
            self._add_loss(step, (str(version), "shadow"), event, shadow, rows["index"].to_numpy())
        for version, role, ours, index in _challengers(joined):
            difference = less[index] if ours else -less[index]
            known = difference[~np.isnan(difference)]
            self.paired.setdefault(version, Losses()).add(event[index], difference)
            self._add(
                step,
                (version, role),
                paired_labelled=len(known),
                loss_difference=known.sum(),
                loss_difference_squares=(known**2).sum(),
            )

    def _add_loss(
        self,
        step: int,
        key: tuple[str, str],
        event: npt.NDArray[np.int64],
        loss: Floats,
        rows: npt.NDArray[np.integer],
    ) -> None:
        known = loss[rows][~np.isnan(loss[rows])]
        self.losses.setdefault(key, Losses()).add(event[rows], loss[rows])
        self._add(step, key, labelled=len(known), loss=known.sum(), loss_squares=(known**2).sum())

    def _add(self, step: int, key: tuple[str, str], **values: float) -> None:
        sums = np.zeros(len(FIGURES))
        for name, value in values.items():
            sums[_PLACE[name]] = value
        self._series(*key).add(step, sums)

    def _series(self, version: str, role: str) -> Series:
        return self.series.setdefault((version, role), Series())


def by_day(event: npt.NDArray[np.int64], values: Floats) -> Iterator[tuple[int, Floats]]:
    """Yield the days (ms since 1970) of rows and their values that are numbers."""
    known = ~np.isnan(values)
    event, values = event[known] // DAY * DAY, values[known]
    order = np.argsort(event, kind="stable")
    days, starts = np.unique(event[order], return_index=True)
    yield from zip(days.tolist(), np.split(values[order], starts[1:]), strict=False)


def keep_newest(days: dict[int, tuple[int, float, float]] | dict[int, int]) -> None:
    """Forget the oldest days beyond some years of them."""
    for day in sorted(days)[: max(0, len(days) - _MOST_DAYS)]:
        del days[day]


def _challengers(frame: pl.DataFrame) -> Iterator[tuple[str, str, bool, npt.NDArray[np.integer]]]:
    """Yield the challengers of rows that both have scored: version, role, whether it answered, and which rows."""
    both = frame.select("version", "role", "shadow_version").with_row_index()
    both = both.filter(pl.col("shadow_version").is_not_null())
    for (version, role, shadow), rows in both.group_by("version", "role", "shadow_version", maintain_order=True):
        ours = role == "challenger"
        yield str(version if ours else shadow), "challenger" if ours else "shadow", ours, rows["index"].to_numpy()
