"""Which label belongs to which prediction? Joined by id; the last label counts."""

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc


def last(labels: pa.Table) -> pa.Table:
    """Return one label an id: the last that arrived; of several at once the last written. None where that is null."""
    frame = pl.DataFrame({"id": pl.from_arrow(labels["id"]), "arrival": pl.from_arrow(labels["arrival"])})
    ordered = frame.with_row_index("row").sort("arrival", maintain_order=True)
    rows = ordered.group_by("id").agg(pl.col("row").last())
    return labels.take(rows["row"].sort().to_arrow()).filter(pc.field("label").is_valid())


def places(ids: pa.ChunkedArray, labels: pa.Table) -> pa.ChunkedArray:
    """Return for each id its row among `labels` (one an id), null where it has none."""
    return pc.index_in(ids, value_set=labels["id"].combine_chunks())


def join(predictions: pa.Table, labels: pa.Table) -> pa.Table:
    """Return the predictions that have one of `labels` (one an id), with `label` and `label_event`."""
    found = places(predictions["id"], labels)
    rows, found = predictions.filter(pc.is_valid(found)), found.drop_null()
    rows = rows.append_column("label", labels["label"].take(found))
    return rows.append_column("label_event", labels["event"].take(found))
