"""A challenger answers its share, always the same rows; whatever it does wrong, the champion's answer is there."""

import asyncio
import json
import threading
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from app.data.features import CategoryColumn, NumberColumn
from app.lineup import bucket
from app.serving import canary, trial
from app.types import Features, Scores

ROW = {"distance": 250.0, "passengers": 2, "zone": "north", "rain": True}
IDS = [f"ride-{i}" for i in range(200)]
ROWS = [ROW | {"ride": name, "distance": float(i)} for i, name in enumerate(IDS)]
ARROW = "application/vnd.apache.arrow.stream"
SHARE = 0.25
THEIRS = [bucket(name) < SHARE for name in IDS]


def three(features: Features) -> Scores:
    return np.full(len(features.number), 0.75, np.float32)


def not_a_number(features: Features) -> Scores:
    return np.full(len(features.number), np.nan, np.float32)


def crashes(features: Features) -> Scores:
    raise RuntimeError("graph")


def models(answer: dict[str, Any]) -> list[str]:
    return [one.get("model", answer["model"]) for one in answer["predictions"]]


def test_a_share_of_the_rows_is_the_challengers_and_always_the_same_in_any_request(room: Any, version: Any) -> None:
    here = room()
    here.stand(version("1"), version("2", three), SHARE)
    expected = ["rides/2" if theirs else "rides/1" for theirs in THEIRS]
    together = here.predict(*ROWS).json()
    assert models(together) == expected
    assert together["model"] == "rides/1"
    alone = here.ask(*(("POST", "/rides/predict", {"json": row}) for row in ROWS[:60]))
    assert [answer.json()["model"] for answer in alone] == expected[:60]
    scores = [one["score"] for one in together["predictions"]]
    assert scores == pytest.approx([0.75 if theirs else i / 1000 for i, theirs in enumerate(THEIRS)])
    here.recorder.flush()
    found = here.kept.rows("predictions")[:200]
    assert [row["version"] for row in found] == ["2" if theirs else "1" for theirs in THEIRS]
    assert [row["role"] for row in found] == ["challenger" if theirs else "champion" for theirs in THEIRS]
    assert [row["shadow_version"] for row in found] == ["1" if theirs else None for theirs in THEIRS]
    own = [row["shadow_score"] if theirs else row["score"] for row, theirs in zip(found, THEIRS, strict=True)]
    assert own == pytest.approx([i / 1000 for i in range(200)])  # both losses can be told on the same rows
    rows: dict[tuple[str, str], int] = {}
    for row in here.kept.rows("profiles"):
        rows[row["version"], row["role"]] = rows.get((row["version"], row["role"]), 0) + row["rows"]
    theirs = sum(THEIRS) + sum(THEIRS[:60])
    assert rows == {("1", "champion"): 260 - theirs, ("1", "shadow"): theirs, ("2", "challenger"): theirs}
    assert here.count("evertrue_challenger_rows_total", "answered") == theirs


def test_arrow_answers_name_the_model_of_every_row(room: Any, version: Any) -> None:
    here = room()
    here.stand(version("1"), version("2", three), SHARE)
    table = pa.Table.from_pylist(ROWS)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    content = {"content": sink.getvalue().to_pybytes(), "headers": {"content-type": ARROW}}
    answer = pa.ipc.open_stream(here.ask(("POST", "/rides/predict", content))[0].content).read_all()
    assert answer["model"].to_pylist() == ["rides/2" if theirs else "rides/1" for theirs in THEIRS]
    assert answer["label"].to_pylist() == [theirs or i >= 500 for i, theirs in enumerate(THEIRS)]


def test_with_the_whole_share_the_answer_is_the_challengers(room: Any, version: Any) -> None:
    here = room()
    here.stand(version("1"), version("2", three), 1.0)
    answer = here.predict(*ROWS).json()
    assert answer["model"] == "rides/2"
    assert set(models(answer)) == {"rides/2"}
    assert all("model" not in one for one in answer["predictions"])


@pytest.mark.parametrize(("score", "errors", "not_finite"), [(crashes, 200, 0), (not_a_number, 0, 200)])
@pytest.mark.parametrize("share", [1.0, 0.0])
def test_what_a_challenger_fails_on_is_the_champions_and_is_counted(
    room: Any, version: Any, score: Any, errors: int, not_finite: int, share: float
) -> None:
    here = room()
    here.stand(version("1"), version("2", score), share)
    answer = here.predict(*ROWS)
    assert answer.status_code == 200
    assert set(models(answer.json())) == {"rides/1"}
    here.recorder.flush()
    found = here.kept.rows("predictions")
    assert {(row["version"], row["role"], row["shadow_score"]) for row in found} == {("1", "champion", None)}
    role = "challenger" if share else "shadow"
    [profile] = [
        row for row in here.kept.rows("profiles") if row["version"] == "2" and row["errors"] + row["not_finite"]
    ]
    assert (profile["role"], profile["errors"], profile["not_finite"]) == (role, errors, not_finite)
    assert here.count("evertrue_challenger_rows_total", "failed") == (200 if share else 0)


def test_only_the_rows_without_a_number_are_left_to_the_champion(room: Any, version: Any) -> None:
    def sometimes(features: Features) -> Scores:
        return np.where(features.number[:, 0] < 50, np.nan, 0.75).astype(np.float32)

    here = room()
    here.stand(version("1"), version("2", sometimes), 1.0)
    assert models(here.predict(*ROWS).json()) == ["rides/1"] * 50 + ["rides/2"] * 150


def test_a_challenger_that_hangs_costs_its_first_rows_a_moment_and_the_next_nothing(
    room: Any, version: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def hangs(features: Features) -> Scores:
        assert release.wait(60)
        return three(features)

    here = room()
    here.stand(version("1"), version("2", hangs), 1.0)
    monkeypatch.setattr(canary, "PATIENCE", 0.1)
    try:
        assert here.predict(ROW).json()["model"] == "rides/1"
        monkeypatch.setattr(canary, "PATIENCE", 60)  # who waited for the thread now would wait for long
        assert here.predict(ROW).json()["model"] == "rides/1"
    finally:
        release.set()
    here.recorder.flush()
    assert sum(row["errors"] for row in here.kept.rows("profiles") if row["role"] == "challenger") == 2


def of_one_row(features: Features) -> Scores:
    return np.full(1, 0.75, np.float32)


def too_deep(features: Features) -> Scores:
    return np.full((len(features.number), 1), 0.75, np.float32)


@pytest.mark.parametrize("score", [of_one_row, too_deep])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_graph_that_gives_other_than_a_score_a_row_is_a_challenger_that_failed(
    room: Any, version: Any, score: Any, share: float
) -> None:
    here = room()
    here.stand(version("1"), version("2", score), share)
    for _ in range(2):
        requests = [("POST", "/rides/predict", {"json": {"rows": ROWS[i : i + 20]}}) for i in range(0, 40, 20)]
        assert [set(models(answer.json())) for answer in here.ask(*requests)] == [{"rides/1"}] * 2
    here.recorder.flush()
    assert len(here.kept.rows("predictions")) == 80
    role = "challenger" if share else "shadow"
    assert sum(row["errors"] for row in here.kept.rows("profiles") if row["role"] == role) == 80


def test_who_came_while_an_answer_went_wrong_is_answered(version: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    body, rows, release = json.dumps(ROW).encode(), np.ones(1, np.bool_), threading.Event()
    one = canary.Canary(version("2", three), 1.0, 1.0, lambda call: None)

    def fails(requests: list[Any]) -> list[Any]:
        assert release.wait(60)
        raise MemoryError

    async def ask() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, facts: None)
        with monkeypatch.context() as broken:
            broken.setattr(one, "_answer", fails)
            one.ask("application/json", body, rows)
            await asyncio.sleep(0)  # the thread has begun
        second = one.ask("application/json", body, rows)
        release.set()
        assert (await asyncio.wait_for(second, 60)).good.all()

    asyncio.run(ask())


def test_one_request_that_a_challenger_cannot_score_fails_alone(room: Any, version: Any) -> None:
    def picky(features: Features) -> Scores:
        if (features.number[:, 0] == 13).any():
            raise RuntimeError("graph")
        return three(features)

    here = room()
    here.stand(version("1"), version("2", picky), 1.0)
    answers = here.ask(*(("POST", "/rides/predict", {"json": row}) for row in ROWS[:30]))
    assert [answer.json()["model"] == "rides/2" for answer in answers] == [i != 13 for i in range(30)]


def test_a_challenger_reads_the_rows_by_its_own_plan(room: Any, version: Any) -> None:
    champion = version("1")
    other = replace(
        champion.plan,
        number=(NumberColumn("passengers"), NumberColumn("distance")),
        category=(CategoryColumn("zone", "string", ("harbour", "south", "north")),),
    )

    def by_zone(features: Features) -> Scores:
        return (features.category[:, 0] / 10 + features.number[:, 1] / 10_000).astype(np.float32)

    rows = [ROW | {"zone": zone, "distance": 100.0} for zone in ("north", "south", "harbour", "never seen", None)]
    expected = pytest.approx([0.41, 0.31, 0.21, 0.11, 0.01])
    here = room()
    here.stand(champion, version("2", by_zone, other))
    here.predict(*rows)
    here.recorder.flush()
    assert [row["shadow_score"] for row in here.kept.rows("predictions")] == expected


def test_a_challenger_that_does_not_know_a_column_that_is_sent_leaves_the_rows_to_the_champion(
    room: Any, version: Any
) -> None:
    champion = version("1")
    fewer = replace(champion.plan, category=champion.plan.category[:1])
    here = room()
    here.stand(champion, version("2", three, fewer), 1.0)
    assert here.predict(ROW).json()["model"] == "rides/1"


def test_a_shadow_is_never_heard_and_scores_a_bounded_number_of_rows(
    room: Any, version: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "SHADOW_ROWS", 30)
    here = room()
    here.stand(version("1"), version("2", three))
    for start in range(0, 40, 2):
        assert set(models(here.predict(*ROWS[start : start + 2]).json())) == {"rides/1"}
    here.recorder.flush()
    shadows = [row["shadow_score"] for row in here.kept.rows("predictions")]
    assert shadows == [0.75] * 30 + [None] * 10
    found = [
        row for row in here.kept.rows("profiles") if row["role"] == "shadow"
    ]  # two where an hour ended meanwhile
    assert {row["version"] for row in found} == {"2"}
    assert (sum(row["rows"] for row in found), sum(row["calls"] for row in found)) == (30, 15)


def test_a_challenger_of_other_classes_does_not_stand_beside_the_champion(
    room: Any, version: Any, plans: Any
) -> None:
    here = room()
    here.stand(version("1"), version("2", three, plans["regression"]), 1.0)
    assert here.predict(ROW).json()["model"] == "rides/1"
    ready = here.ask(("GET", "/rides/readyz", {}))[0].json()
    assert ready["challenger"] is None
    assert "regression" in ready["fault"]


def test_with_a_share_rows_that_are_the_champions_are_not_scored_by_the_challenger(room: Any, version: Any) -> None:
    here = room()
    here.stand(version("1"), version("2", three), 1e-9)
    here.predict(*ROWS)
    here.recorder.flush()
    assert {row["shadow_version"] for row in here.kept.rows("predictions")} == {None}
    assert {row["version"] for row in here.kept.rows("profiles") if row["rows"]} == {"1"}
