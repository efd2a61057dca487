"""LitServe, batching on, with the settings its documentation recommends for throughput.

`python -m benchmarks.serve.servers.litserve_server PORT`
"""

import sys
from operator import attrgetter
from typing import Any

import litserve
from pydantic import BaseModel, ConfigDict, Field

from benchmarks.serve.work import MAX_BATCH_ROWS, MAX_ROWS, RowValues, Work, label, make_id, pydantic_row

WORK = Work.open()
Row = pydantic_row(WORK.plan, __name__)  # of this module, where the worker finds it to unpickle requests


class Request(BaseModel):
    """The rows, every field checked."""

    model_config = ConfigDict(extra="forbid", strict=True)
    rows: list[Row] = Field(min_length=1, max_length=MAX_ROWS)  # type: ignore[valid-type]


class Api(litserve.LitAPI):
    """decode -> batch -> predict -> unbatch -> encode; an item of a batch is one request."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Load the model in the worker."""
        self.work = Work.open()
        self.values = attrgetter(*self.work.plan.names)

    def decode_request(self, request: Request) -> list[RowValues]:
        """Take the rows' values; the annotation has the HTTP server check them."""
        return [self.values(row) for row in request.rows]

    def batch(self, inputs: list[list[RowValues]]) -> list[list[RowValues]]:
        """Keep the requests apart: their rows are joined when they are scored."""
        return inputs

    def predict(self, requests: list[list[RowValues]]) -> list[list[float]]:
        """Score all rows at once."""
        scores = iter(self.work.predict([row for rows in requests for row in rows]))
        return [[next(scores) for _ in rows] for rows in requests]

    def unbatch(self, output: list[list[float]]) -> list[list[float]]:
        """Give every request its scores."""
        return output

    def encode_response(self, output: list[float]) -> dict[str, Any]:
        """Return the answer of one request."""
        predictions = [{"id": make_id(), "score": score, "label": label(score)} for score in output]
        return {"model": self.work.name, "predictions": predictions}


def main(port: int) -> None:
    """Serve on loopback until told to end."""
    api = Api(max_batch_size=MAX_BATCH_ROWS, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run("127.0.0.1", port, num_api_servers=1, log_level="warning", generate_client_file=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
