"""Has the world moved, or has something broken upstream?

A fault needs what no move of the world brings: most values of a feature missing at once, a value that varied every
hour and now stands still, values that jump from one hour to the next and are the old ones in another unit, codes
spelled anew. Where both could be, it is the world: drift may retrain, and a fault pages somebody.

- schema:   a feature that mostly was there is always missing
- missing:  a large part of its values is missing at once, or what next to never was missing now is for a day
- constant: a number that varied within every hour has had one value for hours
- unit:     its values are those before, or the reference's, by a known conversion (`app.monitor.units`)
- unseen:   categories that are known ones respelled, or that take the place of known ones, or are many at once
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from app.data.features import NumberColumn
from app.monitor import units
from app.monitor.binning import FIRST, MISSING, OUTSIDE
from app.monitor.clock import DAY, HOUR
from app.monitor.findings import Finding, Subject
from app.monitor.recent import Recent
from app.monitor.samples import Samples

_FEW, _SOME, _ENOUGH = 30, 100, 200  # rows that an obvious, a clear and a delicate fault have to show in
_ALL = 0.995
_BURST = 0.5  # of the values that there should be are gone, or never were so in training
_NEARLY = 0.9  # as much, of what now and then is missing anyway
_RARELY, _OFTEN = 0.005, 0.1
_STILL_HOURS = 6
_COMMON = 0.05  # share of a value in training from which it may be the only one for hours
_UNSEEN = 0.02
_MANY_UNSEEN = 0.3
_TIMES = 5
_CERTAIN = 10  # rows that a value should have had, for its absence to say something
_TOLD = 5

Floats = npt.NDArray[np.float64]


class Fault(NamedTuple):
    """Something that broke: what, by which cause, what happened in a word; since when (0: now), and its evidence."""

    what: str
    cause: str
    direction: str
    shift: float
    onset: int
    detail: dict[str, Any]


class _Span(NamedTuple):
    """The newest hours that together have some number of rows: counts (W, bins + 2) seen, shares expected."""

    recent: Recent
    rows: int
    seen: Floats
    expected: Floats

    @property
    def start(self) -> int:
        return int(self.recent.starts[0])

    @property
    def end(self) -> int:
        return int(self.recent.starts[-1]) + HOUR


def diagnose(subject: Subject, recent: Recent, samples: Samples, known: Mapping[str, Finding]) -> Iterator[Fault]:
    """Yield what is broken at the end of the recent hours; `known` are faults that are open already, by feature.

    One feature has one fault: the first in the order above.
    """
    told: set[str] = set()
    for fault in (
        *_missing(subject, recent),
        *_constant(subject, recent, samples, known),
        *_unit(subject, recent, samples, known),
        *_unseen(subject, recent, samples),
    ):
        if fault.what not in told:
            told.add(fault.what)
            yield fault


def _missing(subject: Subject, recent: Recent) -> Iterator[Fault]:
    """A feature that now and then was missing in training may well be for some hours: then only a day counts."""
    binning = subject.reference.binning
    now, day = _newest(subject, recent, _FEW), _newest(subject, recent, _SOME, DAY)
    if now is None:
        return
    counts = subject.reference.counts.sum(axis=0)
    overall = counts[:, MISSING] / np.maximum(counts.sum(axis=1), 1)
    for i, name in enumerate((*binning.numbers, *binning.categories)):
        span, burst = (now, _BURST) if overall[i] <= _RARELY else (day, _NEARLY)
        if span is None:
            continue
        seen, expected = span.seen[i, MISSING], max(span.expected[i, MISSING], overall[i])
        if seen >= _ALL and expected <= _BURST:
            yield _gone(name, "schema", "always missing", span, i, expected)
        elif seen - expected >= burst * (1 - expected) and expected <= _BURST:
            yield _gone(name, "missing", "mostly missing", span, i, expected)
        elif day and overall[i] <= _RARELY and day.seen[i, MISSING] >= _OFTEN:
            yield _gone(name, "missing", "often missing", day, i, expected)


def _gone(name: str, cause: str, direction: str, span: _Span, thing: int, expected: float) -> Fault:
    seen = float(span.seen[thing, MISSING])
    sd = max(np.sqrt(expected * (1 - expected)), 0.01)
    figures = {"rows": span.rows, "missing": round(seen, 4), "expected": round(float(expected), 4)}
    return Fault(name, cause, direction, float((seen - expected) / sd), span.start, figures)


def _constant(subject: Subject, recent: Recent, samples: Samples, known: Mapping[str, Finding]) -> Iterator[Fault]:
    """Calendar features stand still for hours, too: so what counts is that every hour before had several values.

    A value that was common in training, such as no rain, may be all there is for a while.
    """
    binning = subject.reference.binning
    span = _newest(subject, recent, _SOME, _STILL_HOURS * HOUR)
    if span is None or len(recent.starts) < len(span.recent.starts) + _STILL_HOURS:
        return
    numbers, hours = len(binning.numbers), len(span.recent.starts)
    filled = (recent.counts[:, :numbers, OUTSIDE:] > 0).sum(axis=2)  # (H, N) bins with rows
    stands, varied = (filled[-hours:] == 1).all(axis=0), (filled[:-hours] > 1).all(axis=0)
    rows = samples.between(span.start, span.end) if stands.any() else pl.DataFrame()
    for i in np.flatnonzero(stands).tolist():
        name, column = binning.numbers[i], subject.plan.number[i]
        values, fault = _values(rows, name), known.get(name)
        if len(values) < _SOME or values.min() != values.max() or not column.quantiles:
            continue
        if fault and fault.detector == "constant":
            yield Fault(name, "constant", fault.direction, fault.shift, fault.onset, fault.detail)
        elif varied[i] and np.mean(np.array(column.quantiles) == values[0]) < _COMMON:
            reference = units.quantiles(np.array(column.quantiles))
            shift = float((values[0] - reference[len(reference) // 2]) / units.spread(reference))
            detail = {"rows": span.rows, "value": float(values[0]), "hours": (span.end - span.start) // HOUR}
            yield Fault(name, "constant", "stands still", shift, span.start, detail)


def _unit(subject: Subject, recent: Recent, samples: Samples, known: Mapping[str, Finding]) -> Iterator[Fault]:
    """Look at numbers that training never saw so, at once; and at all, every few hours, by the whole last day.

    A day is held against the one before, if there was one, and the reference.
    """
    span, day = _newest(subject, recent, _FEW), _newest(subject, recent, _ENOUGH, DAY)
    if span is None:
        return
    halves: tuple[pl.DataFrame, ...] = ()
    if day is not None and span.end % (_STILL_HOURS * HOUR) == 0:
        noon = day.end - DAY // 2
        times = ((day.start - DAY, day.start), (day.start, noon), (noon, day.end))
        halves = tuple(samples.between(*part) for part in times)
    there = 1 - span.seen[:, MISSING]
    outside = span.seen[:, OUTSIDE] >= _BURST * np.maximum(there, 0.01)
    for i, column in enumerate(subject.plan.number):
        fault = known.get(column.name)
        if fault and fault.detector == "unit":
            now = _quantiles(samples.between(span.start, span.end), column.name)
            if now is not None and units.still(fault.detail["sent"], now, np.array(fault.detail["before"])):
                yield Fault(column.name, "unit", fault.direction, fault.shift, fault.onset, fault.detail)
            continue
        found = _jumped(column, span, samples) if outside[i] else None
        if found is None and day is not None and halves:
            before, *parts = (_quantiles(rows, column.name) for rows in halves)
            found = _explained(column, day, parts, [before], units.turned)
        if found is not None:
            yield found


def _jumped(column: NumberColumn, span: _Span, samples: Samples) -> Fault | None:
    """Hold the newest hours against the rows just before them, and against the same hours a day ago."""
    earlier = (
        samples.between(span.start - DAY, span.start).tail(_SOME),
        samples.between(span.start - DAY - HOUR, min(span.end - DAY + HOUR, span.start)),
    )
    now = _quantiles(samples.between(span.start, span.end), column.name)
    held = [one for one in (_quantiles(rows, column.name) for rows in earlier) if one is not None]
    return _explained(column, span, [now], held, units.jumped) if held else None


def _explained(
    column: NumberColumn,
    span: _Span,
    seen: Sequence[Floats | None],
    held: Sequence[Floats | None],
    explain: Callable[[Sequence[Floats], Sequence[Floats], float], units.Found | None],
) -> Fault | None:
    now = [one for one in seen if one is not None]
    if len(now) < len(seen) or not column.quantiles:
        return None
    reference = units.quantiles(np.array(column.quantiles))
    before = [*(one for one in held if one is not None), reference]
    scale = units.spread(reference)
    if not units.comparable(reference):
        return None
    found = explain(now, before, scale)
    if found is None:
        return None
    detail = {
        "rows": span.rows,
        "sent": found.words,
        "distance": round(found.distance, 3),
        "explained": round(found.explained, 3),
        "before": before[0].tolist(),
    }
    shift = float((now[-1] - before[0]).mean() / scale)
    return Fault(column.name, "unit", f"as if {found.words}", shift, span.start, detail)


def _unseen(subject: Subject, recent: Recent, samples: Samples) -> Iterator[Fault]:
    binning = subject.reference.binning
    span = _newest(subject, recent, _SOME)
    if span is None:
        return
    first = len(binning.numbers)
    earlier = Recent(recent.starts[: -len(span.recent.starts)], recent.counts[: -len(span.recent.starts)])
    rows = None
    for i, column in enumerate(subject.plan.category):
        thing = first + i
        usual = max(float(subject.reference.unseen[i]), float(span.expected[thing, OUTSIDE]))
        seen = float(span.seen[thing, OUTSIDE])
        if seen < usual + _UNSEEN or seen < _TIMES * usual:
            continue
        rows = samples.between(span.start, span.end) if rows is None else rows
        vocabulary = pl.Series([str(value) for value in column.vocabulary], dtype=pl.String)
        sent = rows[column.name].drop_nulls().cast(pl.String) if column.name in rows.columns else vocabulary
        new = sent.filter(~sent.is_in(vocabulary.implode()))
        if new.is_empty():
            continue
        spellings = {_spelling(value) for value in vocabulary}
        respelled = np.mean([_spelling(value) in spellings for value in new])
        before = _share(earlier, thing, OUTSIDE)
        sudden = before is None or before <= seen / _TIMES
        gone = _vanished(span, earlier, thing)
        if respelled >= _BURST:
            direction = "known values respelled"
        elif sudden and seen - usual >= _MANY_UNSEEN:
            direction = "many unseen values at once"
        elif sudden and 0.67 * seen <= sum(gone.values()) <= 1.5 * seen:
            direction = "unseen values in the place of known ones"
        else:
            continue
        counts = new.alias("value").value_counts().sort("count", "value", descending=[True, False]).head(_TOLD)
        places = [str(column.vocabulary[b - FIRST]) for b in gone]
        detail = {
            "rows": span.rows,
            "unseen": round(seen, 4),
            "expected": round(usual, 4),
            "values": dict(counts.iter_rows()),
            "vanished": places[:_TOLD],
        }
        yield Fault(column.name, "unseen", direction, (seen - usual) / max(usual, 0.01) ** 0.5, span.start, detail)


def _vanished(span: _Span, earlier: Recent, thing: int) -> dict[int, float]:
    """Return the common values' bins, and their usual shares, that are gone although they were there just before."""
    if not len(earlier.starts):
        return {}
    expected, seen = span.expected[thing, FIRST:-1], span.seen[thing, FIRST:-1]
    lately = earlier.seen[thing, FIRST:-1] / max(int(earlier.seen[thing].sum()), 1)
    gone = (expected * span.rows >= _CERTAIN) & (seen <= 0.1 * expected) & (lately >= 0.3 * expected)
    return {int(b) + FIRST: float(expected[b]) for b in np.flatnonzero(gone)}


def _newest(subject: Subject, recent: Recent, rows: int, length: int = 0) -> _Span | None:
    """Return the newest hours that have `rows` rows and span `length` ms; None where there are none."""
    by_hour = recent.counts[:, 0].sum(axis=1, dtype=np.int64)
    upto = np.cumsum(by_hour[::-1])
    enough = (upto >= rows) & (recent.starts[-1] + HOUR - recent.starts[::-1] >= length)
    if not enough.any():
        return None
    first = len(recent.starts) - 1 - int(enough.argmax())
    chosen = Recent(recent.starts[first:], recent.counts[first:])
    total = int(upto[enough.argmax()])
    return _Span(chosen, total, chosen.seen / total, chosen.expected(subject.reference))


def _values(rows: pl.DataFrame, name: str) -> Floats:
    """Return the present values of a number."""
    if name not in rows.columns:
        return np.empty(0)
    return rows[name].drop_nulls().drop_nans().cast(pl.Float64).to_numpy()


def _quantiles(rows: pl.DataFrame, name: str) -> Floats | None:
    values = _values(rows, name)
    return units.quantiles(values) if len(values) >= _FEW else None


def _share(recent: Recent, thing: int, b: int) -> float | None:
    if not len(recent.starts):
        return None
    counts = recent.seen[thing]
    return float(counts[b] / max(int(counts.sum()), 1))


def _spelling(value: str) -> str:
    """Return what stays of a code however it is written: letters and digits, a number without its `.0`."""
    return "".join(c for c in value.casefold().removesuffix(".0") if c.isalnum()).lstrip("0") or "0"
