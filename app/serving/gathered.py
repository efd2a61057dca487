"""How do many answered requests become one table of the journal's predictions?"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.data.features import CategoryColumn, FeaturePlan
from app.journal.rows import prediction_schema
from app.lineup import bucket
from app.serving.answered import Answered, Second, finite
from app.serving.moments import UNKNOWN, Moments, to_column
from app.serving.profiles import HOUR, Profiles, Role
from app.types import FIRST_ID, MISSING_ID, UNSEEN_ID, Features, Scores

_CHAMPION: Role = "champion"
_SHADOW: Role = "shadow"
_SALT = "journal"  # which rows are journaled must not hang on which rows a challenger answers


class Gathered:
    """The rows of requests that one champion scored, in their order: n rows in all."""

    def __init__(self, answered: Sequence[Answered]) -> None:
        self.answered = answered
        self.champion = answered[0].champion
        self.rows = [one.rows for one in answered]
        number = np.concatenate([one.batch.features.number for one in answered])
        self.features = Features(number, np.concatenate([one.batch.features.category for one in answered]))
        self.scores: Scores = np.concatenate([one.scores for one in answered])
        self.arrival: Moments = np.repeat(np.array([one.arrival for one in answered], np.int64), self.rows)
        self.event = self._event()
        self.ids = self._ids()
        self.sent = self._as_sent(self.champion.plan)

    def _event(self) -> Moments:
        if all(one.batch.event is None for one in self.answered):
            return self.arrival
        sent = [
            one.batch.event if one.batch.event is not None else np.full(one.rows, UNKNOWN) for one in self.answered
        ]
        event = np.concatenate(sent)
        return np.where(event == UNKNOWN, self.arrival, event)

    def _ids(self) -> pa.Array:
        pieces: list[pa.Array] = []
        plain: list[str] = []  # JSON brings ids one by one: many requests' are one array
        for one in self.answered:
            if isinstance(one.batch.ids, pa.Array):
                pieces += [pa.array(plain, pa.string()), one.batch.ids.cast(pa.string())]
                plain = []
            else:
                plain += map(str, one.batch.ids)
        return pa.concat_arrays([*pieces, pa.array(plain, pa.string())])

    def predictions(self, shadow_version: str | None, shadow: Scores | None, sample: float) -> pa.Table:
        """Return the rows to be journaled; `shadow` are a challenger's scores of the first rows.

        A challenger's answer stands as `score`, the champion's beside it as `shadow_score`. A shadow's score that is no
        number is null.
        """
        champion, n = self.champion, len(self.scores)
        scores, others = self.scores.copy(), np.full_like(self.scores, np.nan)
        versions, roles = np.full(n, champion.version, object), np.full(n, "champion", object)
        other_versions = np.full(n, None, object)
        if shadow is not None:
            others[: len(shadow)] = shadow
            other_versions[: len(shadow)] = shadow_version
        start = 0
        for one in self.answered:
            if one.second is not None and one.challenger is not None:
                place = np.flatnonzero(one.second.good) + start
                scores[start : start + one.rows] = one.second.merge(one.scores)
                versions[place], roles[place] = one.challenger.version, "challenger"
                others[place], other_versions[place] = self.scores[place], champion.version
            start += one.rows
        columns = [
            self.ids,
            to_column(self.event),
            to_column(self.arrival),
            pa.array(versions, pa.string()),
            pa.array(roles, pa.string()),
            _scores(scores),
            pa.array(other_versions, pa.string()),
            _scores(others, ~finite(others)),
            self.sent,
        ]
        table = pa.Table.from_arrays(columns, schema=prediction_schema(champion.plan))
        if sample >= 1:
            return table
        return table.filter(pa.array([bucket(row, _SALT) < sample for row in self.ids.to_pylist()]))

    def profile(self, profiles: Profiles) -> None:
        """Count who scored what; of rows that a challenger answered, the champion is the shadow."""
        heard = np.ones(len(self.scores), bool)
        seconds: list[Second] = []
        start = 0
        for one in self.answered:
            if one.second is not None:
                heard[start : start + one.rows] = ~one.second.good
                seconds.append(one.second)
            start += one.rows
        for role, rows in (_CHAMPION, heard), (_SHADOW, ~heard):
            profiles.count(self.champion, role, self.features.rows(rows), self.scores[rows], self.event[rows])
        window = int(self.event.max()) // HOUR * HOUR
        profiles.failed(self.champion, "champion", 0, int((~finite(self.scores)).sum()), window)
        challenger = self.answered[0].challenger
        if not seconds or challenger is None:
            return
        failed = sum(int(second.asked.sum()) for second in seconds if second.scores is None)
        profiles.failed(challenger, "challenger", failed, sum(second.not_finite for second in seconds), window)
        answers = [second.answers() for second in seconds if second.good.any()]
        if answers:
            number, category, scores = zip(*answers, strict=True)
            features = Features(np.concatenate(number), np.concatenate(category))
            profiles.count(challenger, "challenger", features, np.concatenate(scores), self.event[~heard])

    def _as_sent(self, plan: FeaturePlan) -> pa.StructArray:
        number, category = self.features
        values = [pa.array(column, from_pandas=True) for column in np.ascontiguousarray(number.T)]  # NaN: null
        unseen = np.argwhere(category.T == UNSEEN_ID)
        starts = np.concatenate([[0], np.cumsum(self.rows)])
        requests = np.searchsorted(starts, unseen[:, 1], side="right") - 1
        found: list[dict[int, object]] = [{} for _ in plan.category]
        for (column, row), request in zip(unseen.tolist(), requests.tolist(), strict=True):
            found[column][row] = self.answered[request].batch.sent(row - int(starts[request]), column)
        values += [_category(column, category[:, i], found[i]) for i, column in enumerate(plan.category)]
        kinds = prediction_schema(plan).field("features").type
        if not values:
            return pa.array([{}] * len(number), kinds)
        return pa.StructArray.from_arrays(values, fields=list(kinds))


def _category(column: CategoryColumn, ids: npt.NDArray[np.int64], unseen: dict[int, object]) -> pa.Array:
    """Return values by the vocabulary, and those it does not hold as they were sent, by row."""
    known = pa.array([*column.vocabulary, *unseen.values()], _KINDS[column.kind])
    index = ids - FIRST_ID
    index[list(unseen)] = np.arange(len(column.vocabulary), len(known))
    return known.take(pa.array(index, mask=ids == MISSING_ID))


_KINDS = {"string": pa.string(), "integer": pa.int64(), "boolean": pa.bool_()}


def _scores(scores: Scores, absent: npt.NDArray[np.bool_] | None = None) -> pa.Array:
    """Return scores as float32, or as a list a row where there are several; `absent` ones are null."""
    if scores.ndim == 1:
        return pa.array(scores, mask=absent)
    n, classes = scores.shape
    lengths = np.full(n, classes) if absent is None else np.where(absent, 0, classes)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    values = scores if absent is None else scores[~absent]
    nulls = None if absent is None else pa.array(absent)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values.ravel()), mask=nulls)
