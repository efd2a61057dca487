"""The runtime is light, bounded in memory, and says so when there is no GPU."""

import subprocess
import sys

import numpy as np
import onnxruntime
import pytest

from app.model.export import to_onnx
from app.model.runtime import Runtime
from app.types import UserError


@pytest.mark.parametrize("module", ["app.model.runtime", "app.model.bundle", "app.monitor.profile"])
def test_replicas_load_neither_torch_nor_ray_nor_matplotlib(module) -> None:
    code = f"import sys, {module}; print(sorted({{'torch', 'ray', 'matplotlib', 'mlflow'}} & sys.modules.keys()))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_a_giant_batch_goes_piece_by_piece(make_plan, make_features, make_network, monkeypatch, task) -> None:
    plan = make_plan(task)
    runtime = Runtime(to_onnx(make_network(plan)), plan)
    features = make_features(plan, 1001)
    whole = runtime.score(features)
    sizes = []
    run = runtime._run

    def watch(number, category):
        sizes.append(len(number))
        return run(number, category)

    monkeypatch.setattr(runtime, "_rows_at_once", 100)
    monkeypatch.setattr(runtime, "_run", watch)
    np.testing.assert_array_max_ulp(runtime.score(features), whole, maxulp=4)
    assert sizes == [100] * 10 + [1]


def test_warming_up_scores_what_the_plan_takes(make_plan, make_network) -> None:
    for numbers, categories in ((2, 1), (0, 1), (2, 0)):
        plan = make_plan(numbers=numbers, categories=categories)
        Runtime(to_onnx(make_network(plan)), plan).warm()


def test_a_demanded_gpu_that_is_not_there_is_the_users_error(make_plan, make_network, monkeypatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    plan = make_plan()
    with pytest.raises(UserError, match="no CUDA here, only CPUExecutionProvider"):
        Runtime(to_onnx(make_network(plan)), plan, use_gpu=True)
    assert Runtime(to_onnx(make_network(plan)), plan).device == "cpu"
