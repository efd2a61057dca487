"""Plans, networks and rows of every shape that a declaration can lead to."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from app import spec
from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn, TaskType
from app.model.contents import Contents, Evaluation, Origin
from app.model.export import to_onnx
from app.model.network import Network
from app.monitor.profile import Reference
from app.spec import Drift, Spec
from app.types import Features

TARGETS = {
    "binary": TargetColumn("late", "binary", (False, True)),
    "multiclass": TargetColumn("kind", "multiclass", ("a", "b", "c")),
    "regression": TargetColumn("delay", "regression", mean=1000.0, std=50.0),
}
SMALL = spec.Model(width=16, depth=2, number_embedding=4, frequencies=6, category_embedding=5, ensemble=3)

MakePlan = Callable[..., FeaturePlan]
MakeFeatures = Callable[[FeaturePlan, int], Features]
MakeNetwork = Callable[..., Network]
MakeContents = Callable[..., Contents]


@pytest.fixture(scope="session")
def make_plan() -> MakePlan:
    def make(task: TaskType = "binary", numbers: int = 3, categories: int = 2) -> FeaturePlan:
        quantiles = np.random.default_rng(0).normal(5.0, 2.0, (numbers, 257))
        quantiles.sort(axis=1)
        return FeaturePlan(
            number=tuple(
                NumberColumn(f"n{i}", mean=5.0, std=2.0, nulls=0.1, quantiles=tuple(row.tolist()))
                for i, row in enumerate(quantiles)
            ),
            category=tuple(
                CategoryColumn(f"c{i}", "string", tuple(f"v{j}" for j in range(3 + 40 * i)))
                for i in range(categories)
            ),
            target=TARGETS[task],
            time="time",
            rows=300,
        )

    return make


@pytest.fixture(scope="session")
def make_features() -> MakeFeatures:
    def make(plan: FeaturePlan, rows: int) -> Features:
        random = np.random.default_rng(1)
        number = random.normal(5.0, 3.0, (rows, len(plan.number))).astype(np.float32)
        number[random.random(number.shape) < 0.1] = np.nan
        sizes = [column.size for column in plan.category]
        return Features(number, random.integers(0, sizes, (rows, len(sizes))))

    return make


@pytest.fixture(scope="session")
def make_network() -> MakeNetwork:
    def make(plan: FeaturePlan, kind: str = "network") -> Network:
        torch.manual_seed(0)
        network = Network(plan, SMALL.model_copy(update={"kind": kind})).eval()
        if plan.target.task != "regression":
            network.temperature.fill_(1.5)
        return network

    return make


@pytest.fixture(scope="session")
def make_contents(make_plan: MakePlan, make_features: MakeFeatures, make_network: MakeNetwork) -> MakeContents:
    def make(task: TaskType = "binary", name: str = "flights") -> Contents:
        plan = make_plan(task)
        network = make_network(plan)
        features = make_features(plan, 300)
        random = np.random.default_rng(2)
        target = {
            "binary": random.integers(0, 2, 300),
            "multiclass": random.integers(0, 3, 300),
            "regression": random.normal(1000.0, 50.0, 300),
        }[task].astype(np.float32)
        examples = Examples(features, target, np.arange(300) * 3_600_000, np.arange(300))
        scores = network.score(*map(torch.from_numpy, features))
        figures = {"rmse": 51.0, "rows": 300.0} if task == "regression" else {"log_loss": 0.5, "rows": 300.0}
        months = {"2013-03": figures, "2013-04": figures}
        return Contents(
            spec=Spec.model_validate({"name": name, "task": {"target": plan.target.name}, "data": {"source": "x"}}),
            plan=plan,
            onnx=to_onnx(network),
            learned={"weights.safetensors": network.to_safetensors()},
            reference=Reference.of(plan, Drift(), examples, examples, scores),
            origin=Origin("f00d", {"train": 300, "test": 300}, {"dew point": 3}, ("2013-01-01", "2013-02-28")),
            evaluation=Evaluation(figures, months, {"origin": {"JFK": figures}}),
            target=target,
            scores=scores,
            history=[{"epoch": float(i), "train_loss": 1 / i, "validation_loss": 1.1 / i} for i in (1, 2, 3)],
            baseline=Evaluation(figures, months),
            baseline_scores=scores[::-1].copy(),
            importance={"model": dict.fromkeys(plan.names, 0.1), "baseline": dict.fromkeys(plan.names, -0.1)},
        )

    return make
