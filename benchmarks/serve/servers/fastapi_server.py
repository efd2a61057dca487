"""FastAPI on uvicorn, one row at a time: what a good engineer writes by hand in an afternoon."""

from operator import attrgetter

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from benchmarks.serve.work import MAX_ROWS, Work, label, make_id, pydantic_row


class Prediction(BaseModel):
    """One row's answer."""

    id: str
    score: float
    label: int


class Answer(BaseModel):
    """All rows' answers, in the order of the request."""

    model: str
    predictions: list[Prediction]


def build() -> FastAPI:
    """Return the application, its model loaded."""
    work = Work.open()
    values = attrgetter(*work.plan.names)
    row = pydantic_row(work.plan)

    class Request(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        rows: list[row] = Field(min_length=1, max_length=MAX_ROWS)  # type: ignore[valid-type]

    app = FastAPI()

    # A coroutine, because the model takes less time than a hop to a thread and back.
    @app.post("/predict")
    async def predict(request: Request) -> Answer:
        scores = work.predict([values(row) for row in request.rows])
        predictions = [Prediction(id=make_id(), score=score, label=label(score)) for score in scores]
        return Answer(model=work.name, predictions=predictions)

    return app
