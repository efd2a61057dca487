"""What a probe promises: it proves a gain where the world has turned, none where it has not, at a bounded cost."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.data.loss import row_loss
from app.data.moments import MOMENT
from app.decisions import probe
from app.decisions.probe import gain
from app.declaration import read
from app.journal.rows import label_schema, prediction_schema
from app.journal.writer import SegmentWriter
from app.model.bundle import open_bundle
from app.spec import Spec
from app.types import FIRST_ID, Features, UserError
from app.workspace import Workspace

DAY = 86_400_000
LEARNED = 60 * DAY
"""Where the champion's knowledge ends."""
TARGETS = {
    "binary": TargetColumn("y", "binary", (False, True)),
    "multiclass": TargetColumn("y", "multiclass", ("a", "b", "c")),
    "regression": TargetColumn("y", "regression", mean=0.0, std=1.0),
    "absolute": TargetColumn("y", "regression", std=1.0, regression_loss="absolute"),
    "quantile": TargetColumn("y", "regression", std=1.0, regression_loss="quantile", quantile=0.8),
}


def plan_of(task: str) -> FeaturePlan:
    columns = (NumberColumn("x"),), (CategoryColumn("c", "string", ("red", "blue")),)
    return FeaturePlan(*columns, TARGETS[task], time="at")


def spec_of(**gate) -> Spec:
    return Spec.model_validate(
        {
            "name": "x",
            "task": {"target": "y"},
            "data": {"source": "x", "time": "at"},
            "gate": {"window": "10d", "min_rows": 200} | gate,
        }
    )


def days(task: str, number: int = 90, a_day: int = 40, turned: bool = True) -> Examples:
    """Return rows of `number` days; from day 60 on, if it has `turned`, the world is the other way round."""
    random = np.random.default_rng(3)
    n = number * a_day
    time = np.arange(n) * (DAY // a_day)
    x, colour = random.normal(size=n).astype(np.float32), random.integers(0, 2, n)
    sign = np.where((time > LEARNED) & turned, -1.0, 1.0)
    signal = sign * (x + colour - 0.5) + random.normal(size=n) / 2
    target = {"binary": signal > 0, "multiclass": np.digitize(signal, [-0.5, 0.5])}.get(task, signal)
    features = Features(x[:, None], (FIRST_ID + colour)[:, None])
    return Examples(features, target.astype(np.float32), time, np.arange(n))


@pytest.mark.parametrize("task", list(TARGETS))
def test_a_world_that_turned_is_a_proven_gain(task):
    found = gain(spec_of(), plan_of(task), days(task), LEARNED)
    assert found.low > 0.05
    assert found.low < found.relative < found.high
    assert (found.rows, found.days) == (400, 10)
    assert found.seconds > 0


@pytest.mark.parametrize("task", list(TARGETS))
def test_a_world_that_stayed_is_no_gain(task):
    found = gain(spec_of(), plan_of(task), days(task, turned=False), LEARNED)
    assert found.low < 0.005
    assert abs(found.relative) < 0.1


def test_the_probes_trees_learn_what_the_loss_asks_for(monkeypatch):
    """Of skewed values mean, median and quantile lie far apart; what the trees answer shows which they learned."""
    examples = days("regression", turned=False)
    skewed = examples._replace(
        target=np.random.default_rng(0).exponential(1.0, len(examples.target)).astype(np.float32)
    )
    answered: list[float] = []

    def watched(target, scores, labels):
        answered.append(float(scores.mean()))
        return row_loss(target, scores, labels)

    monkeypatch.setattr(probe, "row_loss", watched)
    for task in ("regression", "absolute", "quantile"):
        gain(spec_of(), plan_of(task), skewed, LEARNED)
    assert answered[::2] == pytest.approx([1.0, np.log(2), np.log(5)], abs=0.15)


def test_the_newest_rows_judge_and_those_between_teach():
    """Of no more than half the time since the champion learned: else there were nothing new to learn from."""
    examples = days("binary", 80)
    whole = gain(spec_of(window="90d"), plan_of("binary"), examples, LEARNED)
    assert (whole.rows, whole.days) == (400, 10)
    judged = examples.time > examples.time.max() - 10 * DAY
    unteachable = examples._replace(target=np.where(judged, 1 - examples.target, examples.target))
    # had the rows that judge taught as well, they would have taught that the world has turned back
    assert gain(spec_of(), plan_of("binary"), unteachable, LEARNED).high < 0


def test_the_same_rows_give_the_same_gain():
    first, second = (gain(spec_of(), plan_of("binary"), days("binary"), LEARNED) for _ in range(2))
    assert replace(first, seconds=0.0) == replace(second, seconds=0.0)


@pytest.mark.parametrize(
    ("examples", "gate", "said"),
    [
        (days("binary"), {"min_rows": 401}, r"400 labelled rows of 10 days .* at least 401 of 5 days"),
        (days("binary", 66), {"min_rows": 100}, r"120 labelled rows of 3 days .* at least 100 of 5 days"),
        (days("binary", 60), {"min_rows": 1}, r"0 labelled rows of 0 days"),
        (days("binary", 0), {"min_rows": 1}, r"0 labelled rows of 0 days"),
    ],
    ids=["rows", "days", "nothing new", "nothing at all"],
)
def test_too_few_rows_are_said(examples, gate, said):
    with pytest.raises(UserError, match=said):
        gain(spec_of(**gate), plan_of("binary"), examples, LEARNED)


def test_its_cost_does_not_grow_with_the_table(monkeypatch):
    seen = []

    def matrix(features):
        seen.append(len(features.number))
        return whole(features)

    whole = probe.matrix
    monkeypatch.setattr(probe, "matrix", matrix)
    monkeypatch.setattr(probe, "MOST_ROWS", 300)
    found = gain(spec_of(), plan_of("binary"), days("binary"), LEARNED)
    assert 150 <= found.rows <= 300
    assert found.days == 10  # drawn evenly: every day judges still
    assert len(seen) == 4
    assert all(150 <= rows <= 300 for rows in seen)


@pytest.mark.ray
def test_the_journal_tells_what_the_table_cannot_know_yet(trained, declaration, tmp_path):
    table = declaration.path.parent / "rides.parquet"
    given = read(declaration.path, ["name=probed", f"data.source={table}", "gate.window=5d"])
    workspace = Workspace.open(str(tmp_path))
    rides, plan = pq.read_table(table), open_bundle(trained.bundle).plan
    ids, begin = [f"new{i}" for i in range(rides.num_rows)], 1_709_251_200_000  # after the last ride
    times = pa.array(begin + np.arange(len(ids)) * 600_000).cast(MOMENT)
    schema = prediction_schema(plan)
    features = schema.field("features").type
    sent = [rides[field.name].combine_chunks().cast(field.type) for field in features]
    answered = pa.table(
        {
            "id": ids,
            "event": times,
            "arrival": times,
            "version": ["1"] * len(ids),
            "role": ["champion"] * len(ids),
            "score": np.full(len(ids), 0.5, np.float32),
            "shadow_version": [None] * len(ids),
            "shadow_score": [None] * len(ids),
            "features": pa.StructArray.from_arrays(sent, fields=list(features)),
        },
        schema=schema,
    )
    turned = {"id": ids, "label": pc.invert(rides["late"]), "event": times, "arrival": times}
    writer = SegmentWriter(workspace.uri("probed", "journal"), "replica")
    writer.write("predictions", answered)
    writer.write("labels", pa.table(turned, schema=label_schema(plan.target)))

    assert probe.probe(given, workspace, trained.bundle, begin - 1).low < given.spec.retrain.min_gain
    found = probe.probe(given, workspace, trained.bundle, begin + 40 * DAY)
    assert found.low > 0.05
    assert found.days == 6  # five of them, and a part of the sixth
