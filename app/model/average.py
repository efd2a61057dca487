"""How do several models become one? Their graphs side by side in one graph, whose score is the mean of theirs."""

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import compose, helper, numpy_helper

from app.data.features import FeaturePlan


def average(graphs: Sequence[bytes], plan: FeaturePlan) -> bytes:
    """Return the graph whose score is the mean of the scores of these graphs, all of them of ours and of this plan.

    The sum is taken in float32, one after the other.
    """
    members = [_member(data, f"m{i}_") for i, data in enumerate(graphs)]
    versions = {entry.domain: entry.version for member in members for entry in member.opset_import}
    # We write all our graphs in the same versions; two of them cannot live in one graph.
    assert all(versions[entry.domain] == entry.version for member in members for entry in member.opset_import)
    constants = [tensor for member in members for tensor in member.graph.initializer]
    nodes = [node for member in members for node in member.graph.node]
    flow = "m0_score"
    for i in range(1, len(graphs)):
        nodes.append(helper.make_node("Add", [flow, f"m{i}_score"], [f"sum{i}"]))
        flow = f"sum{i}"
    constants.append(numpy_helper.from_array(np.float32(len(graphs)), "total"))
    nodes.append(helper.make_node("Div", [flow, "total"], ["score"]))
    shape = ["n", plan.target.outputs] if plan.target.task == "multiclass" else ["n"]
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "evertrue",
            list(members[0].graph.input),
            [helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, shape)],
            _distinct(constants, nodes),
        ),
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in sorted(versions.items())],
        ir_version=max(member.ir_version for member in members),
        producer_name="evertrue",
    )
    onnx.checker.check_model(model, full_check=True)
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def _member(data: bytes, prefix: str) -> onnx.ModelProto:
    """Return a graph with names of its own, but for the inputs, which all share."""
    return compose.add_prefix(onnx.load_model_from_string(data), prefix, rename_inputs=False)


def _distinct(constants: list[onnx.TensorProto], nodes: list[onnx.NodeProto]) -> list[onnx.TensorProto]:
    """Return one of equal constants each, and let the nodes take that one."""
    kept: dict[bytes, onnx.TensorProto] = {}
    named: dict[str, str] = {}
    for tensor in constants:
        content = onnx.TensorProto()
        content.CopyFrom(tensor)
        content.ClearField("name")
        named[tensor.name] = kept.setdefault(content.SerializeToString(deterministic=True), tensor).name
    for node in nodes:
        node.input[:] = [named.get(name, name) for name in node.input]
    return list(kept.values())
