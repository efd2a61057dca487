"""A bundle opens as it was written, or not at all."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from app.model import bundle as module
from app.model.admission import check_graph
from app.model.bundle import open_bundle, write
from app.model.network import Network
from app.types import UserError


@pytest.fixture(scope="module")
def contents(make_contents):
    return make_contents()


@pytest.fixture(scope="module")
def written(contents, tmp_path_factory) -> Path:
    return Path(write(str(tmp_path_factory.mktemp("bundles")), contents))


@pytest.fixture
def copy(written, tmp_path) -> Path:
    return Path(shutil.copytree(written, tmp_path / written.name))


def test_what_was_written_is_what_opens(written, contents, make_features) -> None:
    bundle = open_bundle(str(written))
    assert (bundle.name, bundle.uri, bundle.version_id) == ("flights", str(written), written.name)
    assert (bundle.plan, bundle.spec) == (contents.plan, contents.spec)
    assert bundle.metrics["model"]["by_slice"] == {"origin": {"JFK": {"log_loss": 0.5, "rows": 300.0}}}
    assert bundle.data["time"] == ["2013-01-01", "2013-02-28"]
    assert bundle.size_bytes == sum(
        path.stat().st_size for path in written.rglob("*") if path.is_file() and path.name != "manifest.json"
    )
    np.testing.assert_array_equal(bundle.reference.counts, contents.reference.counts)
    features = make_features(bundle.plan, 20)
    network = Network.from_safetensors(
        bundle.learned["weights.safetensors"], bundle.plan, bundle.spec.model.model_copy(update=_small())
    )
    expected = network.score(*map(torch.from_numpy, features))
    np.testing.assert_allclose(bundle.runtime().score(features), expected, atol=1e-5)


def _small() -> dict[str, int]:
    return {"width": 16, "depth": 2, "number_embedding": 4, "frequencies": 6, "category_embedding": 5}


def test_equal_contents_are_one_version_and_others_another(written, contents, make_contents) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.rglob("*")}
    assert write(str(written.parent), make_contents()) == str(written)
    assert {path: path.stat().st_mtime_ns for path in written.rglob("*")} == before
    assert write(str(written.parent), make_contents(name="trains")) != str(written)


def test_a_bundle_opens_by_uri(written) -> None:
    assert open_bundle(written.as_uri()).version_id == written.name


@pytest.mark.parametrize("task", ["multiclass", "regression"])
def test_every_task_has_bundles(make_contents, tmp_path, task) -> None:
    assert open_bundle(write(str(tmp_path), make_contents(task))).plan.target.task == task


def test_a_changed_byte_is_noticed_in_every_file(copy) -> None:
    for path in sorted(copy.rglob("*.*")):
        whole = path.read_bytes()
        place = len(whole) // 2
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"SHA-256|manifest"):
            open_bundle(str(copy))
        path.write_bytes(whole)
    open_bundle(str(copy))


def test_a_missing_and_a_foreign_file_are_noticed(copy) -> None:
    (copy / "plots" / "more.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"plots/more.png is in the folder, but not in the manifest"):
        open_bundle(str(copy))
    (copy / "plots" / "more.png").unlink()
    (copy / "card.md").unlink()
    with pytest.raises(UserError, match=r"card.md is in the manifest, but not in the folder"):
        open_bundle(str(copy))


def test_half_a_bundle_is_none_and_can_be_written_again(contents, written, tmp_path) -> None:
    half = tmp_path / written.name
    half.mkdir()
    (half / "model.onnx").write_bytes(b"half")
    (half / ".card.md.0a1b").write_bytes(b"a draft")
    with pytest.raises(UserError, match="was never finished: it has no manifest"):
        open_bundle(str(half))
    assert write(str(tmp_path), contents) == str(half)
    open_bundle(str(half))


def test_a_writer_that_dies_leaves_no_bundle(contents, tmp_path, monkeypatch) -> None:
    real = module.write_bytes

    def dying(uri: str, data: bytes) -> None:
        if uri.endswith("spec.json"):
            raise OSError("disk full")
        real(uri, data)

    monkeypatch.setattr(module, "write_bytes", dying)
    with pytest.raises(OSError, match="disk full"):
        write(str(tmp_path), contents)
    [folder] = tmp_path.iterdir()
    with pytest.raises(UserError, match="never finished"):
        open_bundle(str(folder))


def test_a_second_writer_of_equal_contents_takes_nothing_from_the_first(contents, tmp_path, monkeypatch) -> None:
    real = module.write_bytes

    def dying(uri: str, data: bytes) -> None:
        raise OSError("killed")

    def interrupted(uri: str, data: bytes) -> None:
        if uri.endswith("manifest.json"):  # all else is there; now a job that was tried again begins, and dies
            monkeypatch.setattr(module, "write_bytes", dying)
            with pytest.raises(OSError, match="killed"):
                write(str(tmp_path), contents)
        real(uri, data)

    monkeypatch.setattr(module, "write_bytes", interrupted)
    assert open_bundle(write(str(tmp_path), contents)).name == "flights"


def test_no_bundle_there(tmp_path) -> None:
    with pytest.raises(UserError, match="is not there"):
        open_bundle(str(tmp_path / "nothing"))


def test_another_bundle_in_its_place_is_noticed(copy, tmp_path) -> None:
    moved = shutil.copytree(copy, tmp_path / "0123456789abcdef")
    with pytest.raises(UserError, match="the manifest is that of"):
        open_bundle(str(moved))


@pytest.mark.parametrize(
    "path", ["../evil.onnx", "/etc/passwd", "plots/../../x.png", "a\\b.png", ".hidden", "plots//x.png"]
)
def test_a_manifest_cannot_point_outside(copy, path) -> None:
    _edit(copy, lambda manifest: manifest["files"].update({path: manifest["files"]["card.md"]}))
    with pytest.raises(UserError, match="no place within a bundle"):
        open_bundle(str(copy))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.update(format=2), r"found format 2, this version of evertrue reads 1"),
        (lambda manifest: manifest.pop("format"), r"found format None"),
        (lambda manifest: manifest.update(code="import os"), r"code: Extra inputs"),
        (lambda manifest: manifest["files"]["card.md"].update(sha256="00"), r"files.card.md.sha256"),
        (lambda manifest: manifest["files"].pop("model.onnx"), r"does not name model.onnx"),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(copy, change, message) -> None:
    _edit(copy, change)
    with pytest.raises(UserError, match=message):
        open_bundle(str(copy))


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_manifest_that_is_no_json_object_is_refused(copy, text) -> None:
    (copy / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest.json is not JSON|found format None"):
        open_bundle(str(copy))


def _edit(folder: Path, change) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def _foreign(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def _in_a_branch(model: onnx.ModelProto) -> None:
    branch = helper.make_graph(
        [helper.make_node("Anything", [], ["x"], domain="com.example")],
        "branch",
        [],
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
    )
    condition = helper.make_tensor("condition", TensorProto.BOOL, [], [True])
    model.graph.initializer.append(condition)
    model.graph.node.append(helper.make_node("If", ["condition"], ["y"], then_branch=branch, else_branch=branch))
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def _function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Relu", ["a"], ["b"])
    opset = [helper.make_opsetid("", 20)]
    model.functions.append(helper.make_function("", "mine", ["a"], ["b"], [node], opset))


def _external(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")


def _other_output(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_foreign, "operators of com.example"),
        (_in_a_branch, "operators of com.example"),
        (_function, "found a function 'mine'"),
        (_external, "must be in the graph|not a valid ONNX graph"),
        (_other_output, r"'score': 'double\[n\]'"),
    ],
)
def test_a_graph_that_is_more_than_data_is_refused(contents, change, message) -> None:
    model = onnx.load_model_from_string(contents.onnx)
    change(model)
    with pytest.raises(UserError, match=message):
        check_graph(model.SerializeToString(), contents.plan, "model.onnx")
    check_graph(contents.onnx, contents.plan, "model.onnx")


@pytest.mark.parametrize("data", [b"", b"not a graph", b"\x08\x0a"])
def test_bytes_that_are_no_graph_are_refused(contents, data) -> None:
    with pytest.raises(UserError, match="not a valid ONNX graph"):
        check_graph(data, contents.plan, "model.onnx")
