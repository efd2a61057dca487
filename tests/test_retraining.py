"""What a retraining promises: new rows are learned, the newest judge, the champion stays, and nothing is done twice."""

import datetime as dt
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from app.compression import compress
from app.decisions.retrain import read_outcome
from app.declaration import Declaration, read
from app.model.bundle import open_bundle
from app.pipeline import TrainedVersion, settle, train_version
from app.registry import Registry
from app.retraining import extend, judged_from, retrain_version, still_open
from app.types import UserError
from app.workspace import Workspace

DAY = 86_400_000
START = 1_704_067_200_000  # 2024-01-01
QUICK = "model: {width: 16, depth: 1, number_embedding: 4, frequencies: 8}\ntrain: {epochs: 6, batch_size: 64, learning_rate: 0.01}\n"


def rides(first, days, effect, seed, a_day=75):
    """Return rides from day `first` on; rain delays them by `effect`."""
    random = np.random.default_rng(seed)
    n = days * a_day
    rain = random.random(n) < 0.4
    distance = random.gamma(2.0, 3.0, n)
    chance = 1 / (1 + np.exp(-(effect * (rain - 0.4) + 0.2 * (distance - 6))))
    return pa.table(
        {
            "ride": [f"{first}-{i}" for i in range(n)],
            "at": pa.array(START + first * DAY + np.arange(n) * (DAY // a_day), pa.timestamp("ms", "UTC")),
            "distance": distance,
            "rain": np.where(rain, "yes", "no"),
            "late": random.random(n) < chance,
        }
    )


@dataclass(frozen=True)
class Service:
    declaration: Declaration
    workspace: Workspace
    first: TrainedVersion
    arrivals: pa.Table

    def export(self, schema: pa.Schema, until: int | None) -> pa.Table:
        """Stand in for the journal: what has been answered, and a few rows the table has as well."""
        found = self.arrivals.select(schema.names).cast(schema)
        return found if until is None else found.filter(pc.less_equal(found["at"].cast(pa.int64()), until))


@pytest.fixture(scope="module")
def service(ray_session: str, tmp_path_factory: pytest.TempPathFactory) -> Service:
    """Return a champion of 40 days, after which the world has turned round for 20 days."""
    folder = tmp_path_factory.mktemp("service")
    history = rides(0, 40, 3.0, 1)
    pq.write_table(history, folder / "rides.parquet")
    path = folder / "rides.yaml"
    path.write_text(
        "name: turned\ntask: {target: late}\ndata: {source: rides.parquet, key: ride, time: at}\n"
        + QUICK
        + "gate: {window: 5d, min_rows: 100, margin: 10}\nretrain: {epochs: 5, warm_start: true, window: 15d}\n"
    )
    declaration = read(path)
    workspace = Workspace.open(str(folder / "workspace"))
    first = train_version(declaration, workspace)
    assert first.promoted, first.verdict.reasons
    arrivals = pa.concat_tables([history.slice(history.num_rows - 400), rides(40, 20, -3.0, 2)])
    return Service(declaration, workspace, first, arrivals)


@pytest.mark.ray
def test_what_passes_becomes_challenger_and_the_champion_stays(service):
    outcome = retrain_version(service.declaration, service.workspace, "d1", "rain is fine now", None, service.export)
    assert outcome.passed, outcome.reasons
    assert outcome.error is None
    assert outcome.cpu_seconds > 0
    versions = Registry.open(service.workspace, "turned")
    assert versions.champion().number == service.first.number
    challenger = versions.challenger()
    assert (challenger.number, challenger.reason) == (outcome.version, "rain is fine now")
    assert outcome.figures["against"] == "champion"
    assert outcome.figures["rows"] == 5 * 75 + 1  # the newest row, and the five days before it
    newest = pc.max(service.arrivals["at"].cast(pa.int64())).as_py()
    bundle = open_bundle(outcome.bundle)
    assert bundle.data["trained_until"] == outcome.trained_until
    assert newest - 5 * DAY - DAY < outcome.trained_until < newest - 5 * DAY
    assert bundle.plan.names == open_bundle(service.first.bundle).plan.names
    root = Path(service.workspace.uri("turned"))
    assert [path.name for path in (root / "retrain" / "d1").iterdir()] == ["outcome.json"]
    assert not list((root / "checkpoints").glob("d1*"))
    assert [path.name for path in (root / "data").iterdir()] == [service.first.contents.origin.fingerprint]


@pytest.mark.ray
def test_the_same_decision_again_finds_its_outcome(service):
    retrain_version(service.declaration, service.workspace, "d1", "once", None, service.export)
    known = len(Registry.open(service.workspace, "turned").versions())

    def never(*_):
        raise AssertionError("all is known")

    again = retrain_version(service.declaration, service.workspace, "d1", "twice", None, never)
    assert again == read_outcome(service.workspace, "turned", "d1")
    assert len(Registry.open(service.workspace, "turned").versions()) == known


@pytest.mark.ray
def test_a_failed_attempt_is_an_outcome_and_the_next_one_goes_on(service):
    def nothing_new(schema, until):
        return service.export(schema, until).slice(0, 400)  # all of them are in the table

    with pytest.raises(UserError, match="nothing to learn anew"):
        retrain_version(service.declaration, service.workspace, "d2", "why", None, nothing_new)
    failed = read_outcome(service.workspace, "turned", "d2")
    assert failed.version is None
    assert "nothing to learn anew" in failed.error
    until = START + 50 * DAY
    outcome = retrain_version(service.declaration, service.workspace, "d2", "why", until, service.export)
    assert outcome.error is None
    assert outcome.cpu_seconds > failed.cpu_seconds
    assert outcome.trained_until < until - 5 * DAY + 1


def test_a_service_without_a_champion_has_to_be_trained_first(service, tmp_path):
    empty = Workspace.open(str(tmp_path))
    with pytest.raises(UserError, match="no champion to retrain"):
        retrain_version(service.declaration, empty, "d", "why", None, service.export)
    assert "no champion" in read_outcome(empty, "turned", "d").error


def test_both_models_learned_only_from_rows_older_than_those_that_judge(service):
    spec = service.declaration.spec
    for days, expected in [(40, 5), (10, 5), (6, 3)]:
        newest = START + days * DAY
        begin = judged_from(spec, newest, START)
        assert begin == dt.datetime.fromtimestamp((newest - expected * DAY) / 1000, dt.UTC)


def test_features_that_were_found_out_once_stay_as_they_are(service):
    bundle = open_bundle(service.first.bundle)
    assert service.declaration.spec.features is None
    extended = extend(service.declaration.spec, "rows.parquet", START + 60 * DAY, bundle)
    assert {name: feature.type for name, feature in extended.features.items()} == {
        "distance": "number",
        "rain": "category",
    }
    assert extended.task.type == "binary"
    assert extended.data.source == ["rides.parquet", "rows.parquet"]
    assert extended.train.epochs == 5


def test_a_retraining_keeps_what_a_search_found_as_far_as_the_declaration_leaves_it_open(service, tmp_path):
    champion = open_bundle(service.first.bundle)
    found = {"model.dropout": 0.3, "model.width": 64, "train.weight_decay": 0.1, "train.epochs": 9}
    tuned = replace(champion, data={**champion.data, "tuned": found})
    spec = service.declaration.spec  # declares width, and epochs of training and retraining
    assert still_open(spec, tuned) == {"model.dropout": 0.3, "train.weight_decay": 0.1}
    assert still_open(spec, champion) == {}


@pytest.mark.ray
def test_what_a_search_found_for_the_champion_is_in_the_version_after_it(service, tmp_path):
    workspace = Workspace.open(str(tmp_path / "ws"))
    first = train_version(service.declaration, workspace, reason="found", tuned={"model.dropout": 0.31})
    assert open_bundle(first.bundle).data["tuned"] == {"model.dropout": 0.31}
    outcome = retrain_version(service.declaration, workspace, "d1", "rain is fine", None, service.export)
    bundle = open_bundle(outcome.bundle)
    assert bundle.data["tuned"] == {"model.dropout": 0.31}
    assert bundle.spec.model.dropout == 0.31


@pytest.mark.ray
def test_what_follows_a_smaller_version_is_one_too(service, tmp_path):
    workspace = Workspace.open(str(tmp_path / "ws"))
    quick = [
        "compress.teacher.width=512",
        "compress.teacher.depth=2",
        "compress.student.width=16",
        "compress.student.depth=1",
        "compress.student.epochs=12",
        "compress.prune=[]",
        "compress.quantise=[]",
        "compress.margin=10",
        "compress.max_latency=1",
        "compress.max_size=0.9",
    ]
    declaration = read(service.declaration.path, quick)
    small = compress(declaration, workspace).version
    assert settle(declaration.spec, workspace, small).promoted, small.verdict.reasons
    outcome = retrain_version(declaration, workspace, "d1", "rain is fine", None, service.export)
    bundle = open_bundle(outcome.bundle)
    assert bundle.metrics["compression"]["chosen"] == "student"
    assert outcome.figures["against"] == "champion"
    assert outcome.passed, outcome.reasons
    assert "is allowed" not in outcome.reasons[0]  # it has to be better, as any retrained version
