"""A service in process without Ray and without a training: plans, versions and a journal of a test's own making."""

import asyncio
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.declaration import Declaration
from app.journal.rows import JournalError, Stream
from app.lineup import Answering, Lineup
from app.monitor.profile import fit
from app.serving import canary
from app.serving.arrow_codec import ArrowCodec
from app.serving.asgi import ASGIApp
from app.serving.codec import Fields
from app.serving.endpoint import Endpoint
from app.serving.guard import Guard
from app.serving.json_codec import JsonCodec
from app.serving.loaded import Loaded, Standing
from app.serving.recorder import Recorder
from app.serving.traced import Traced
from app.spec import Drift, Spec
from app.telemetry import Metric, ServingMetrics
from app.telemetry.traces import Tracer
from app.types import Features, Scores

Score = Callable[[Features], Scores]

PLAN = FeaturePlan(
    number=(NumberColumn("distance", min=0, max=1000), NumberColumn("passengers", required=True)),
    category=(CategoryColumn("zone", "string", ("north", "south")), CategoryColumn("rain", "boolean", (False, True))),
    target=TargetColumn("late", "binary", (False, True)),
    key="ride",
    time="at",
)
TARGETS = {
    "binary": PLAN.target,
    "multiclass": TargetColumn("kind", "multiclass", ("a", "b", "c")),
    "regression": TargetColumn("delay", "regression", mean=10.0, std=2.0),
}


class Counted:
    """Keeps the metrics in a dictionary."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, ...], float] = {}

    def add(self, metric: Metric, value: float, *tags: str) -> None:
        key = (metric.name, *tags)
        self.values[key] = self.values.get(key, 0) + value

    def set(self, metric: Metric, value: float, *tags: str) -> None:
        self.values[(metric.name, *tags)] = value


class Kept:
    """A journal in memory, whose disk is full when `full` says so."""

    def __init__(self) -> None:
        self.tables: list[tuple[Stream, pa.Table]] = []
        self.full = False

    def write(self, stream: Stream, table: pa.Table) -> None:
        if self.full:
            raise JournalError("the segment cannot be written: No space left on device")
        self.tables.append((stream, table))

    def rows(self, stream: Stream) -> list[dict[str, Any]]:
        return [row for name, table in self.tables if name == stream for row in table.to_pylist()]


class Graph:
    """Stands in for a runtime: scores by a function."""

    device = "cpu"

    def __init__(self, score: Score) -> None:
        self.score = score


def by_distance(features: Features) -> Scores:
    """Score rows by their first number."""
    return (np.nan_to_num(features.number[:, 0]) / 1000).astype(np.float32)


def make_loaded(
    version: str, score: Score = by_distance, plan: FeaturePlan = PLAN, spec: Spec | None = None
) -> Loaded:
    """Return a version that scores by a function."""
    random = np.random.default_rng(0)
    number = random.uniform(0, 1000, (200, len(plan.number))).astype(np.float32)
    category = random.integers(0, 4, (200, len(plan.category)))
    features, several = Features(number, category), plan.target.task == "multiclass"
    examples = Examples(features, np.zeros(200, np.float32), np.arange(200) * 3_600_000, np.arange(200))
    scores = random.random((200, 3) if several else 200).astype(np.float32)
    quantiles = tuple(np.linspace(0, 1000, 257).tolist())
    plan = replace(plan, number=tuple(replace(column, quantiles=quantiles) for column in plan.number))
    fields = Fields(plan, 2000)
    codecs = {
        codec.content_type: codec
        for codec in (JsonCodec(fields, f"rides/{version}", 0.5), ArrowCodec(fields, f"rides/{version}", 0.5))
    }
    return Loaded(
        version=version,
        model=f"rides/{version}",
        reference=f"bundle{version}",
        plan=plan,
        binning=fit(plan, Drift(), examples, scores),
        runtime=Graph(score),  # type: ignore[arg-type]
        codecs=codecs,
        description={"model": f"rides/{version}"},
        documents={},
    )


class Room:
    """A replica's endpoint with its recorder and journal; nothing is written before `flush` or the end."""

    def __init__(self, spec: Spec, folder: Path, guard: Guard | None = None, tracer: Tracer | None = None) -> None:
        self.kept, self.counted = Kept(), Counted()
        self.metrics = ServingMetrics("rides", self.counted, later=lambda seconds, call: None)
        self.recorder = Recorder(spec.journal, self.kept.write, "replica", self.metrics.dropped)
        self.executor = ThreadPoolExecutor(1)
        write, traced = self.kept.write, tracer is not None
        self.endpoint = Endpoint(
            spec, self.executor, self.metrics, self.recorder, write, str(folder), lambda: None, guard, traced
        )
        self.raises = tracer is None
        self.app: ASGIApp = self.endpoint if tracer is None else Traced(self.endpoint, tracer, spec.name)

    def stand(
        self, champion: Loaded, challenger: Loaded | None = None, share: float = 0.0, generation: int = 1
    ) -> None:
        """Let these versions answer."""
        names = [Answering(one.version, "") if one is not None else None for one in (champion, challenger)]
        assert names[0] is not None
        self.endpoint.swap(Standing.of(Lineup(generation, names[0], names[1], share), champion, challenger))

    def ask(self, *requests: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
        """Send requests at once; return their answers."""

        async def send() -> list[httpx.Response]:
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=self.raises)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await asyncio.gather(*(client.request(how, path, **what) for how, path, what in requests))

        return asyncio.run(send())

    def predict(self, *rows: dict[str, Any]) -> httpx.Response:
        """Ask for the predictions of rows."""
        return self.ask(("POST", "/rides/predict", {"json": {"rows": rows}}))[0]

    def count(self, name: str, *tags: str) -> float:
        """Return a counter's value."""
        self.metrics.flush()
        return self.counted.values.get((name, "rides", *tags), 0)


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no challenger come too late because the machine was busy: only a test of just that is in a hurry."""
    monkeypatch.setattr(canary, "PATIENCE", 60)


@pytest.fixture
def room(declaration: Declaration, tmp_path: Path) -> Iterator[Callable[..., Room]]:
    """Return a maker of rooms; keywords are settings of the declaration's journal."""
    made: list[Room] = []

    def make(guard: Guard | None = None, tracer: Tracer | None = None, **journal: Any) -> Room:
        spec = declaration.spec.model_copy(update={"journal": declaration.spec.journal.model_copy(update=journal)})
        made.append(Room(spec, tmp_path, guard, tracer))
        return made[-1]

    yield make
    for one in made:
        one.executor.shutdown()


@pytest.fixture(scope="session")
def version() -> Callable[..., Loaded]:
    """Return the maker of versions."""
    return make_loaded


@pytest.fixture(scope="session")
def plans() -> dict[str, FeaturePlan]:
    """Return one plan a task."""
    return {task: replace(PLAN, target=target) for task, target in TARGETS.items()}


@pytest.fixture
def counts() -> Counted:
    """Return a sink for metrics."""
    return Counted()
