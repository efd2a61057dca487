"""What came of the predictions? Labels join them inside the fold: each waits a declared time for the other.

The first label of a prediction counts, later ones are duplicates. Memory is bounded: beyond `MOST` rows the oldest go
first, as if their time had passed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from app.data.features import Loss, TargetColumn
from app.data.loss import row_loss
from app.types import Scores, Targets

MOST = 1_000_000

_DELAYS = 4096  # newest delays that the quantiles rest on
_PREDICTION = ["id", "event", "arrival", "version", "role", "score", "shadow_version", "shadow_score"]
_LABEL = ["id", "label", "label_event", "label_arrival"]

Floats = npt.NDArray[np.float64]


@dataclass
class Tally:
    """Rows so far. `unmatched` labels waited in vain; `late` ones came after their prediction had."""

    predictions: int = 0
    repeated: int = 0  # predictions of an id that was known: they are not joined again
    joined: int = 0
    expired: int = 0  # predictions whose label did not come in time
    labels: int = 0
    unmatched: int = 0
    duplicates: int = 0
    late: int = 0
    unusable: int = 0  # joined, but no loss: a null, a class nobody declared, a score that is not finite


@dataclass
class Outcomes:
    """Predictions and labels that wait for each other, and ids that are settled, kept to know duplicates."""

    wait: int  # ms of event time
    tally: Tally = field(default_factory=Tally)
    predictions: pl.DataFrame = field(default_factory=pl.DataFrame)
    labels: pl.DataFrame = field(default_factory=pl.DataFrame)
    settled: pl.DataFrame = field(
        default_factory=lambda: pl.DataFrame(schema={"id": pl.String, "expired": pl.Boolean, "since": pl.Int64})
    )
    delays: Floats = field(default_factory=lambda: np.empty(0))  # seconds

    def join(self, predictions: pa.Table, labels: pa.Table, watermark: int) -> pl.DataFrame:
        """Take in a step's rows and return those now labelled: the columns of both, in order of prediction.

        `watermark` is the event time reached; what came at it is given up once it has gone on by `wait`.
        """
        if predictions.num_rows:
            self._take_predictions(predictions, watermark)
        if labels.num_rows:
            self._take_labels(labels, watermark)
        joined = self._match(watermark)
        self._expire(watermark)
        return joined

    @property
    def coverage(self) -> float | None:
        """Share of the predictions whose wait is over that got their label in time; None before there are any."""
        over = self.tally.joined + self.tally.expired
        return self.tally.joined / over if over else None

    @property
    def usual_delay(self) -> float:
        """Seconds within which nine of ten labels came, of the newest thousands; 0 before there are any."""
        return float(np.quantile(self.delays, 0.9)) if len(self.delays) else 0.0

    def _take_predictions(self, table: pa.Table, watermark: int) -> None:
        new = _frame(table.select(_PREDICTION), watermark)
        self.tally.predictions += len(new)
        fresh = new.unique("id", keep="first", maintain_order=True)
        fresh = fresh.filter(~pl.col("id").is_in(_among(self.predictions, fresh)))
        fresh = fresh.filter(~pl.col("id").is_in(_among(self.settled, fresh)))
        self.tally.repeated += len(new) - len(fresh)
        self.predictions = _append(self.predictions, fresh)

    def _take_labels(self, table: pa.Table, watermark: int) -> None:
        new = _frame(table.select(["id", "label", "event", "arrival"]).rename_columns(_LABEL), watermark)
        self.tally.labels += len(new)
        fresh = new.unique("id", keep="first", maintain_order=True)
        fresh = fresh.filter(~pl.col("id").is_in(_among(self.labels, fresh)))
        known = self.settled.filter(pl.col("id").is_in(fresh["id"].implode()))
        late = int(known["expired"].sum())
        fresh = fresh.filter(~pl.col("id").is_in(known["id"].implode()))
        self.tally.late += late
        self.tally.duplicates += len(new) - len(fresh) - late
        self.labels = _append(self.labels, fresh)

    def _match(self, watermark: int) -> pl.DataFrame:
        if self.predictions.is_empty() or self.labels.is_empty():
            return pl.DataFrame()
        hit = self.predictions["id"].is_in(self.labels["id"].implode())
        joined = self.predictions.filter(hit).join(
            self.labels.drop("since"), on="id", how="inner", maintain_order="left"
        )
        if joined.is_empty():
            return joined
        self.predictions = self.predictions.filter(~hit)
        self.labels = self.labels.filter(~pl.col("id").is_in(joined["id"].implode()))
        self._settle(joined, False, watermark)
        self.tally.joined += len(joined)
        self.delays = np.concatenate([self.delays, _delay(joined)])[-_DELAYS:]
        return joined

    def _expire(self, watermark: int) -> None:
        over, self.predictions = _part(self.predictions, watermark - self.wait)
        self.tally.expired += len(over)
        self._settle(over, True, watermark)
        over, self.labels = _part(self.labels, watermark - self.wait)
        self.tally.unmatched += len(over)
        _, self.settled = _part(self.settled, watermark - self.wait)

    def _settle(self, rows: pl.DataFrame, expired: bool, watermark: int) -> None:
        if len(rows):
            since = pl.lit(watermark, pl.Int64).alias("since")
            self.settled = _append(self.settled, rows.select("id", pl.lit(expired).alias("expired"), since))


def losses(joined: pl.DataFrame, target_of: Callable[[str], TargetColumn]) -> pl.DataFrame:
    """Return joined rows with `loss`, `shadow_loss` and their `difference`, the answer's less the shadow's.

    They are null where no shadow scored the row or there is no loss; the difference also where the two versions'
    losses are of different kinds, which says nothing.
    """
    versions = joined["version"].to_list(), joined["shadow_version"].to_list()
    columns = {
        name: _losses(of, joined[score], joined["label"], target_of)
        for name, of, score in (("loss", versions[0], "score"), ("shadow_loss", versions[1], "shadow_score"))
    }
    kinds = {of: _kind(target_of(of)) for of in {*versions[0], *versions[1]} if of}
    alike = np.array([kinds.get(one) == kinds.get(other) for one, other in zip(*versions, strict=True)], np.bool_)
    columns["difference"] = np.where(alike, columns["loss"] - columns["shadow_loss"], np.nan)
    return joined.with_columns(**{name: pl.Series(values).fill_nan(None) for name, values in columns.items()})


def _kind(target: TargetColumn) -> tuple[Loss, float]:
    return target.loss, target.quantile


def matrix(score: pl.Series) -> Scores:
    """Return scores (n,) or (n, K), NaN where there are none."""
    if score.dtype != pl.List:
        return score.cast(pl.Float32).fill_null(np.nan).to_numpy()
    width = score.list.len().max()
    assert width is None or isinstance(width, int)
    found = np.full((len(score), width or 1), np.nan, np.float32)
    present = score.is_not_null().to_numpy()
    found[present] = score.drop_nulls().explode().to_numpy().reshape(-1, width or 1)
    return found


def _losses(
    of: list[str | None], score: pl.Series, label: pl.Series, target_of: Callable[[str], TargetColumn]
) -> Floats:
    found = np.full(len(of), np.nan)
    names = np.array([name or "" for name in of])
    for version in sorted({name for name in of if name}):
        rows = np.flatnonzero(names == version)
        target = target_of(version)
        scores, targets = matrix(score[rows]), _targets(target, label[rows])
        good = ~np.isnan(targets) & np.isfinite(scores.reshape(len(rows), -1)).all(axis=1)
        if good.any():
            found[rows[good]] = row_loss(target, scores[good], targets[good])
    return found


def _targets(target: TargetColumn, label: pl.Series) -> Targets:
    """Return the labels (n,) as `TargetColumn.encode` does, but NaN for one that this version does not know.

    Labels may be of another version's type, and lie beside text of a third (`app.journal.tables`).
    """
    if target.task == "regression":
        return target.encode(label.cast(pl.Float64, strict=False).to_arrow())
    classes, text = pa.array(target.classes), label.to_arrow().cast(pa.string())
    known = pc.is_in(text, value_set=classes.cast(pa.string()))
    return target.encode(pc.if_else(known, text, None).cast(classes.type))


def _frame(table: pa.Table, watermark: int) -> pl.DataFrame:
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    moments = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    return frame.with_columns(pl.col(moments).dt.epoch("ms"), pl.lit(watermark, pl.Int64).alias("since"))


def _append(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """Return all rows; where the task is another since then, the old rows' scores are null."""
    if not len(old):
        return new
    other = [name for name, kind in new.schema.items() if (kind == pl.List) != (old.schema[name] == pl.List)]
    old = old.with_columns(pl.lit(None, new.schema[name]).alias(name) for name in other)
    return pl.concat([old, new], how="vertical_relaxed")


def _among(known: pl.DataFrame, new: pl.DataFrame) -> pl.Series:
    """Return, as one list, those ids of `new` that are known: the large side is only read once."""
    if known.is_empty():
        return pl.Series("id", [[]], dtype=pl.List(pl.String))
    return known["id"].filter(known["id"].is_in(new["id"].implode())).implode()


def _part(rows: pl.DataFrame, before: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Part those to be given up from those that wait on."""
    if rows.is_empty():
        return rows, rows
    over = (rows["since"] < before).to_numpy().copy()
    over[: max(0, len(rows) - MOST)] = True
    if not over.any():
        return rows.clear(), rows
    return rows.filter(pl.Series(over)), rows.filter(pl.Series(~over))


def _delay(joined: pl.DataFrame) -> Floats:
    """Return seconds (n,) from prediction to label: by when the label was known, or, if that was not sent, came."""
    came = pl.col("label_arrival") - pl.col("arrival")
    known = pl.col("label_event") - pl.col("event")
    sent = pl.col("label_event") != pl.col("label_arrival")
    chosen = joined.select(pl.when(sent).then(known).otherwise(came).cast(pl.Float64) / 1000)
    return chosen.to_series().to_numpy()
