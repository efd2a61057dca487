"""How do several models become one? Their graphs side by side in one graph, whose score is the mean of theirs."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper

from app.data.features import FeaturePlan


def average(graphs: Sequence[bytes], plan: FeaturePlan) -> bytes:
    """Return the graph whose score is the mean of the scores of these graphs, all of them of the same plan."""
    # The inputs keep their names, and all share them.
    members = [
        compose.add_prefix(onnx.load_model_from_string(data), f"m{i}_", rename_inputs=False)
        for i, data in enumerate(graphs)
    ]
    scores = [f"m{i}_score" for i in range(len(members))]
    parts = [member.graph for member in members]
    count = numpy_helper.from_array(np.float32(len(members)), "count")
    # One after the other, so that the sum is rounded the same on every machine.
    nodes, total = [], scores[0]
    for i, score in enumerate(scores[1:], start=1):
        nodes.append(helper.make_node("Add", [total, score], [f"sum{i}"]))
        total = f"sum{i}"
    nodes.append(helper.make_node("Div", [total, "count"], ["score"]))
    output = helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, _shape(plan))
    versions = {entry.domain: entry.version for member in members for entry in member.opset_import}
    assert all(versions[entry.domain] == entry.version for member in members for entry in member.opset_import)
    model = helper.make_model(
        helper.make_graph(
            [node for part in parts for node in part.node] + nodes,
            "evertrue",
            list(parts[0].input),
            [output],
            [tensor for part in parts for tensor in part.initializer] + [count],
        ),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in sorted(versions.items())],
        ir_version=max(member.ir_version for member in members),
        producer_name="evertrue",
    )
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _shape(plan: FeaturePlan) -> list[str | int]:
    return ["n", plan.target.outputs] if plan.target.task == "multiclass" else ["n"]
