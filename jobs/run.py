"""The whole loop: train on history, serve, replay the arrivals, watch, retrain, roll out; ends with a report."""

import argparse
import json
import logging
import os
import time
from typing import Any

from app.cluster import connect
from app.data.features import TargetColumn
from app.declaration import Declaration
from app.keys import ENVIRONMENT
from app.model.bundle import open_bundle
from app.model.contents import Evaluation
from app.pipeline import Stopwatch, TrainedVersion, train_version
from app.registry import Registry
from app.replay import Answers, Arrivals, Client, Replay, read_arrivals
from app.serving import listener
from app.training.metrics import by_month, evaluate
from app.types import Scores, Targets, UserError
from app.workspace import Workspace, write_bytes
from jobs.build import build_table
from jobs.command import main
from jobs.replay import Watch, add_arguments

log = logging.getLogger(__name__)

PATIENCE = 60
"""Seconds the loop may take to read the last of the journal."""


def run(declaration: Declaration, workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Build the example's table if it has one, then close the loop over its arrivals and report."""
    watch, spec = Stopwatch(), declaration.spec
    listener.check(spec.serve)
    with watch("table"):
        build_table(declaration)
        arrivals = read_arrivals(declaration, arguments.arrivals, arguments.known, arguments.delay)
    with watch("ray"):
        connect(listens=spec.serve.listens)
    first = train_version(declaration, workspace)
    log.info("version %d %s", first.number, "passed the gate" if first.verdict.passed else "was refused")
    for reason in first.verdict.reasons:
        log.info("  %s", reason)
    if not first.promoted:
        raise UserError("the version is not champion, so there is nothing to serve; see the reasons above")
    with watch("deploy"):
        from app.decisions import actor
        from app.serving.deploy import deploy

        address = deploy(declaration.spec, workspace, first.bundle, str(first.number))
        actor.start(declaration, workspace)
    log.info("answering at %s; %s rows arrive from now on", address, f"{arrivals.table.num_rows:,}")
    key = os.environ.get(ENVIRONMENT)
    trust = listener.trust(spec.serve)
    client = Client(address, key, trust)
    replay = Replay(client, arrivals)
    with watch("replay"):
        replay.run(arguments.pace, Watch(Client(address, key, trust).get, arguments.lead))
    with watch("settle"):
        status = _settle(client, replay.labels_sent)
    actor.stop(spec.name)
    with watch("report"):
        report = _report(declaration, workspace, first, replay, status)
    report["seconds"] = first.seconds | watch.seconds
    path = workspace.uri(spec.name, "report.json")
    write_bytes(path, json.dumps(report, indent=2).encode())
    _tell(report)
    print(f"report: {path}")
    if client.failed:
        raise UserError(f"{client.failed} of {client.sent} requests failed; see above")


def _settle(client: Client, labels: int) -> dict[str, Any]:
    """Wait until every label is joined; return the last status."""
    end = time.monotonic() + PATIENCE
    while True:
        status: dict[str, Any] = client.get("drift")
        if status["labels"]["joined"] >= labels or time.monotonic() > end:
            return status
        time.sleep(0.5)


def _report(
    declaration: Declaration, workspace: Workspace, first: TrainedVersion, replay: Replay, status: dict[str, Any]
) -> dict[str, Any]:
    name, arrivals = declaration.spec.name, replay.arrivals
    from app.decisions.ledger import Ledger

    entries = [vars(entry) for entry in Ledger.open(workspace, name).entries()]
    bundle = open_bundle(first.bundle)
    target = bundle.plan.target
    labels = target.encode(arrivals.table[arrivals.target])
    never = bundle.runtime(threads=2).score(bundle.plan.encode(arrivals.table))
    answers = replay.answers()
    versions = []
    for version in Registry.open(workspace, name).versions():
        metrics = open_bundle(version.bundle).metrics
        served = int((answers.version == version.number).sum())
        versions.append(
            {
                "version": version.number,
                "reason": version.reason,
                "gate": version.gate,
                "metrics": metrics,
                "rows_served": served,
            }
        )
    return {
        "data": {"rows": first.prepared.rows, "quarantined": sum(first.prepared.quarantined.values())},
        "arrivals": {"rows": arrivals.table.num_rows, "rejected": arrivals.rejected},
        "versions": versions,
        "requests": {
            "sent": replay.client.sent,
            "failed": replay.client.failed,
            "again": replay.client.again,
            "rows": replay.client.rows,
        },
        "labels": {"sent": replay.labels_sent, **status["labels"]},
        "decisions": entries,
        "policy": {
            "never": _evaluation(target, never, labels, arrivals),
            "ours": _evaluation(target, answers.scores, labels[answers.row], arrivals, answers),
        },
    }


def _evaluation(
    target: TargetColumn, scores: Scores, labels: Targets, arrivals: Arrivals, answers: Answers | None = None
) -> dict[str, Any]:
    """Return the figures overall, by month, and as the mean of the months."""
    moments = arrivals.time if answers is None else arrivals.time[answers.row]
    months = by_month(target, scores, labels, moments)
    found = Evaluation(evaluate(target, scores, labels), months)
    return {"overall": found.overall, "mean_of_months": found.mean_of_months(), "months": months}


def _tell(report: dict[str, Any]) -> None:
    policy, requests, labels = report["policy"], report["requests"], report["labels"]
    whole = all(side["mean_of_months"] for side in policy.values())
    ours, never = (policy[side]["mean_of_months" if whole else "overall"] for side in ("ours", "never"))
    print(f"\n{'mean of the months' if whole else 'all rows':<28}{'ours':>10}{'never':>10}")
    for name in [name for name in ours if name in never and name != "rows"]:
        print(f"{name:<28}{ours[name]:>10.4f}{never[name]:>10.4f}")
    print("rows served by version: " + ", ".join(f"{v['version']}: {v['rows_served']:,}" for v in report["versions"]))
    print(
        f"{requests['sent']:,} requests, {requests['rows']:,} rows, {requests['failed']} failed"
        + (f", {requests['again']} sent again" if requests["again"] else "")
    )
    print(f"{labels['sent']:,} labels sent, {labels['joined']:,} joined")


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arrivals", required=True, help="table whose rows arrive as traffic")
    add_arguments(parser)


if __name__ == "__main__":
    main(run, __doc__ or "", _extend)
