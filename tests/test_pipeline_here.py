"""What the way from table to version promises where no cluster is needed to see it: all of it runs in this process."""

import functools
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app import pipeline
from app.compression import _Work
from app.data import sources
from app.data.fit import fit_here
from app.data.prepare import in_process, prepare
from app.declaration import Declaration, read
from app.pipeline import Rows, Stopwatch, TrainedVersion, later_rows, train_version
from app.registry import Registry
from app.retraining import retrain_version
from app.training.kinds import WEIGHTS
from app.training.search.space import Space
from app.training.search.trials import Trial
from app.tuning import tune
from app.types import UNSEEN_ID, UserError
from app.workspace import Workspace

ROWS = 900
QUICK = ["model.kind=lightgbm", "model.trees.rounds=5", "gate.min_rows=50"]


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do a cluster's work in this process."""
    monkeypatch.setattr(pipeline, "prepare", functools.partial(prepare, run=in_process))
    monkeypatch.setattr(pipeline, "fit", fit_here)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """One database for all: making it takes longest."""
    return Workspace.open(str(tmp_path_factory.mktemp("workspace")))


def table(first_day: int = 0, **columns: object) -> pa.Table:
    random = np.random.default_rng(first_day)
    x = random.normal(size=ROWS)
    moments = pa.array(first_day * 86_400_000 + np.arange(ROWS) * 3_600_000, pa.timestamp("ms", "UTC"))
    y = random.random(ROWS) < 1 / (1 + np.exp(-2 * x))
    return pa.table({"t": moments, "x": x, "z": random.normal(size=ROWS), "y": y, **columns})


def declared(folder: Path, rows: pa.Table, *settings: str) -> Declaration:
    pq.write_table(rows, folder / "table.parquet")
    path = folder / "table.yaml"
    path.write_text(f"name: {folder.name[-40:].strip('_0').replace('_', '-')}\n")
    return read(path, ["task.target=y", "data.source=table.parquet", "data.time=t", *QUICK, *settings])


def trained(folder: Path, store: Workspace, *rows: pa.Table) -> list[TrainedVersion]:
    """Train a version of each table, one after the other, as the declaration's columns come and go."""
    return [train_version(declared(folder, one), store) for one in rows]


@pytest.mark.parametrize(
    ("after", "why"),
    [
        (table().drop_columns("z"), "features: the table has no column 'z'; found"),
        (table(y=["a", "b", "c"] * (ROWS // 3)), "target 'y': found"),
    ],
    ids=["gone", "relabelled"],
)
def test_a_champion_of_other_columns_is_no_opponent_and_the_version_waits(tmp_path, store, after, why):
    before, version = trained(tmp_path, store, table(), after)
    assert before.promoted, before.verdict.reasons
    assert not version.promoted
    assert version.verdict.reasons[0].startswith(
        f"refused: the champion, version {before.number}, cannot be judged on these rows: {why}"
    )
    registry = Registry.open(store, version.contents.spec.name)
    assert (registry.champion().number, registry.challenger().number) == (before.number, version.number)
    assert registry.version(version.number).gate == "refused"


def test_a_version_is_made_where_the_system_does_not_tell_its_processors(tmp_path, store, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")  # as on macOS
    assert trained(tmp_path, store, table())[0].promoted


def test_later_rows_are_all_judged_whatever_is_declared_of_the_tables_own(tmp_path, store):
    """What divides the declared table would leave none of the later rows for a part of it."""
    rows = table(c=[f"c{i % 3}" for i in range(ROWS)])
    settings = ["data.split.train_until=1970-01-20", "retrain.window=30d"]
    declaration = declared(tmp_path, rows, *settings)
    plan = fit_here(prepare(declaration, store, run=in_process), declaration.spec)
    new = [f"new {i}" for i in range(ROWS)]  # which inference would take for an identifier
    pq.write_table(table(100, c=new), tmp_path / "later.parquet")
    later = later_rows(declaration, store, str(tmp_path / "later.parquet"), plan)
    assert len(later.examples.target) == ROWS
    assert set(later.examples.features.category[:, 0].tolist()) == {UNSEEN_ID}
    few = pa.array([0, 1, 2] * (ROWS // 3))  # which inference would take for classes
    declaration = declared(tmp_path, table(y=np.arange(ROWS)), "task.loss=absolute")
    quantity = fit_here(prepare(declaration, store, run=in_process), declaration.spec)
    pq.write_table(table(100, y=few), tmp_path / "few.parquet")
    assert len(later_rows(declaration, store, str(tmp_path / "few.parquet"), quantity).examples.target) == ROWS
    declaration = declared(tmp_path, rows, *settings)
    pq.write_table(table(100), tmp_path / "less.parquet")
    with pytest.raises(UserError, match="the table has no column 'c'"):
        later_rows(declaration, store, str(tmp_path / "less.parquet"), plan)


def test_a_student_of_another_lesson_begins_anew_and_one_of_the_same_goes_on(tmp_path, store):
    """Checkpoints know a network's own settings, not what it is taught."""
    network = ["model.width=4", "model.depth=1", "compress.student.width=4", "compress.student.depth=1"]
    network += ["compress.student.epochs=2", "compress.unlabelled=more.parquet"]

    def weights(*settings: str) -> bytes:
        declaration = declared(tmp_path, table(), *network, *settings)
        rows = Rows.of(declaration, store, Stopwatch())
        work = _Work(declaration, store, rows, "by-name", Stopwatch())
        return work.student(lambda features: np.full(len(features.number), 0.9, np.float32)).learned[WEIGHTS]

    pq.write_table(table(100), tmp_path / "more.parquet")
    first = weights()
    assert weights() == first
    other_labels = weights("compress.student.teaching=0.5")
    pq.write_table(table(200).slice(100), tmp_path / "more.parquet")
    assert len({first, other_labels, weights()}) == 3


def test_a_search_that_goes_on_may_choose_another_trial(tmp_path, store, monkeypatch):
    """Each choice is a training of its own; the table is prepared and its features are fitted once a search."""
    from app.training.search import driver  # it imports Ray, which reads its environment then

    settings = [{}, {"train.learning_rate": 0.002}, {"train.learning_rate": 0.003}]
    trials = [Trial(i + 1, one, "finished", ((1, 0.7),), 0.7 - i / 10) for i, one in enumerate(settings)]
    fitted = []
    monkeypatch.setattr(pipeline, "fit", lambda *given: fitted.append(given) or fit_here(*given))
    network = ["model.kind=network", "model.width=4", "model.depth=1", "train.epochs=1", "tune.baseline=false"]
    declaration = declared(tmp_path, table(), *network)
    for chosen, best in ((0, 1), (1, 2), (2, 2)):
        found = driver.Found(
            Space.of(declaration.spec, ROWS), trials[: best + 1], trials[best], trials[0], 1.0, [], trials[chosen]
        )
        monkeypatch.setattr(driver, "search", lambda *_, found=found: found)
        tuned = tune(declaration, store)
        assert (tuned.version.contents.origin.tuned, len(tuned.sides)) == (
            settings[chosen],
            3 - (chosen == best) - (chosen == 0),
        )
    assert len(fitted) == 3


def test_a_retraining_learns_fractions_though_the_declared_text_begins_with_whole_numbers(
    tmp_path, store, monkeypatch
):
    monkeypatch.setattr(sources, "TEXT_BLOCK", 2000)
    known = table()
    x = known["x"].to_numpy().copy()
    x[:100] = x[:100].round()
    known = known.set_column(1, "x", pa.array(x))
    lines = [
        "t,x,z,y",
        *(
            f"{t.isoformat()},{x:g},{z},{str(y).lower()}"
            for t, x, z, y in zip(*known.to_pydict().values(), strict=True)
        ),
    ]
    declaration = declared(tmp_path, known, "data.source=table.csv", "retrain.policy=never")
    (tmp_path / "table.csv").write_text("\n".join(lines))
    assert train_version(declaration, store).promoted
    answered = table(40)

    def export(schema: pa.Schema, until: int | None) -> pa.Table:
        rows = answered.select(schema.names).cast(schema)
        assert rows["x"].equals(answered["x"])
        return rows

    assert retrain_version(declaration, store, "d1", "why", None, export).version == 2
