"""What the registry promises: nothing is registered twice, champions can be taken back, runs keep their curves."""

import json
import multiprocessing
import shutil
import socket
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from app.registry import Registry
from app.spec import Spec
from app.types import UserError
from app.workspace import Workspace

SPEC = Spec(
    name="flights",
    task={"target": "late"},
    data={"source": ["a.csv", "b.csv"]},
    features={f"f{i}": "number" for i in range(60)},
)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """One database for all: making it takes longest."""
    return Workspace.open(str(tmp_path_factory.mktemp("workspace")))


@pytest.fixture
def registry(store, request):
    """A registry nothing is in yet."""
    return Registry.open(store, request.node.name.replace("[", "-").replace("]", "")[5:60].replace("_", "-"))


def test_a_run_is_written_down_whatever_the_features_are_called(registry):
    names = ["share %", "share #", "a//b", "../c", "d" * 300]
    spec = SPEC.model_copy(update={"features": dict.fromkeys(names, SPEC.features["f0"])})
    with registry.run(spec, fingerprint="abc") as run:
        pass
    kept = registry.client.get_run(run.id).data.params
    assert sum(value == "number" for key, value in kept.items() if key.startswith("features.")) == len(names)
    assert kept["features.share _.type"] == kept["features.share _.type_"] == "number"


def register(registry, *bundles, reason="first"):
    with registry.run(SPEC, fingerprint="abc") as run:
        pass
    return [registry.register(bundle, run.id, "abc", reason) for bundle in bundles]


def test_a_run_keeps_declaration_curves_figures_files_and_origin(registry):
    with registry.run(SPEC, fingerprint="abc", commit="1234567", job="train-1") as run:
        for epoch in range(3):
            run.log_epoch(epoch, {"validation.log_loss": 0.5 - epoch / 10})
        run.log_metrics({"test.auc": 0.72, "slice/carrier=UA": float("nan")})
        run.log_files({"card.md": b"# Card", "plots/roc.png": b"png"})
        run.describe("# Card\n\n![ROC](plots/roc.png)\n\nGood.")
    kept = registry.client.get_run(run.id)
    curve = registry.client.get_metric_history(run.id, "validation.log_loss")
    assert kept.info.status == "FINISHED"
    assert kept.data.params["train.epochs"] == "20"
    assert kept.data.params["data.source"] == '["a.csv", "b.csv"]'
    assert kept.data.params["features.f59.type"] == "number"
    assert [(point.step, point.value) for point in curve] == [(0, 0.5), (1, 0.4), (2, 0.3)]
    assert kept.data.metrics["test.auc"] == 0.72
    assert kept.data.tags["mlflow.source.git.commit"] == "1234567"
    assert (kept.data.tags["evertrue.fingerprint"], kept.data.tags["evertrue.job"]) == ("abc", "train-1")
    assert kept.data.tags["mlflow.note.content"] == "# Card\n\nGood."
    artifacts = {one.path for one in registry.client.list_artifacts(run.id)}
    assert artifacts == {"card.md", "plots"}


def test_a_training_that_raises_is_a_failed_run(registry):
    with pytest.raises(ZeroDivisionError), registry.run(SPEC, fingerprint="abc") as run:
        run.log_metrics({"x": 1 / 0})
    assert registry.client.get_run(run.id).info.status == "FAILED"


def test_an_empty_registry_has_no_versions(registry):
    assert registry.versions() == []
    assert registry.champion() is None
    assert registry.challenger() is None
    with pytest.raises(UserError, match="has no version 1; there are none yet"):
        registry.promote(1)
    with pytest.raises(UserError, match="no champion before"):
        registry.rollback()


def test_a_version_tells_its_lineage(registry):
    first, second = register(registry, "/b/1", "/b/2")
    registry.promote(1)
    (third,) = register(registry, "s3://bucket/b/3", reason="loss drift")
    assert (first.parent, second.parent, third.parent) == (None, None, 1)
    assert (third.number, third.bundle, third.fingerprint) == (3, "s3://bucket/b/3", "abc")
    assert third.reason == "loss drift"
    assert registry.client.get_run(third.run).data.tags["evertrue.fingerprint"] == "abc"
    assert [version.number for version in registry.versions()] == [1, 2, 3]


def test_registering_a_bundle_again_gives_the_same_version(registry):
    first, _, again = register(registry, "/b/1", "/b/2", "/b/1")
    assert again == first
    assert [version.number for version in registry.versions()] == [1, 2]


def test_a_server_elsewhere_gets_no_path_of_this_machine_yet_tells_where_the_bundle_is(registry):
    remote = replace(registry, keeps_paths=False)
    (version,) = register(remote, "/b/1")
    assert version.bundle == "/b/1"
    assert registry.client.get_model_version(registry.name, "1").source == f"runs:/{version.run}/bundle"


def test_promoting_moves_the_champion_and_ends_the_trial(registry):
    register(registry, "/b/1", "/b/2")
    registry.promote(1)
    registry.challenge(2)
    assert registry.challenger().number == 2
    registry.promote(2)
    registry.promote(2)
    assert registry.champion().number == 2
    assert registry.champion().aliases == ("champion",)
    assert registry.challenger() is None
    assert registry.rollback().number == 1


def test_promoting_another_leaves_the_challenger_on_trial(registry):
    register(registry, "/b/1", "/b/2")
    registry.challenge(2)
    registry.promote(1)
    assert registry.challenger().number == 2


def test_rollback_walks_back_the_line_of_champions(registry):
    register(registry, "/b/1", "/b/2", "/b/3")
    for number in (1, 2, 3, 1):
        registry.promote(number)
    assert [registry.rollback().number for _ in range(3)] == [3, 2, 1]
    with pytest.raises(UserError, match="no champion before"):
        registry.rollback()
    assert registry.champion().number == 1


def test_after_a_rollback_the_line_goes_on_from_the_restored_champion(registry):
    register(registry, "/b/1", "/b/2", "/b/3")
    registry.promote(1)
    registry.promote(2)
    registry.rollback()
    registry.promote(3)
    assert registry.rollback().number == 1


def test_a_promotion_cut_off_half_way_is_finished_by_doing_it_again(registry, monkeypatch):
    register(registry, "/b/1", "/b/2")
    registry.promote(1)

    def cut(*_):
        raise ConnectionError

    with monkeypatch.context() as patch:
        patch.setattr(registry.client, "set_registered_model_alias", cut)
        with pytest.raises(ConnectionError):
            registry.promote(2)
    assert registry.champion().number == 1
    registry.promote(2)
    assert registry.champion().number == 2
    assert registry.rollback().number == 1


def test_the_verdict_stands_on_the_versions_page(registry):
    register(registry, "/b/1")
    registry.record_verdict(1, passed=False, reasons=["refused: too slow", "small enough"])
    assert registry.versions()[0].gate == "refused"
    page = registry.client.get_model_version(registry.name, "1").description
    assert page == "Gate: refused.\n\n- refused: too slow\n- small enough"


def test_more_versions_than_a_page_are_all_seen(registry):
    register(registry, "/b/1")
    real = registry.client.search_model_versions

    def small(*arguments, **more):
        return real(*arguments, max_results=1, **more)

    register(registry, "/b/2", "/b/3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry.client, "search_model_versions", small)
        assert [version.number for version in registry.versions()] == [1, 2, 3]


def test_threads_that_register_one_bundle_at_once_agree_on_its_version(registry):
    with registry.run(SPEC, fingerprint="abc") as run:
        pass
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: registry.register("/b/1", run.id, "abc", "race"), range(8)))
    assert {version.number for version in found} == {registry.versions()[0].number}
    assert len(registry.versions()) == 1


def _open_and_register(root, barrier, bundle):
    barrier.wait()
    registry = Registry.open(Workspace.open(root), "flights")
    with registry.run(SPEC, fingerprint="abc") as run:
        run.log_epoch(0, {"loss": 1.0})
    registry.register(bundle, run.id, "abc", "race")


def test_two_processes_may_make_and_fill_one_registry_at_once(tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(2)
    processes = [
        context.Process(target=_open_and_register, args=(str(tmp_path), barrier, bundle))
        for bundle in ("/b/1", "/b/2")
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    versions = Registry.open(Workspace.open(str(tmp_path)), "flights").versions()
    assert [version.number for version in versions] == [1, 2]
    assert {version.bundle for version in versions} == {"/b/1", "/b/2"}


def test_everything_stays_in_the_workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    registry = Registry.open(Workspace.open("here"), "flights")
    with registry.run(SPEC, fingerprint="abc") as run:
        run.log_files({"card.md": b"# Card"})
    assert {path.name for path in tmp_path.iterdir()} == {"here"}
    assert {path.name for path in (tmp_path / "here").iterdir()} == {"mlflow.db", "mlflow-artifacts"}


def test_an_address_may_be_given_or_stand_in_the_environment(tmp_path, store, monkeypatch):
    Registry.open(store, "before")
    for name in ("given.db", "environment.db"):
        shutil.copyfile(store.uri("mlflow.db"), tmp_path / name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'environment.db'}")
    Registry.open(store, "flights")
    Registry.open(store, "flights", f"sqlite:///{tmp_path / 'given.db'}")
    for name in ("given.db", "environment.db"):
        with sqlite3.connect(tmp_path / name) as database:
            assert ("flights",) in database.execute("select name from experiments").fetchall()


def test_an_object_store_needs_an_address():
    with pytest.raises(UserError, match=r"'s3://bucket/work' is on an object store.*\$MLFLOW_TRACKING_URI"):
        Registry.open(Workspace("s3://bucket/work"), "flights")


@pytest.mark.parametrize("folder", ["a?b", "a%20b"])
def test_a_folder_where_no_database_can_be_is_refused_at_once(folder, tmp_path):
    with pytest.raises(UserError, match=r"has a '\?' or an escape such as %20 in its name.*name another workspace"):
        Registry.open(Workspace.open(str(tmp_path / folder)), "flights")
    assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_a_file_that_is_no_database_is_a_clear_error(tmp_path):
    (tmp_path / "mlflow.db").write_bytes(b"this is no database" * 100)
    with pytest.raises(UserError, match=r"mlflow.db' cannot be opened: .*not a database"):
        Registry.open(Workspace(str(tmp_path)), "flights")


def test_a_server_that_is_not_there_is_a_clear_error(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(UserError, match=f"{address}' cannot be opened"):
            Registry.open(store, "flights", address)


@pytest.mark.parametrize("address", ["http://me:geheim@127.0.0.1:1", "https://geheim@127.0.0.1:1/mlflow"])
def test_a_server_is_told_a_password_by_the_environment_not_by_its_address(store, address):
    with pytest.raises(UserError, match=r"holds a credential, .*allowed: \$MLFLOW_TRACKING_USERNAME") as told:
        Registry.open(store, "flights", address)
    assert "geheim" not in str(told.value)


@pytest.mark.parametrize("scheme", ["none", "postgresql"])  # unknown, and one whose driver is not installed
def test_a_databases_password_is_in_no_error(scheme, store):
    with pytest.raises(UserError, match=rf"{scheme}://\*\*\*@127.0.0.1/db' cannot be opened") as told:
        Registry.open(store, "flights", f"{scheme}://me:geheim@127.0.0.1/db")
    assert "geheim" not in str(told.value)


def test_a_deleted_experiment_says_how_to_restore_it(registry, store):
    registry.client.delete_experiment(registry.experiment)
    with pytest.raises(UserError, match=f"restore --experiment-id {registry.experiment}"):
        Registry.open(store, registry.name)


def test_the_line_of_champions_is_plain_json(registry):
    register(registry, "/b/1")
    registry.promote(1)
    assert json.loads(registry.client.get_registered_model(registry.name).tags["evertrue.champions"]) == [1]
