"""Whatever kind a model is of, and however it was made smaller: what is served is what was measured offline."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from app.data.encode import Examples
from app.data.features import FeaturePlan
from app.model.export import to_onnx
from app.model.network import Network
from app.model.quantise import quantise
from app.model.runtime import Runtime
from app.serving.loaded import Loaded
from app.spec import Spec
from app.training.kinds import WEIGHTS, fit_model
from app.training.loader import Parts
from app.training.prune import prune
from app.types import UserError
from app.workspace import Workspace

ARROW = "application/vnd.apache.arrow.stream"
KINDS = ("network", "tabm", "linear", "lightgbm", "average")
WAYS = ("int8_weights", "int8_dynamic", "int8_static", "float16")
TASKS = ("binary", "multiclass", "regression")


def table(rows: int) -> pa.Table:
    random = np.random.default_rng(3)
    return pa.table(
        {
            "ride": [f"r{i}" for i in range(rows)],
            "distance": pa.array(random.uniform(0, 1000, rows), mask=random.random(rows) < 0.2),
            "passengers": random.uniform(0, 1000, rows).round(),
            "zone": pa.array(random.choice(["north", "south", "harbour"], rows), mask=random.random(rows) < 0.2),
            "rain": random.random(rows) < 0.5,
        }
    )


def spec_of(kind: str) -> Spec:
    shape = {"width": 32, "depth": 2, "number_embedding": 4, "frequencies": 4, "ensemble": 4}
    trees = {"rounds": 30, "leaves": 7, "leaf_rows": 10}
    return Spec.model_validate(
        {
            "name": "rides",
            "task": {"target": "late"},
            "data": {"source": "x"},
            "model": {"kind": kind, "trees": trees, **shape},
            "train": {"epochs": 2, "batch_size": 64, "learning_rate": 0.01},
        }
    )


def learned(plan: FeaturePlan, kind: str, folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the graph of a kind, and of a network all that compression makes of it."""
    features = plan.encode(table(400))
    random = np.random.default_rng(5)
    signal = np.nan_to_num(features.number[:, 0]) / 1000 + random.normal(0, 0.1, 400)
    target = {
        "binary": signal > 0.5,
        "multiclass": np.digitize(signal, [0.3, 0.6]),
        "regression": 10 + 2 * signal,
    }[plan.target.task].astype(np.float32)
    every = np.arange(400)
    examples = Examples(features, target, every * 3_600_000, every)
    parts, spec = Parts(examples.chosen(every < 300), examples.chosen(every >= 300)), spec_of(kind)
    fitted = fit_model(parts, plan, spec, Workspace.open(str(folder)), "run", threads=1)
    yield kind, fitted.onnx
    if kind == "network":
        network = Network.from_safetensors(fitted.learned[WEIGHTS], plan, spec.model)
        yield "half", to_onnx(prune(network, spec.model, 16, features))
    for how in WAYS:
        try:
            yield f"{kind}, {how}", quantise(fitted.onnx, plan, how, features)
        except UserError:
            assert kind in ("linear", "lightgbm")  # which have no layers


def score_of(prediction: dict[str, Any]) -> Any:
    """Return the score, or those of all classes in their order, as JSON and Arrow tell them."""
    scores = prediction.get("scores", prediction["score"])
    return [*scores.values()] if isinstance(scores, dict) else scores


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", KINDS)
def test_json_alone_and_among_others_and_arrow_give_the_offline_scores(
    room: Callable[..., Any],
    version: Callable[..., Loaded],
    plans: dict[str, FeaturePlan],
    task: str,
    kind: str,
    tmp_path: Path,
) -> None:
    loaded = version("1", plan=plans[task])
    asked = table(60)
    features = loaded.plan.encode(asked)
    rows = asked.to_pylist()
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, asked.schema) as writer:
        writer.write_table(asked)
    whole = {"content": sink.getvalue().to_pybytes(), "headers": {"content-type": ARROW}}
    path = "/rides/predict"
    requests = [("POST", path, {"json": {"rows": [row]}}) for row in rows]
    requests += [("POST", path, {"json": {"rows": rows}}), ("POST", path, whole)]
    answering = room()
    for name, onnx in learned(loaded.plan, kind, tmp_path):
        answering.stand(replace(loaded, runtime=Runtime(onnx, loaded.plan)))
        *single, many, arrow = answering.ask(*requests)
        offline = Runtime(onnx, loaded.plan, threads=2).score(features)
        served = {
            "alone": [answer.json()["predictions"][0] for answer in single],
            "together": many.json()["predictions"],
            "as Arrow": pa.ipc.open_stream(arrow.content).read_all().to_pylist(),
        }
        for how, predictions in served.items():
            scores = np.array([score_of(one) for one in predictions], np.float32)
            difference = np.abs(scores - offline).max()
            assert difference <= 1e-6 * max(1.0, np.abs(offline).max()), f"{name}, {how}: {difference}"
