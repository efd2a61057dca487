"""How does a large model become a small one that is as good? Taught, pruned, quantised, measured; the limits choose.

Teachers answer every row, those without a label too, and a small network learns their answers. Hidden units are pruned
from it and from the large network; each of these networks is quantised in every declared way. All variants are
measured by the graph that would serve, and judged by the gate against the large network: proven to stay within
`compress.margin`, on every slice. Of those that pass within `compress.max_size` and `compress.max_latency`, the one
with the least loss becomes a version.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np

from app import registry
from app.data.encode import load
from app.data.files import list_files
from app.data.loss import row_loss
from app.data.unlabelled import read_features
from app.declaration import Declaration
from app.model.contents import Compression, Family, Variant
from app.model.export import to_onnx
from app.model.network import Network
from app.model.plots import pareto
from app.model.quantise import quantise
from app.model.runtime import Runtime
from app.pipeline import Rows, Stopwatch, TrainedVersion, commit_of, publish, run_name
from app.spec import Data, Spec
from app.training.distil import Answer, distil, student_spec
from app.training.gate import Candidate, Opponent, judge
from app.training.kinds import WEIGHTS, Fitted, fit_model
from app.training.latency import measure_latency
from app.training.progress import show_epochs
from app.training.prune import heal, prune
from app.training.resources import cpu_count
from app.types import Features, Scores, UserError
from app.workspace import Workspace, join, write_bytes

log = logging.getLogger(__name__)

_CALIBRATION_ROWS = 2000
"""Training rows from which the ranges of activations are learned."""


@dataclass(frozen=True)
class Compressed:
    """A smaller version, registered and judged; what was tried on the way, also kept at the address `report`.

    `graphs` are the variants' by name, `chosen` the name of the version's.
    """

    version: TrainedVersion
    chosen: str
    variants: list[Variant]
    graphs: dict[str, bytes]
    report: str


def compress(
    declaration: Declaration,
    workspace: Workspace,
    run: str | None = None,
    reason: str = "compressed by hand",
    better: bool = False,
) -> Compressed:
    """Make a smaller version of the declared model; what becomes of it is up to the caller.

    Ray must be initialised. `run` names the work: the same name again goes on where it was stopped. Size and speed
    are enough to take the champion's place, unless it has to be `better`, as what a retraining makes. Raises UserError
    for whatever the declaration or the data make impossible, and when no variant keeps within the declared limits.
    """
    spec, watch = declaration.spec, Stopwatch()
    rows = Rows.of(declaration, workspace, watch)
    run = run or f"compress-{run_name(rows.prepared, spec)}"
    work = _Work(declaration, workspace, rows, run, watch)
    graphs = list(work.graphs())
    with watch("judge"):
        tried = list(work.judged(graphs))
    chosen = min(
        (one for one in tried if one.variant.refused is None), key=lambda one: one.variant.loss, default=None
    )
    compression = Compression([one.variant for one in tried], chosen.variant.name if chosen else None)
    report = work.write_report(compression)
    if chosen is None:
        raise UserError(f"no smaller version may serve; {report} says of each why not")
    baseline = rows.baseline(spec) if spec.train.baseline else None
    contents = rows.contents(chosen.graph.spec, chosen.graph.fitted(chosen.variant.loss), baseline, declaration.path)
    contents = replace(contents, compression=compression)
    versions = registry.Registry.open(workspace, spec.name)
    with versions.run(contents.spec, rows.prepared.fingerprint, commit_of(declaration.path), run) as tracked:
        larger = next(one.scores for one in tried if one.graph is work.reference(graphs))
        version = publish(rows, contents, workspace, tracked, reason, watch, None if better else larger)
    return Compressed(
        version,
        chosen.variant.name,
        compression.variants,
        {one.variant.name: one.graph.onnx for one in tried},
        report,
    )


@dataclass(frozen=True)
class _Graph:
    """A graph that could serve, and what was trained for it; `how` says what was done to it besides training."""

    family: Family
    how: str
    onnx: bytes
    spec: Spec
    learned: dict[str, bytes]
    history: list[dict[str, float]]

    def fitted(self, loss: float) -> Fitted:
        """Return it as any other trained model."""
        return Fitted(self.spec.model, self.onnx, self.learned, self.history, loss, rows_per_second=None, seconds=0.0)


@dataclass(frozen=True)
class _Tried:
    """A graph as measured: its scores of the held-out rows, and the 99th percentile of one row's prediction (s)."""

    graph: _Graph
    variant: Variant
    scores: Scores
    slowest: float


@dataclass(frozen=True)
class _Work:
    """One compression, and what its steps share."""

    declaration: Declaration
    workspace: Workspace
    rows: Rows
    run: str
    watch: Stopwatch

    @property
    def spec(self) -> Spec:
        return self.declaration.spec

    @cached_property
    def lesson(self) -> str:
        """Name what small networks are taught, which their checkpoints do not know: another lesson is another training."""
        asked, base = self.spec.compress, self.declaration.path.resolve().parent
        files = [] if asked.unlabelled is None else list_files(Data(source=asked.unlabelled), base)
        return _digest(
            asked.model_dump(include={"teacher", "student", "unlabelled", "prune_epochs"}), *map(asdict, files)
        )

    def graphs(self) -> Iterator[_Graph]:
        """Yield the teacher, and every network made with its help, as it is and in every declared arithmetic."""
        teacher, large = self.teach()
        if self.spec.compress.teacher.members != ["network"]:
            yield teacher
        scored = Runtime(teacher.onnx, self.rows.plan, threads=cpu_count()).score
        train = self.rows.parts.train.features
        calibration = train.rows(slice(None, None, max(1, len(train.number) // _CALIBRATION_ROWS)))
        for whole in [*large, self.student(scored)]:
            for graph in [whole, *(self.pruned(whole, kept, scored) for kept in self.spec.compress.prune)]:
                yield graph
                yield from self.quantised(graph, calibration)

    def teach(self) -> tuple[_Graph, list[_Graph]]:
        """Train the teachers; return their average, and the large network where it is one of them."""
        spec = _teachers(self.spec)
        with self.watch("teacher"), show_epochs(spec.train.epochs) as show:
            run = f"{self.run}/teacher-{_digest(self.spec.compress.teacher.model_dump())}"
            fitted = fit_model(self.rows.parts, self.rows.plan, spec, self.workspace, run, show)
        teacher = _Graph("teacher", "", fitted.onnx, spec, fitted.learned, fitted.history)
        weights = fitted.learned.get(WEIGHTS if spec.model.kind == "network" else f"network/{WEIGHTS}")
        if weights is None:
            return teacher, []
        alone = spec.model_copy(update={"model": spec.model.model_copy(update={"kind": "network"})})
        return teacher, [self.network("large", "", alone, self.loaded(alone, weights), fitted.history)]

    def student(self, answer: Answer) -> _Graph:
        """Teach the small network."""
        with self.watch("student"), show_epochs(self.spec.compress.student.epochs) as show:
            taught = distil(
                self.rows.parts,
                self.rows.plan,
                self.spec,
                answer,
                self.unlabelled(),
                self.workspace,
                f"{self.run}/student-{self.lesson}",
                show,
            )
        return self.network("student", "", student_spec(self.spec), taught.network, taught.history)

    def pruned(self, whole: _Graph, kept: float, answer: Answer) -> _Graph:
        """Keep a fraction of the hidden units, and heal what is left."""
        how = f"{kept:.0%} of the units"
        width = max(4, round(whole.spec.model.width * kept))
        spec = whole.spec.with_settings({"model.width": width})
        with self.watch(f"{whole.family}, {how}"):
            network = self.loaded(whole.spec, whole.learned[WEIGHTS])
            smaller = prune(network, whole.spec.model, width, self.rows.parts.train.features)
            run = f"{self.run}/{whole.family}-{width}-{self.lesson}"
            healed = heal(smaller, self.rows.parts, self.rows.plan, spec, answer, self.workspace, run)
        return self.network(whole.family, how, spec, healed.network, healed.history)

    def loaded(self, spec: Spec, weights: bytes) -> Network:
        return Network.from_safetensors(weights, self.rows.plan, spec.model)

    def network(
        self, family: Family, how: str, spec: Spec, network: Network, history: list[dict[str, float]]
    ) -> _Graph:
        return _Graph(family, how, to_onnx(network), spec, {WEIGHTS: network.to_safetensors()}, history)

    def quantised(self, graph: _Graph, calibration: Features) -> Iterator[_Graph]:
        """Yield the graph in every declared arithmetic that it has anything for."""
        for arithmetic in self.spec.compress.quantise:
            how = f"{graph.how}, {arithmetic}" if graph.how else arithmetic
            try:
                yield replace(graph, how=how, onnx=quantise(graph.onnx, self.rows.plan, arithmetic, calibration))
            except UserError as reason:
                log.info("note: no %s of %s: %s", arithmetic, graph.family, reason)

    def unlabelled(self) -> Features:
        """Return the rows without a label: the table's own among those that train, and those declared."""
        examples = load(self.rows.sample, self.rows.plan, "train", unlabelled=True)
        found = examples.features.rows(np.isnan(examples.target))
        source = self.spec.compress.unlabelled
        if source is None:
            return found
        more = read_features(self.rows.plan, source, self.declaration.path.resolve().parent)
        return Features(np.concatenate([found.number, more.number]), np.concatenate([found.category, more.category]))

    def reference(self, graphs: list[_Graph]) -> _Graph:
        """Return what a smaller version is held against: the large network, else the teacher."""
        return next((graph for graph in graphs if graph.family == "large"), graphs[0])

    def judged(self, graphs: list[_Graph]) -> Iterator[_Tried]:
        """Measure every graph beside the large network, and let the gate judge it."""
        reference = self.measured(self.reference(graphs))
        for graph in graphs:
            tried = reference if graph is reference.graph else self.measured(graph)
            variant = replace(tried.variant, refused=next(self.reasons_against(tried, reference), None))
            log.info("%s: loss %.4f, %.1f µs", variant.name, variant.loss, variant.latency * 1e6)
            yield replace(tried, variant=variant)

    def measured(self, graph: _Graph) -> _Tried:
        """Score the held-out rows, and time single ones."""
        examples, plan = self.rows.held_out.examples, self.rows.plan
        scores = Runtime(graph.onnx, plan, threads=cpu_count()).score(examples.features)
        known = ~np.isnan(examples.target)
        loss = float(row_loss(plan.target, scores[known], examples.target[known]).mean())
        seconds = measure_latency(Runtime(graph.onnx, plan), plan)
        variant = Variant(graph.family, graph.how, loss, len(graph.onnx), seconds["p50"])
        return _Tried(graph, variant, scores, seconds["p99"])

    def reasons_against(self, tried: _Tried, reference: _Tried) -> Iterator[str]:
        """Say why a graph may not serve: by the declared limits, then by what the gate finds."""
        limits, variant, whole = self.spec.compress, tried.variant, reference.variant
        for what, found, allowed in (
            ("size", variant.size / whole.size, limits.max_size),
            ("latency", variant.latency / whole.latency, limits.max_latency),
        ):
            if found > allowed:
                yield f"{found:.0%} of the large network's {what}, allowed {allowed:.0%}"
        held_out = self.rows.held_out
        verdict = judge(
            self.spec,
            self.rows.plan.target,
            Candidate(tried.scores, tried.slowest, variant.size / 1e6, smaller=True),
            Opponent("large", reference.scores),
            held_out.examples.target,
            held_out.examples.time,
            held_out.slices,
            held_out.examples.position,
        )
        yield from (reason for reason in verdict.reasons if reason.startswith("refused"))

    def write_report(self, compression: Compression) -> str:
        """Keep figures and picture in the workspace; return the report's address."""
        folder = self.workspace.uri(self.spec.name, "compress", self.run)
        write_bytes(join(folder, "pareto.png"), pareto(compression).png)
        write_bytes(join(folder, "report.json"), json.dumps(asdict(compression), indent=1).encode())
        return join(folder, "report.json")


def _digest(*what: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]


def _teachers(spec: Spec) -> Spec:
    """Return what the teachers are trained as: one average, in which the network is large."""
    teacher = spec.compress.teacher
    kind = "average" if len(teacher.members) > 1 else teacher.members[0]
    shape = {"kind": kind, "members": teacher.members, "width": teacher.width, "depth": teacher.depth}
    return spec.model_copy(update={"model": spec.model.model_copy(update=shape)})
