"""Which rows came when? A declared table laid out in event time, as if every row had been asked and labelled."""

import datetime as dt
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from app.data.prepare import Prepared
from app.data.rows import pieces
from app.data.split import Cut
from app.spec import Spec
from app.types import UserError

DAY = 86_400_000  # ms
FEWEST_DAYS = 30
_NEVER = 2**62

Moments = npt.NDArray[np.int64]


@dataclass(frozen=True)
class History:
    """n checked rows, ascending in time; those before `start` have trained the first version.

    `time` (n,) and `start` are in ms since 1970; a label is known `delay` ms after its row. `place` (n,) tells where
    a row stands in the prepared table, whose parts come in that order.
    """

    prepared: Prepared
    table: pa.Table
    time: Moments
    place: npt.NDArray[np.int64]
    labelled: npt.NDArray[np.bool_]
    start: int
    delay: int

    @staticmethod
    def of(prepared: Prepared, spec: Spec, start: int | None, delay: int) -> "History":
        """Lay out a prepared table; `start` is a fifth of its time from its beginning, unless given.

        Raises UserError for a table without times, or with too few days after the start.
        """
        if prepared.cut.time is None:
            raise UserError("a backtest needs data.time: it goes through the table day by day")
        columns = list(dict.fromkeys([*prepared.features, prepared.target, prepared.cut.time, *spec.gate.slices]))
        everything = replace(prepared, cut=Cut(prepared.cut.time, validation_from=_NEVER))
        found = [table for _, table in pieces(everything, prepared.fragments, "train", columns, (), True)]
        table = pa.concat_tables(found)
        time = table[prepared.cut.time].cast(pa.int64()).to_numpy()
        place = np.argsort(time, kind="stable")
        table, time = table.take(place), time[place]
        begin = int(time[0] + (time[-1] - time[0]) // 5) // DAY * DAY if start is None else start
        if time[-1] - begin < FEWEST_DAYS * DAY or begin <= time[0]:
            first, last = (np.datetime64(int(moment), "ms").item().date() for moment in (time[0], time[-1]))
            raise UserError(
                f"the table's rows are of {first} to {last}; a backtest needs rows before its start "
                f"({np.datetime64(begin, 'ms').item().date()}) and {FEWEST_DAYS} days after it"
            )
        labelled = pc.invert(pc.is_null(table[prepared.target], nan_is_null=True)).to_numpy()
        return History(prepared, table, time, place, labelled, begin, delay)

    def rows(self, begin: int, end: int) -> slice:
        """Return the rows of a span of time, [begin, end) in ms."""
        first, last = np.searchsorted(self.time, [begin, end])
        return slice(int(first), int(last))

    def known(self, begin: int, end: int) -> npt.NDArray[np.int64]:
        """Return the rows whose labels became known in a span of time."""
        rows = self.rows(begin - self.delay, end - self.delay)
        found: npt.NDArray[np.int64] = np.flatnonzero(self.labelled[rows]) + rows.start
        return found

    def cut(self, spec: Spec, trained_until: int, validation: float) -> Cut:
        """Return the cut of a training on the labelled rows before a moment, of which the newest fraction validates.

        Raises UserError when there are too few.
        """
        opened = None if spec.retrain.window == "all" else trained_until - _ms(spec.retrain.window)
        rows = self.rows(int(self.time[0]) if opened is None else opened, trained_until)
        moments = self.time[rows][self.labelled[rows]]
        if len(moments) < 2:
            raise UserError(f"only {len(moments)} labelled rows lie before {np.datetime64(trained_until, 'ms')}")
        validation_from = int(moments[round((1 - validation) * (len(moments) - 1))])
        return Cut(
            time=self.prepared.cut.time,
            train_from=opened,
            train_until=validation_from - _ms(spec.data.split.gap),
            validation_from=validation_from,
            validation_until=trained_until,
            test_from=trained_until,
        )


def _ms(time: dt.timedelta) -> int:
    return time // dt.timedelta(milliseconds=1)
