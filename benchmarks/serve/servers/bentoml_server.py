"""BentoML 1.4 with adaptive batching; the rows of a request are the batch that it adds to.

A batchable method takes and gives one list, so the answer is the bare list of predictions.
"""

from operator import attrgetter
from typing import Any

import bentoml

from benchmarks.serve.work import MAX_BATCH_ROWS, Work, label, make_id, pydantic_row

WORK = Work.open()
ROW = pydantic_row(WORK.plan)


@bentoml.service(
    name="bench",
    workers=1,
    traffic={"timeout": 30},
    logging={"access": {"enabled": False}},
)
class Service:
    """One worker: the model and the HTTP server in one process."""

    def __init__(self) -> None:
        self.values = attrgetter(*WORK.plan.names)

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH_ROWS, max_latency_ms=1000)
    def predict(self, rows: list[ROW]) -> list[dict[str, Any]]:  # type: ignore[valid-type]
        """Score the rows of several requests at once."""
        scores = WORK.predict([self.values(row) for row in rows])
        return [{"id": make_id(), "score": score, "label": label(score)} for score in scores]
