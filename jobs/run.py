"""The whole way once: table, training, gate, endpoint, and the test rows asked over HTTP; ends with a report."""

import argparse
import http.client
import json
import logging
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa

from app.cluster import connect
from app.data.encode import load, read_columns
from app.data.prepare import Prepared
from app.declaration import Declaration
from app.model.bundle import Bundle, open_bundle
from app.model.contents import Evaluation
from app.pipeline import Stopwatch, TrainedVersion, train_version
from app.training.metrics import by_month, evaluate
from app.types import Scores, UserError
from app.workspace import Workspace, write_bytes
from jobs.build import build_table
from jobs.command import main

log = logging.getLogger(__name__)

ROWS_A_REQUEST = 10_000
SINGLE_ROWS = 500


def run(declaration: Declaration, workspace: Workspace, _: argparse.Namespace) -> None:
    """Build the example's table if it has one, train, deploy, ask, report."""
    watch = Stopwatch()
    with watch("table"):
        build_table(declaration)
    with watch("ray"):
        connect()
    version = train_version(declaration, workspace)
    log.info("version %d %s", version.number, "passed the gate" if version.verdict.passed else "was refused")
    for reason in version.verdict.reasons:
        log.info("  %s", reason)
    if not version.promoted:
        raise UserError("the version is not champion, so there is nothing to serve; see the reasons above")
    with watch("deploy"):
        from app.serving.deploy import deploy

        address = deploy(declaration.spec, version.bundle, str(version.number))
    log.info("answering at %s", address)
    bundle = open_bundle(version.bundle)
    with watch("requests"):
        client = Client(address)
        served = ask(client, bundle, version.prepared)
    report = _report(version, bundle, served, client, version.seconds | watch.seconds)
    path = workspace.uri(declaration.spec.name, "report.json")
    write_bytes(path, json.dumps(report, indent=2).encode())
    _tell(report)
    print(f"report: {path}")


class Client:
    """One HTTP connection to the endpoint that counts what it sends and what fails."""

    def __init__(self, address: str) -> None:
        parts = urlsplit(address)
        self._path = f"{parts.path}/predict"
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=60)
        self.sent = self.failed = self.rows = 0

    def predict(self, body: bytes, content_type: str) -> bytes:
        """Send one request and return the answer's body; b"" where the answer is no 200, which is counted."""
        self._connection.request("POST", self._path, body, {"content-type": content_type})
        answer = self._connection.getresponse()
        content = answer.read()
        self.sent += 1
        if answer.status != 200:
            self.failed += 1
            log.warning("%d %s", answer.status, content[:500].decode(errors="replace"))
            return b""
        return content


def ask(client: Client, bundle: Bundle, prepared: Prepared) -> Scores:
    """Ask for every test row as Arrow, and for some again as JSON, one by one; return the served scores (n,)."""
    table = read_columns(prepared, "test", bundle.plan.names)
    served = []
    for batch in table.combine_chunks().to_batches(max_chunksize=ROWS_A_REQUEST):
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        answer = client.predict(sink.getvalue().to_pybytes(), "application/vnd.apache.arrow.stream")
        served.append(pa.ipc.open_stream(answer).read_all()["score"].to_numpy())
        client.rows += batch.num_rows
    scores: Scores = np.concatenate(served)
    chosen = np.linspace(0, table.num_rows - 1, SINGLE_ROWS).astype(np.int64)
    for row, expected in zip(table.take(chosen).to_pylist(), scores[chosen], strict=True):
        answer = client.predict(json.dumps({"rows": [row]}).encode(), "application/json")
        score = json.loads(answer)["predictions"][0]["score"]
        if abs(score - expected) > 1e-6:
            raise RuntimeError(f"JSON and Arrow disagree on the same row: {score} and {expected}")
        client.rows += 1
    return scores


def _report(
    version: TrainedVersion, bundle: Bundle, served: Scores, client: Client, seconds: dict[str, float]
) -> dict[str, Any]:
    test = load(version.prepared, bundle.plan, "test")
    task = bundle.plan.target.task
    months = by_month(task, served, test.target, test.time) if len(test.time) else {}
    answered = Evaluation(evaluate(task, served, test.target), months)
    verdict = version.verdict
    return {
        "data": {"rows": version.prepared.rows, "quarantined": sum(version.prepared.quarantined.values())},
        "versions": [
            {
                "version": version.number,
                "reason": "first training",
                "metrics": asdict(version.network),
                "baseline": asdict(version.baseline) if version.baseline else None,
                "gate": asdict(verdict),
            }
        ],
        "requests": {"sent": client.sent, "failed": client.failed, "rows": client.rows},
        "decisions": [{"decision": "promote", "version": version.number, "evidence": verdict.reasons}],
        "served": {
            "overall": answered.overall,
            "mean_of_months": answered.mean_of_months(),
            "months": months,
        },
        "baseline": {"mean_of_months": version.baseline.mean_of_months() if version.baseline else {}},
        "seconds": seconds,
    }


def _tell(report: dict[str, Any]) -> None:
    served, baseline = report["served"]["mean_of_months"], report["baseline"]["mean_of_months"]
    print(f"\n{'mean of the test months':<28}{'served':>10}{'LightGBM':>10}")
    for name, value in served.items():
        print(f"{name:<28}{value:>10.4f}{baseline.get(name, float('nan')):>10.4f}")
    requests = report["requests"]
    print(f"{requests['sent']} requests, {requests['rows']:,} rows, {requests['failed']} failed")


if __name__ == "__main__":
    main(run, __doc__ or "")
