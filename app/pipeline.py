"""The way of one row up to a judged version, in the order it goes."""

import hashlib
import json
import logging
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from app import registry
from app.data.encode import load
from app.data.features import FeaturePlan
from app.data.fit import fit
from app.data.inference import find_column
from app.data.prepare import Prepared, prepare
from app.data.split import Cut
from app.data.unlabelled import declared_features
from app.declaration import Declaration
from app.model.bundle import Bundle, open_bundle, write
from app.model.contents import Contents, Origin, Side
from app.model.runtime import Runtime
from app.monitor.profile import Reference
from app.spec import Spec, Split, Value
from app.telemetry import JobMetrics, spans
from app.training.baseline import Baseline, train_baseline
from app.training.gate import Candidate, Opponent, Verdict, judge
from app.training.held_out import HeldOut, Score
from app.training.kinds import Fitted, fit_model
from app.training.latency import measure_latency
from app.training.loader import Parts
from app.training.progress import show_epochs
from app.training.resources import cpu_count
from app.types import Scores, UserError
from app.workspace import Workspace, join, read_bytes

log = logging.getLogger(__name__)

_ALWAYS = -(2**62)
"""A moment (ms) before all others."""
ROWS_IN_MEMORY = 5_000_000
"""Above this a part is streamed through training, and baseline, profile and judgement rest on an even sample."""


@dataclass(frozen=True)
class TrainedVersion:
    """A version on its way out of training: registered, judged, and champion if `promoted`.

    `contents` is what went into the bundle: the declaration as trained, figures, origin.
    """

    number: int
    bundle: str
    verdict: Verdict
    prepared: Prepared
    contents: Contents
    seconds: dict[str, float]
    promoted: bool = False


def train_version(
    declaration: Declaration,
    workspace: Workspace,
    run: str | None = None,
    reason: str = "trained by hand",
    tuned: Mapping[str, Value] | None = None,
    rows: "Rows | None" = None,
) -> TrainedVersion:
    """Make a version of the declared table; promote it when it passed, where `rollout` says so.

    Ray must be initialised. Raises UserError as `make_version`.
    """
    version = make_version(declaration, workspace, run, reason, tuned=tuned, rows=rows)
    return settle(declaration.spec, workspace, version)


def settle(spec: Spec, workspace: Workspace, version: TrainedVersion) -> TrainedVersion:
    """Promote a version that passed, where `rollout` says so; else it is the challenger."""
    versions = registry.Registry.open(workspace, spec.name)
    if version.verdict.passed and spec.rollout.promote == "auto":
        versions.promote(version.number)
        return replace(version, promoted=True)
    versions.challenge(version.number)
    return version


def make_version(
    declaration: Declaration,
    workspace: Workspace,
    run: str | None,
    reason: str,
    start: Bundle | None = None,
    tuned: Mapping[str, Value] | None = None,
    rows: "Rows | None" = None,
) -> TrainedVersion:
    """Prepare, fit, train, measure, bundle, register and judge; what becomes of the version is up to the caller.

    Ray must be initialised. `run` names the training (None: after all that decides its outcome): the same name again
    goes on where it was stopped. `start` is whose weights it begins with; `tuned` are settings that a search found;
    `rows` those of the declaration, where somebody has them at hand. Raises UserError for whatever the declaration or
    the data make impossible.
    """
    spec = declaration.spec.with_settings(tuned) if tuned else declaration.spec
    metrics = JobMetrics(spec.name)
    watch = Stopwatch(metrics.took)
    rows = rows or Rows.of(declaration, workspace, watch)
    metrics.prepared(rows.prepared.rows, rows.prepared.quarantined)
    run = run or run_name(rows.prepared, spec)
    versions = registry.Registry.open(workspace, spec.name)
    with versions.run(spec, rows.prepared.fingerprint, commit_of(declaration.path), run) as tracked:
        with watch("train"), show_epochs(spec.train.epochs) as show:
            curve = spec.model.kind not in ("average", "auto")  # whose members would share one

            def on_epoch(line: dict[str, float]) -> None:
                show(line)
                if curve:
                    tracked.log_epoch(int(line["epoch"]), line)

            stream = rows.prepared if spec.train.loader == "stream" or rows.sample is not rows.prepared else None
            fitted = fit_model(rows.parts, rows.plan, spec, workspace, run, on_epoch, start, stream=stream)
            if fitted.rows_per_second is not None:
                metrics.trained(fitted.rows_per_second)
        with watch("baseline"):
            baseline = rows.baseline(spec) if spec.train.baseline and fitted.model.kind != "lightgbm" else None
        with watch("measure"):
            spec = spec.model_copy(update={"model": fitted.model})
            contents = rows.contents(spec, fitted, baseline, declaration.path)
            contents = replace(contents, origin=replace(contents.origin, tuned=dict(tuned or {})))
        version = publish(rows, contents, workspace, tracked, reason, watch)
        metrics.judged(version.verdict.passed)
    return version


def publish(
    rows: "Rows",
    contents: Contents,
    workspace: Workspace,
    tracked: registry.Run,
    reason: str,
    watch: "Stopwatch",
    larger: Scores | None = None,
) -> TrainedVersion:
    """Bundle, register and judge what was trained; what becomes of the version is up to the caller.

    `larger` makes it a smaller form of the model with these scores of the held-out rows: it has not to be better.
    """
    spec, held_out = contents.spec, rows.held_out
    versions = registry.Registry.open(workspace, spec.name)
    with watch("register"):
        bundle = open_bundle(write(workspace.uri(spec.name, "bundles"), contents))
        tracked.log_metrics(contents.evaluation.overall)
        shown = [path for path in bundle.paths if path.endswith((".md", ".png"))]
        tracked.log_files({path: read_bytes(join(bundle.uri, path)) for path in shown})
        tracked.describe(bundle.card)
        version = versions.register(bundle.uri, tracked.id, rows.prepared.fingerprint, reason)
    with watch("gate"):
        champion = versions.champion()
        if champion is not None and champion.number == version.number:  # the same training again
            champion = None
        latency = measure_latency(bundle.runtime(), rows.plan)["p99"]
        candidate = Candidate(contents.scores, latency, bundle.size_bytes / 1e6, smaller=larger is not None)
        try:
            against = _opponent(champion, contents, rows, larger)
        except _OfOtherRowsError as reason:
            verdict = Verdict(False, [f"refused: {reason}"], {"against": "champion"})
        else:
            verdict = judge(
                spec,
                rows.plan.target,
                candidate,
                against,
                held_out.examples.target,
                held_out.examples.time,
                held_out.slices,
                held_out.examples.position,
            )
        versions.record_verdict(version.number, verdict.passed, verdict.reasons)
    return TrainedVersion(
        number=version.number,
        bundle=bundle.uri,
        verdict=verdict,
        prepared=rows.prepared,
        contents=contents,
        seconds=watch.seconds,
    )


class Stopwatch:
    """Seconds by step, told as they pass, to `took` and to the trace as well."""

    def __init__(self, took: Callable[[str, float], None] | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._took = took

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        """Measure a block."""
        begin = time.perf_counter()
        with spans.step(step):
            yield
        self.seconds[step] = round(time.perf_counter() - begin, 3)
        log.info("%s: %.1f s", step, self.seconds[step])
        if self._took is not None:
            self._took(step, self.seconds[step])


@dataclass(frozen=True)
class Rows:
    """A table on its way into models: its features are fitted, and its parts are in memory.

    `sample` is the table itself, or an even sample of it where it is too large: what `parts` and `held_out` hold.
    """

    prepared: Prepared
    sample: Prepared
    plan: FeaturePlan
    parts: Parts
    held_out: HeldOut

    @staticmethod
    def of(declaration: Declaration, workspace: Workspace, watch: Stopwatch) -> "Rows":
        """Prepare the declared table and fit its features. Raises UserError for what is wrong with it."""
        spec = declaration.spec
        with watch("prepare"):
            prepared = prepare(declaration, workspace)
            for note in prepared.notes:
                log.info("note: %s", note)
            log.info(
                "%s rows kept, %s in quarantine", f"{prepared.rows:,}", f"{sum(prepared.quarantined.values()):,}"
            )
        sample = _sample(prepared)
        with watch("fit"):
            plan = fit(prepared, spec)
            parts = Parts(*(load(sample, plan, part) for part in ("train", "validation")))
            held_out = HeldOut.of(sample, plan, spec.gate.slices)
        return Rows(prepared, sample, plan, parts, held_out)

    def baseline(self, spec: Spec) -> Baseline:
        """Train boosted trees on the same rows."""
        return train_baseline(*self.parts, self.plan, spec)

    def contents(self, spec: Spec, fitted: Fitted, baseline: Baseline | None, path: Path) -> Contents:
        """Gather everything about a version, measured by the graph that will serve; `path` is the declaration's."""
        plan, held_out = self.plan, self.held_out
        runtime = Runtime(fitted.onnx, plan, threads=cpu_count())
        models: dict[Side, Score] = {"model": runtime.score}
        if baseline is not None:
            models["baseline"] = baseline.score
        scores = {side: score(held_out.examples.features) for side, score in models.items()}
        evaluations = {side: held_out.evaluate(scored) for side, scored in scores.items()}
        count = {"train": len(self.parts.train.target), "validation": len(self.parts.validation.target)}
        moments = np.concatenate([part.time for part in self.parts])
        judged = runtime.score(self.parts.validation.features)
        return Contents(
            spec=spec,
            plan=plan,
            onnx=fitted.onnx,
            learned=fitted.learned,
            reference=Reference.of(plan, spec.drift, *self.parts, judged),
            origin=Origin(
                self.prepared.fingerprint,
                count | {held_out.part: len(held_out.examples.target)},
                self.prepared.quarantined,
                _span(moments),
                int(moments.max()) if len(moments) else None,
                commit_of(path),
            ),
            evaluation=evaluations["model"],
            target=held_out.examples.target,
            scores=scores["model"],
            history=fitted.history,
            baseline=evaluations.get("baseline"),
            baseline_scores=scores.get("baseline"),
            importance={side: held_out.importance(score, plan) for side, score in models.items()},
            considered=fitted.considered,
        )


def later_rows(declaration: Declaration, workspace: Workspace, source: str, plan: FeaturePlan) -> HeldOut:
    """Return the labelled rows at `source`, a table of later times than the declared one: what training cannot know.

    Its columns and task are the plan's, and it is not divided, whatever the declaration leaves open or says of its own table.
    Raises UserError for a table that cannot be read or breaks the declared contract.
    """
    spec = declaration.spec
    whole = {"source": source if "://" in source else str(Path(source).resolve()), "split": Split()}
    later = {
        "task": spec.task.model_copy(update={"type": plan.target.task}),
        "data": spec.data.model_copy(update=whole),
        "features": declared_features(plan),
        "retrain": spec.retrain.model_copy(update={"window": "all"}),
    }
    prepared = prepare(replace(declaration, spec=spec.model_copy(update=later)), workspace)
    everything = Cut(plan.time, test=1.0, test_from=_ALWAYS)
    return HeldOut.of(replace(prepared, cut=everything), plan, spec.gate.slices)


class _OfOtherRowsError(Exception):
    """The champion cannot score these rows: it was trained by a declaration of other features, or of other labels."""


def _opponent(
    champion: registry.Version | None, contents: Contents, rows: Rows, larger: Scores | None
) -> Opponent | None:
    """Return what the new version is held against: the champion, else its larger form, the baseline, or nothing."""
    if champion is not None:
        bundle = open_bundle(champion.bundle)
        try:
            for name in bundle.plan.names:
                find_column(rows.sample.schema, name, "features")
            examples = load(rows.sample, bundle.plan, rows.held_out.part)
        except UserError as mistake:
            raise _OfOtherRowsError(
                f"the champion, version {champion.number}, cannot be judged on these rows: {mistake}; where that is "
                "meant, deploy this version by hand"
            ) from mistake
        return Opponent("champion", bundle.runtime().score(examples.features))
    if larger is not None:
        return Opponent("large", larger)
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


def run_name(prepared: Prepared, spec: Spec) -> str:
    """Name a training by all that decides its outcome: the same again is the same run."""
    settings = json.dumps([spec.task.model_dump(mode="json"), spec.model.model_dump(), spec.train.model_dump()])
    return f"{prepared.fingerprint[:12]}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"


def commit_of(declaration: Path) -> str | None:
    """Return the commit of the folder the declaration lies in, when it is under git."""
    command = ["git", "-C", str(declaration.resolve().parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
