"""A backtest leads the loop's own policy through a history: who is served when, what it costs, what is recommended."""

import datetime as dt
from dataclasses import replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.backtest.compare import contrast, follow, plot, policies, snippet, table
from app.backtest.course import Course, Simulation
from app.backtest.history import DAY, History
from app.backtest.models import Model
from app.data.encode import Examples, load
from app.data.fit import fit_here
from app.data.loss import row_loss
from app.data.prepare import Prepared, in_process, prepare
from app.data.split import Cut
from app.decisions.probe import Gain
from app.declaration import Declaration, read
from app.monitor.profile import Reference
from app.spec import Spec
from app.types import UserError
from app.workspace import Workspace

START = 1_704_067_200_000  # 2024-01-01
DAYS, PER_DAY = 150, 160
TURNS = 75
"""From this day on, what made a ride late makes it early."""


@pytest.fixture(scope="module")
def declaration(tmp_path_factory: pytest.TempPathFactory) -> Declaration:
    folder = tmp_path_factory.mktemp("turning")
    random = np.random.default_rng(0)
    rows = DAYS * PER_DAY
    time = START + np.sort(random.integers(0, DAYS * DAY, rows))
    x = random.normal(size=rows)
    sign = np.where(time < START + TURNS * DAY, 1.0, -1.0)
    late = random.random(rows) < 1 / (1 + np.exp(-2 * sign * x))
    shuffled = random.permutation(rows)  # files need not be in order of time
    columns = {"at": pa.array(time).cast(pa.timestamp("ms", "UTC")), "x": pa.array(x)}
    rides = pa.table(columns | {"late": pa.array(late, mask=np.arange(rows) % 20 == 0)}).take(shuffled)
    pq.write_table(rides, folder / "rides.parquet")
    path = folder / "rides.yaml"
    path.write_text(
        "name: rides\ntask: {target: late}\ndata: {source: rides.parquet, time: at, split: {validation: 0.5}}\n"
        "gate: {min_rows: 50, window: 14d}\nretrain: {min_labels: 100, every: 28d}\n"
    )
    return read(path)


@pytest.fixture(scope="module")
def history(declaration: Declaration, tmp_path_factory: pytest.TempPathFactory) -> History:
    workspace = Workspace.open(str(tmp_path_factory.mktemp("workspace")))
    return History.of(prepare(declaration, workspace, in_process), declaration.spec, START + 30 * DAY, DAY)


class Trainer:
    """Stands in for real trainings: says after the newest 20 days what `x` means, as surely as that was true."""

    def __init__(self, spec: Spec, history: History) -> None:
        self.spec, self.history = spec, history
        self.asked: list[int] = []
        self.x: npt.NDArray[np.float64] = history.table["x"].to_numpy()
        self.target = history.table["late"].cast(pa.float32()).to_numpy()

    def __call__(self, until: int, before: Model | None) -> Model:
        self.asked.append(until)
        prepared = self.history.prepared
        cut = self.history.cut(self.spec, until, 0.5)
        plan = fit_here(_with(prepared, cut), self.spec)
        rows = self.history.rows(until - 20 * DAY, until)
        sign = np.sign(np.nanmean((self.target[rows] - 0.5) * self.x[rows]))
        scores = (1 / (1 + np.exp(-2 * sign * self.x))).astype(np.float32)
        validation = load(_with(prepared, cut), plan, "validation")
        judged = (1 / (1 + np.exp(-2 * sign * validation.features.number[:, 0]))).astype(np.float32)
        train: Examples = load(_with(prepared, cut), plan, "train")
        reference = Reference.of(plan, self.spec.drift, train, validation, judged)
        known = ~np.isnan(self.target[rows])
        loss = float(row_loss(plan.target, scores[rows][known], self.target[rows][known]).mean())
        return Model(f"m{until}", until, plan, self.spec, reference, loss, 5.0, 1.0, scores)


def _with(prepared: Prepared, cut: Cut) -> Prepared:
    return replace(prepared, cut=cut)


def no_probe(champion: Model, until: int) -> Gain:
    raise AssertionError("nobody asked for a probe")


def simulate(name: str, declaration: Declaration, history: History, train=None, probe=no_probe) -> Course:
    spec = declaration.spec.model_copy(update={"retrain": policies(declaration.spec)[name]})
    return Simulation(name, spec, history, train or Trainer(spec, history), probe).run()


def test_never_serves_every_labelled_row_after_the_start_with_the_first_version(declaration, history):
    course = simulate("never", declaration, history)
    served = ~np.isnan(course.loss)
    assert np.array_equal(served, history.labelled & (history.time >= history.start))
    trainer = Trainer(declaration.spec, history)
    first = trainer(history.start, None)
    expected = row_loss(first.plan.target, first.scores[served], trainer.target[served])
    assert np.allclose(course.loss[served], expected)
    assert course.retrains == []
    assert course.cpu_seconds == 0  # the first version is everybody's


def test_a_calendar_retrains_by_its_period_and_answers_better_once_the_world_has_turned(declaration, history):
    never, monthly = (simulate(name, declaration, history) for name in ("never", "calendar, 4 weeks"))
    days = [dt.date.fromisoformat(one["day"]) for one in monthly.retrains]
    assert {(later - earlier).days for earlier, later in pairwise(days)} == {28}
    assert any(one["passed"] for one in monthly.retrains)
    assert monthly.cpu_seconds == 5.0 * len(monthly.retrains)
    assert monthly.mean < never.mean - 0.3
    turned = START + TURNS * DAY
    before = history.labelled & (history.time >= history.start) & (history.time < turned)
    assert monthly.loss[before].mean() == pytest.approx(never.loss[before].mean())


def test_a_training_never_sees_rows_that_judge_it_or_labels_that_were_not_known(declaration, history):
    trainer = Trainer(declaration.spec, history)
    course = simulate("calendar, 4 weeks", declaration, history, trainer)
    asked = [dt.datetime.fromtimestamp(until / 1000, dt.UTC).date() for until in trainer.asked[1:]]
    for until, one in zip(asked, course.retrains, strict=True):
        decided = dt.date.fromisoformat(one["day"])
        assert (decided - until).days >= 14  # gate.window, and a day of delay


def test_what_the_gate_refuses_is_paid_for_and_never_answers(declaration, history):
    spec = declaration.spec
    trainer = Trainer(spec, history)

    def worse(until: int, before: Model | None) -> Model:
        model = trainer(until, before)
        if before is None:
            return model
        return Model(**{**vars(model), "scores": np.full_like(model.scores, 0.5)})

    never = simulate("never", declaration, history)
    monthly = policies(spec)["calendar, 4 weeks"]
    refused = Simulation("worse", spec.model_copy(update={"retrain": monthly}), history, worse, no_probe).run()
    early = [one for one in refused.retrains if one["day"] < "2024-03-10"]
    assert early
    assert not any(one["passed"] for one in early)
    assert all("not proven better" in " ".join(one["reasons"]) for one in early)
    first = history.labelled & (history.time >= history.start) & (history.time < START + 60 * DAY)
    assert np.array_equal(refused.loss[first], never.loss[first])
    assert refused.cpu_seconds == 5.0 * len(refused.retrains)


def test_a_probe_buys_a_retraining_only_when_it_proves_a_gain(declaration, history):
    def probe(champion: Model, until: int) -> Gain:
        gain = until > START + 100 * DAY
        return Gain(0.2 if gain else 0.0, 0.1 if gain else -0.1, 0.3, 500, 14, 2.0)

    course = simulate("probe", declaration, history, probe=probe)
    assert course.probes > len(course.retrains) >= 1
    assert course.retrains[0]["day"] > "2024-04-09"
    assert course.cpu_seconds == 2.0 * course.probes + 5.0 * len(course.retrains)


def test_a_probe_with_too_few_rows_buys_nothing_and_the_backtest_goes_on(declaration, history):
    def probe(champion: Model, until: int) -> Gain:
        raise UserError("too few rows")

    course = simulate("probe", declaration, history, probe=probe)
    assert (course.probes, course.retrains) == (0, [])
    assert np.array_equal(~np.isnan(course.loss), history.labelled & (history.time >= history.start))


def test_an_alarm_of_the_loss_retrains_after_the_turn_and_not_before(declaration, history):
    course = simulate("loss", declaration, history)
    assert course.alarms >= 1
    assert course.retrains[0]["day"] > "2024-03-16"
    assert course.mean < simulate("never", declaration, history).mean - 0.2


def test_the_cheapest_policy_that_is_not_proven_worse_is_recommended(declaration, history):
    chosen = {name: policies(declaration.spec)[name] for name in ("never", "calendar, 2 weeks", "calendar, 4 weeks")}
    courses = follow(chosen, lambda name, _: simulate(name, declaration, history))
    found = contrast(declaration.spec, history, courses)
    by_name = {line.name: line for line in found.lines}
    assert found.recommended != "never"
    assert by_name["never"].low > 0
    equal = [line for line in found.lines if line.low <= 0]
    assert by_name[found.recommended].cpu_seconds == min(line.cpu_seconds for line in equal)
    assert f"**{found.recommended}**" in table(found)
    assert plot(found).startswith(b"\x89PNG")
    path = declaration.path.with_name("recommended.yaml")
    path.write_text(f"{declaration.text.partition('retrain:')[0]}{snippet(found.retrain)}\n")
    assert read(path).spec.retrain == found.retrain


def test_a_history_that_is_too_short_is_refused_with_its_dates(declaration, history):
    with pytest.raises(UserError, match=r"2024-01-01 to 2024-05-2\d; a backtest needs .* 30 days after it"):
        History.of(history.prepared, declaration.spec, START + 140 * DAY, 0)
