"""The way of one row up to a judged version, in the order it goes."""

import hashlib
import json
import logging
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app import registry
from app.data.encode import load
from app.data.features import FeaturePlan
from app.data.fit import fit
from app.data.prepare import Prepared, prepare
from app.declaration import Declaration
from app.model.bundle import Bundle, open_bundle, write
from app.model.contents import Contents, Evaluation, Origin
from app.model.export import to_onnx
from app.model.runtime import Runtime
from app.monitor.profile import Reference
from app.spec import Spec
from app.telemetry import JobMetrics
from app.training.baseline import Baseline, train_baseline
from app.training.gate import Candidate, Opponent, Verdict, judge
from app.training.held_out import HeldOut
from app.training.latency import measure_latency
from app.training.loader import Parts
from app.training.progress import show_epochs
from app.training.trainer import Trained, train
from app.training.warm_start import warm_start
from app.workspace import Workspace, join, read_bytes

log = logging.getLogger(__name__)

ROWS_IN_MEMORY = 5_000_000
"""Above this a part is streamed through training, and baseline, profile and judgement rest on an even sample."""


@dataclass(frozen=True)
class TrainedVersion:
    """A version on its way out of training: registered, judged, and champion if `promoted`.

    `trained_until` is the moment (ms, UTC) of the newest row it learned from, None for a table without times.
    """

    number: int
    bundle: str
    verdict: Verdict
    prepared: Prepared
    network: Evaluation
    baseline: Evaluation | None
    trained_until: int | None
    seconds: dict[str, float]
    promoted: bool = False


def train_version(
    declaration: Declaration, workspace: Workspace, run: str | None = None, reason: str = "trained by hand"
) -> TrainedVersion:
    """Make a version of the declared table; promote it when it passed, where `rollout` says so.

    Ray must be initialised. Raises UserError as `make_version`.
    """
    version = make_version(declaration, workspace, run, reason)
    versions = registry.Registry.open(workspace, declaration.spec.name)
    if version.verdict.passed and declaration.spec.rollout.promote == "auto":
        versions.promote(version.number)
        return replace(version, promoted=True)
    versions.challenge(version.number)
    return version


def make_version(
    declaration: Declaration, workspace: Workspace, run: str | None, reason: str, start: Bundle | None = None
) -> TrainedVersion:
    """Prepare, fit, train, measure, bundle, register and judge; what becomes of the version is up to the caller.

    Ray must be initialised. `run` names the training (None: after all that decides its outcome): the same name again
    goes on where it was stopped. `start` is whose weights it begins with. Raises UserError for whatever the
    declaration or the data make impossible.
    """
    spec = declaration.spec
    watch, metrics = Stopwatch(), JobMetrics(spec.name)
    with watch("prepare"):
        prepared = prepare(declaration, workspace)
        for note in prepared.notes:
            log.info("note: %s", note)
        metrics.prepared(prepared.rows, prepared.quarantined)
        log.info("%s rows kept, %s in quarantine", f"{prepared.rows:,}", f"{sum(prepared.quarantined.values()):,}")
    sample = _sample(prepared)
    with watch("fit"):
        plan = fit(prepared, spec)
        parts = Parts(*(load(sample, plan, part) for part in ("train", "validation")))
        held_out = HeldOut.of(sample, plan, spec.gate.slices)
    run = run or _run_name(prepared, spec)
    versions = registry.Registry.open(workspace, spec.name)
    with versions.run(spec, prepared.fingerprint, _commit(declaration.path), run) as tracked:
        with watch("train"), show_epochs(spec.train.epochs) as show:

            def on_epoch(line: dict[str, float]) -> None:
                show(line)
                tracked.log_epoch(int(line["epoch"]), line)

            weights = None if start is None else warm_start(plan, spec, start)
            if start is not None and weights is None:
                log.info("note: %s is of another shape or has other classes; training begins anew", start.uri)
            streams = spec.train.loader == "stream" or sample is not prepared
            trained = train(prepared if streams else parts, plan, spec, workspace, run, on_epoch, weights)
            metrics.trained(trained.rows_per_second)
        with watch("baseline"):
            baseline = train_baseline(*parts, plan, spec.train.seed) if spec.train.baseline else None
        with watch("measure"):
            contents = _version(spec, plan, prepared, trained, baseline, parts, held_out, declaration.path)
        with watch("register"):
            bundle = open_bundle(write(workspace.uri(spec.name, "bundles"), contents))
            tracked.log_metrics(contents.network.overall)
            shown = [path for path in bundle.paths if path.endswith((".md", ".png"))]
            tracked.log_files({path: read_bytes(join(bundle.uri, path)) for path in shown})
            tracked.describe(bundle.card)
            version = versions.register(bundle.uri, tracked.id, prepared.fingerprint, reason)
        with watch("gate"):
            champion = versions.champion()
            if champion is not None and champion.number == version.number:  # the same training again
                champion = None
            candidate = Candidate(
                contents.scores, measure_latency(bundle.runtime(), plan)["p99"], bundle.size_bytes / 1e6
            )
            verdict = judge(
                spec,
                plan.target.task,
                candidate,
                _opponent(champion, contents, sample, held_out),
                held_out.examples.target,
                held_out.examples.time,
                held_out.slices,
                held_out.examples.position,
            )
            metrics.judged(verdict.passed)
            versions.record_verdict(version.number, verdict.passed, verdict.reasons)
    return TrainedVersion(
        number=version.number,
        bundle=bundle.uri,
        verdict=verdict,
        prepared=prepared,
        network=contents.network,
        baseline=contents.baseline,
        trained_until=contents.origin.trained_until,
        seconds=watch.seconds,
    )


class Stopwatch:
    """Seconds by step, told as they pass."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Measure a block."""
        begin = time.perf_counter()
        yield
        self.seconds[step] = round(time.perf_counter() - begin, 3)
        log.info("%s: %.1f s", step, self.seconds[step])


def _version(
    spec: Spec,
    plan: FeaturePlan,
    prepared: Prepared,
    trained: Trained,
    baseline: Baseline | None,
    parts: Parts,
    held_out: HeldOut,
    path: Path,
) -> Contents:
    """Gather everything about a version, measured by the graph that will serve."""
    onnx = to_onnx(trained.network)
    runtime = Runtime(onnx, plan, threads=len(os.sched_getaffinity(0)))
    features = held_out.examples.features
    scores = {"network": runtime.score(features)}
    importance = {"network": held_out.importance(runtime.score, plan)}
    if baseline is not None:
        scores["baseline"] = baseline.score(features)
        importance["baseline"] = held_out.importance(baseline.score, plan)
    evaluations = {model: held_out.evaluate(scored) for model, scored in scores.items()}
    rows = {"train": len(parts.train.target), "validation": len(parts.validation.target)}
    moments = np.concatenate([part.time for part in parts])
    return Contents(
        spec=spec,
        plan=plan,
        onnx=onnx,
        weights=trained.network.to_safetensors(),
        reference=Reference.of(plan, spec.drift, *parts, runtime.score(parts.validation.features)),
        origin=Origin(
            prepared.fingerprint,
            rows | {held_out.part: len(held_out.examples.target)},
            prepared.quarantined,
            _span(moments),
            int(moments.max()) if len(moments) else None,
            _commit(path),
        ),
        network=evaluations["network"],
        target=held_out.examples.target,
        scores=scores["network"],
        history=trained.history,
        baseline=evaluations.get("baseline"),
        baseline_scores=scores.get("baseline"),
        importance=importance,
    )


def _opponent(
    champion: registry.Version | None, contents: Contents, prepared: Prepared, held_out: HeldOut
) -> Opponent | None:
    """Return what the new version is held against: the champion, else the baseline, else nothing."""
    if champion is not None:
        bundle = open_bundle(champion.bundle)
        examples = load(prepared, bundle.plan, held_out.part)
        return Opponent("champion", bundle.runtime().score(examples.features))
    if contents.baseline_scores is not None:
        return Opponent("baseline", contents.baseline_scores)
    return None


def _sample(prepared: Prepared) -> Prepared:
    """Return the table, or evenly spaced fragments of it when it is too large for memory."""
    every = -(-prepared.rows // ROWS_IN_MEMORY)
    return replace(prepared, fragments=prepared.fragments[::every]) if every > 1 else prepared


def _span(moments: npt.NDArray[np.int64]) -> tuple[str, str] | None:
    """Write the first and the last moment."""
    if not len(moments):
        return None
    first, last = (str(moment) for moment in np.array([moments.min(), moments.max()]).astype("datetime64[ms]"))
    return f"{first}Z", f"{last}Z"


def _run_name(prepared: Prepared, spec: Spec) -> str:
    """Name a training by all that decides its outcome: the same again is the same run."""
    settings = json.dumps([spec.task.model_dump(mode="json"), spec.model.model_dump(), spec.train.model_dump()])
    return f"{prepared.fingerprint[:12]}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"


def _commit(declaration: Path) -> str | None:
    """Return the commit of the folder the declaration lies in, when it is under git."""
    command = ["git", "-C", str(declaration.resolve().parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
