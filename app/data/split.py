"""Which part does a row belong to? By time wherever there is one, so that no part ever sees the future of another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.spec import Spec
from app.types import UserError

Parts: TypeAlias = npt.NDArray[np.int8]  # (n,) a part's number, or ASIDE
Moments: TypeAlias = npt.NDArray[np.int64]  # milliseconds since 1970, UTC

TRAIN: Final = 0
VALIDATION: Final = 1
TEST: Final = 2
ASIDE: Final = -1
PARTS = {"train": TRAIN, "validation": VALIDATION, "test": TEST}

SKETCH_POINTS = 4096


@dataclass(frozen=True)
class TimeSketch:
    """How rows lie in time, small and mergeable: sorted distinct moments, each with the rows it stands for.

    Exact up to `SKETCH_POINTS` distinct moments a piece; beyond, evenly spaced ranks and always both ends.
    """

    moments: tuple[int, ...] = ()
    rows: tuple[int, ...] = ()

    @staticmethod
    def of(moments: Moments) -> "TimeSketch":
        """Sketch the moments of some rows."""
        return _sketch(*np.unique(moments, return_counts=True))

    @staticmethod
    def merge(sketches: Sequence["TimeSketch"]) -> "TimeSketch":
        """Return the sketch of all rows together, whatever their order."""
        moments = np.concatenate(
            [np.array(sketch.moments, np.int64) for sketch in sketches] or [np.empty(0, np.int64)]
        )
        rows = np.concatenate([np.array(sketch.rows, np.int64) for sketch in sketches] or [np.empty(0, np.int64)])
        distinct, inverse = np.unique(moments, return_inverse=True)
        total = np.zeros(len(distinct), np.int64)
        np.add.at(total, inverse, rows)
        return TimeSketch(tuple(distinct.tolist()), tuple(total.tolist()))


def _sketch(moments: Moments, rows: Moments) -> TimeSketch:
    """Keep moments at evenly spaced ranks; each stands for the rows since the one before."""
    if len(moments) > SKETCH_POINTS:
        until = np.cumsum(rows)
        wanted = np.linspace(until[0], until[-1], SKETCH_POINTS)
        chosen = np.unique(np.searchsorted(until, wanted))
        moments, rows = moments[chosen], np.diff(until[chosen], prepend=0)
    return TimeSketch(tuple(moments.tolist()), tuple(rows.tolist()))


@dataclass(frozen=True)
class Cut:
    """Where the parts end. With `time`, by moments (milliseconds, UTC): a part holds `from <= moment < until`,
    None is open. Without, by a hash of the row's position: fractions `test` of all, `validation` of the rest.
    """

    time: str | None
    train_from: int | None = None
    train_until: int | None = None
    validation_from: int | None = None
    validation_until: int | None = None
    test_from: int | None = None
    validation: float = 0.0
    test: float = 0.0

    def assign(self, table: pa.Table, start: int) -> Parts:
        """Return each row's part; `table` holds checked rows, `start` is the position of the first."""
        if self.time is None:
            return self.by_position(start, table.num_rows)
        return self.by_moment(table.column(self.time).cast(pa.int64()).to_numpy())

    def by_moment(self, moments: Moments) -> Parts:
        """Return the part of each moment."""
        parts = np.full(len(moments), ASIDE, np.int8)
        parts[_within(moments, self.train_from, self.train_until)] = TRAIN
        parts[_within(moments, self.validation_from, self.validation_until)] = VALIDATION
        if self.test_from is not None:
            parts[moments >= self.test_from] = TEST
        return parts

    def by_position(self, start: int, rows: int) -> Parts:
        """Return the part of each of `rows` positions from `start` on: always the same for the same position."""
        drawn = _uniform(np.arange(start, start + rows, dtype=np.uint64))
        parts = np.full(rows, TRAIN, np.int8)
        parts[drawn < self.test + (1 - self.test) * self.validation] = VALIDATION
        parts[drawn < self.test] = TEST
        return parts


def cut_by_time(spec: Spec, labelled: TimeSketch) -> Cut:
    """Return the cut of a table whose labelled rows lie in time as sketched.

    Training rows lie before the test rows by more than `gap`, and the newest fraction of them validates; equal
    moments stay together. `retrain.window` counts back from the end of the training part.
    Raises UserError when a part would be empty.
    """
    split = spec.data.split
    gap = round(split.gap.total_seconds() * 1000)
    moments, rows = np.array(labelled.moments, np.int64), np.array(labelled.rows, np.int64)
    if not len(moments):
        raise UserError("data.split: no row has both a time and a label")
    test_from: int | None = None
    if split.train_until is not None:
        test_from = _milliseconds(split.train_until.timestamp())
    elif split.test > 0:
        test_from = _newest(moments, rows, split.test)
    ends = int(moments[-1]) + 1 if test_from is None else test_from - gap
    starts: int | None = None if split.train_from is None else _milliseconds(split.train_from.timestamp())
    if spec.retrain.window != "all":
        opened = ends - round(spec.retrain.window.total_seconds() * 1000)
        starts = opened if starts is None else max(starts, opened)
    usable = _within(moments, starts, ends)
    if not usable.any():
        raise UserError(_empty("train", starts, ends, moments))
    validation_from = _newest(moments[usable], rows[usable], split.validation)
    cut = Cut(
        time=spec.data.time,
        train_from=starts,
        train_until=validation_from - gap,
        validation_from=validation_from,
        validation_until=None if test_from is None else ends,
        test_from=test_from,
    )
    parts = cut.by_moment(moments)
    if not (parts == TRAIN).any():
        raise UserError(_empty("train", starts, validation_from - gap, moments))
    if not (parts == VALIDATION).any():
        raise UserError(_empty("validation", validation_from, ends, moments))
    if test_from is not None and not (parts == TEST).any():
        raise UserError(_empty("test", test_from, None, moments))
    return cut


def cut_by_position(spec: Spec, rows: int) -> Cut:
    """Return the cut of a table without a time. Raises UserError when a part would be empty."""
    split = spec.data.split
    cut = Cut(time=None, validation=split.validation, test=split.test)
    found = {name for name, part in PARTS.items() if (cut.by_position(0, rows) == part).any()}
    for name in PARTS:
        if name not in found and not (name == "test" and split.test == 0):
            raise UserError(
                f"data.split: the {name} part would be empty; found {rows:,} rows, too few for the fractions"
            )
    return cut


def _within(moments: Moments, start: int | None, until: int | None) -> npt.NDArray[np.bool_]:
    inside = np.ones(len(moments), np.bool_)
    if start is not None:
        inside &= moments >= start
    if until is not None:
        inside &= moments < until
    return inside


def _newest(moments: Moments, rows: Moments, fraction: float) -> int:
    """Return the moment from which on about `fraction` of the rows lie; never the very first if there is a later."""
    before = np.cumsum(rows) - rows
    index = int(np.searchsorted(before, (1 - fraction) * rows.sum() - 0.5))
    return int(moments[min(max(index, 1), len(moments) - 1)])


def _uniform(position: npt.NDArray[np.uint64]) -> npt.NDArray[np.float64]:
    """Return a number in [0, 1) for each position: splitmix64 (Steele, Lea & Flood 2014)."""
    with np.errstate(over="ignore"):
        mixed = position + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _empty(part: str, start: int | None, until: int | None, moments: Moments) -> str:
    asked = " ".join(
        f"{word} {_iso(moment)}" for word, moment in (("from", start), ("before", until)) if moment is not None
    )
    return (
        f"data.split: the {part} part would be empty: no labelled row {asked}; "
        f"found labelled rows from {_iso(int(moments[0]))} to {_iso(int(moments[-1]))}"
    )


def _iso(moment: int) -> str:
    return f"{np.datetime64(moment, 'ms')}Z"
