"""Which label belongs to which prediction, how many have come, and how late? Joined by id; the last label counts."""

from dataclasses import dataclass

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc


def last(labels: pa.Table) -> pa.Table:
    """Return one label an id: the last that arrived; of several at once the last written. None where that is null."""
    return _one(labels, "last").filter(pc.field("label").is_valid())


def first(labels: pa.Table) -> pa.Table:
    """Return one label an id: the first that arrived, which later ones cannot change."""
    return _one(labels, "first").filter(pc.field("label").is_valid())


def _one(labels: pa.Table, keep: str) -> pa.Table:
    frame = pl.DataFrame({"id": pl.from_arrow(labels["id"]), "arrival": pl.from_arrow(labels["arrival"])})
    ordered = frame.with_row_index("row").sort("arrival", maintain_order=True)
    rows = ordered.group_by("id").agg(pl.col("row").last() if keep == "last" else pl.col("row").first())
    return labels.take(rows["row"].sort().to_arrow())


def places(ids: pa.ChunkedArray, labels: pa.Table) -> pa.ChunkedArray:
    """Return for each id its row among `labels` (one an id), null where it has none."""
    return pc.index_in(ids, value_set=labels["id"].combine_chunks())


def join(predictions: pa.Table, labels: pa.Table) -> pa.Table:
    """Return the predictions that have one of `labels` (one an id), with `label` and `label_event`."""
    found = places(predictions["id"], labels)
    rows, found = predictions.filter(pc.is_valid(found)), found.drop_null()
    rows = rows.append_column("label", labels["label"].take(found))
    return rows.append_column("label_event", labels["event"].take(found))


@dataclass(frozen=True)
class Coverage:
    """How far the labels have come for predictions old enough to have one; times in event time.

    `delays` are seconds from prediction to its first label, None where there is none: half and nine tenths of the
    labels came within. `late` labels took longer than one waits; `repeated` are further labels of an id; `unmatched`
    belong to no prediction.
    """

    predictions: int
    labelled: int
    delay_p50: float | None
    delay_p90: float | None
    late: int
    repeated: int
    unmatched: int

    @property
    def fraction(self) -> float | None:
        """Share of the predictions that have a label; None without any."""
        return self.labelled / self.predictions if self.predictions else None


def coverage(predictions: pa.Table, labels: pa.Table, before: int, wait: float) -> Coverage:
    """Measure the labels of predictions whose event is before a moment (ms since 1970).

    `predictions` need `id` and `event`; `wait` is the time in seconds after which a label is late.
    """
    known = first(labels)
    old = predictions.filter(pc.less(predictions["event"].cast(pa.int64()), before))
    found = join(old.select(["id", "event"]), known)
    delay = _milliseconds(found["label_event"]) - _milliseconds(found["event"])
    half, most = (float(q) / 1000 for q in np.quantile(delay, [0.5, 0.9])) if len(delay) else (None, None)
    ids = predictions["id"].combine_chunks()
    return Coverage(
        predictions=old.num_rows,
        labelled=found.num_rows,
        delay_p50=half,
        delay_p90=most,
        late=int((delay > wait * 1000).sum()),
        repeated=labels.num_rows - pc.count_distinct(labels["id"]).as_py(),
        unmatched=pc.sum(pc.invert(pc.is_in(labels["id"], value_set=ids))).as_py() or 0,
    )


def _milliseconds(column: pa.ChunkedArray) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    values: np.ndarray[tuple[int], np.dtype[np.int64]] = column.cast(pa.int64()).to_numpy()
    return values
