"""A bundle to measure with when none is given: the flights' shape, a network as it is before training."""

from pathlib import Path

import numpy as np
import torch

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.model.bundle import write as write_bundle
from app.model.contents import Contents, Evaluation, Origin
from app.model.export import to_onnx
from app.model.network import Network
from app.monitor.profile import Reference
from app.spec import Data, Model, Spec, Task
from app.types import Targets
from benchmarks.serve.sample import draw

_ROWS = 512


def plan(numbers: int = 20, categories: int = 7) -> FeaturePlan:
    """Return a plan like the flights': numbers with limits, every other one required, and categories of 20 to 140."""
    spread = np.linspace(-30, 30, 257)
    return FeaturePlan(
        number=tuple(
            NumberColumn(
                f"number_{i:02}",
                required=i % 2 == 0,
                min=-1e6,
                max=1e6,
                std=17.4 * (i + 1),
                quantiles=tuple(spread * (i + 1)),
            )
            for i in range(numbers)
        ),
        category=tuple(
            CategoryColumn(f"category_{i}", "string", tuple(f"value {k}" for k in range(20 * (i + 1))))
            for i in range(categories)
        ),
        target=TargetColumn("late", "binary", (False, True)),
        rows=_ROWS,
    )


def write(root: Path, chosen: FeaturePlan | None = None, width: int = 256, depth: int = 2, seed: int = 0) -> str:
    """Write an untrained bundle below `root`; return its URI."""
    chosen = chosen or plan()
    torch.manual_seed(seed)
    spec = Spec(
        name="bench",
        task=Task(target=chosen.target.name, type=chosen.target.task),
        data=Data(source="drawn rows"),
        model=Model(width=width, depth=depth),
    )
    network = Network(chosen, spec.model).eval()
    features = chosen.encode(draw(chosen, _ROWS))
    scores = network.score(torch.from_numpy(features.number), torch.from_numpy(features.category))
    target: Targets = (np.arange(_ROWS) % 2).astype(np.float32)
    examples = Examples(features, target, np.empty(0, np.int64), np.arange(_ROWS))
    contents = Contents(
        spec=spec,
        plan=chosen,
        onnx=to_onnx(network),
        learned={"weights.safetensors": network.to_safetensors()},
        reference=Reference.of(chosen, spec.drift, examples, examples, scores),
        origin=Origin(fingerprint="drawn rows", rows={"train": _ROWS}),
        evaluation=Evaluation({"log_loss": float(np.log(2))}),
        target=target,
        scores=scores,
        history=[],
    )
    return write_bundle(str(root), contents)
