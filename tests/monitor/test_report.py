"""What `/drift` tells is plain JSON of bounded size, in sentences that people understand."""

import json

import polars as pl

from app.monitor.figures import Losses
from app.monitor.findings import Finding
from app.monitor.report import words
from app.monitor.state import Monitor

APRIL_7 = 1_365_292_800_000


def _finding(**given) -> Finding:
    plain = {
        "kind": "drift",
        "what": "temp",
        "detector": "fast",
        "direction": "higher",
        "shift": 1.8,
        "evidence": 20.0,
    }
    plain |= {"threshold": 14.0, "onset": APRIL_7, "at": APRIL_7, "step": 3, "version": "1", "detail": {}}
    return Finding(**(plain | given))


def test_before_any_traffic_the_health_is_unknown(world, spec) -> None:
    document = Monitor(spec, world.subject).report()
    assert document["health"]["state"] == "unknown"
    assert (document["as_of"], document["features"], document["findings"]) == (None, [], [])
    assert document["labels"]["coverage"] is None


def test_calm_traffic_is_ok_and_told_in_full(world, spec) -> None:
    monitor = Monitor(spec, world.subject)
    for step in world.steps(world.rows(28 * 24, 48)):
        monitor.fold(step)
    document = json.loads(json.dumps(monitor.report(), allow_nan=False))
    assert document["health"]["state"] in ("ok", "watch")
    assert document["model"] == "trips"
    assert document["as_of"].startswith("2024-01-30T")
    assert sum(day["rows"] for day in document["traffic"]["days"]) == document["labels"]["predictions"] == 2880
    assert document["labels"]["joined"] + document["labels"]["waiting"] == 2880
    assert document["loss"]["expected"] == world.loss
    assert {day["version"] for day in document["loss"]["days"]} == {"1"}
    features = {feature["name"]: feature for feature in document["features"]}
    assert {"temp", "carrier", "prediction"} <= features.keys()
    assert features["temp"]["state"] == "ok"
    assert 0 <= features["temp"]["evidence"] < features["temp"]["threshold"]
    assert abs(sum(one["seen"] for one in features["carrier"]["bins"]) - 1) < 0.01
    assert Monitor.from_bytes(monitor.to_bytes(), spec, world.subject).report() == monitor.report()


def test_a_loss_is_told_to_six_digits_in_whatever_unit(world, spec) -> None:
    monitor = Monitor(spec, world.subject)
    for step in world.steps(world.rows(28 * 24, 1)):
        monitor.fold(step)
    monitor.state.figures.losses = {("1", "champion"): Losses({0: (3, 5e-8, 0.0), 86_400_000: (3, 1e7, 0.0)})}
    assert [day["loss"] for day in monitor.report()["loss"]["days"]] == [1.66667e-08, 3333330.0]


def test_a_fault_comes_before_drift_and_drift_before_calm(world, spec) -> None:
    monitor = Monitor(spec, world.subject)
    calm = world.rows(28 * 24, 24)
    broken = world.rows(29 * 24, 12).with_columns(temp=pl.lit(None, pl.Float64), rate=pl.col("rate") + 40)
    for number, rows in enumerate((calm, broken), 1):
        for step in world.steps(rows, hours=48, first=number):
            monitor.fold(step)
    document = json.loads(json.dumps(monitor.report(), allow_nan=False))
    states = {feature["name"]: feature["state"] for feature in document["features"]}
    assert (states["temp"], states["rate"], states["carrier"]) == ("fault", "drift", "ok")
    assert document["health"]["state"] == "fault"
    assert "temp is missing in 100% of the rows" in document["health"]["words"]
    assert all(found["words"].endswith(".") for found in document["findings"])


def test_sentences() -> None:
    assert words(_finding()) == "temp is higher than in training by 1.8 standard deviations since 2013-04-07."
    assert (
        words(_finding(direction="more missing")) == "temp is missing more often than in training since 2013-04-07."
    )
    assert (
        words(_finding(what="dest", direction="fewer IAH"))
        == "dest is IAH less often than in training since 2013-04-07."
    )
    loss = _finding(kind="loss", what="loss", shift=0.12)
    assert words(loss) == "The loss is 12% higher than expected since 2013-04-07."
    unit = _finding(kind="fault", detector="unit", detail={"sent": "degrees Celsius instead of Fahrenheit"})
    assert "degrees Celsius instead of Fahrenheit, since 2013-04-07." in words(unit)
    clock = _finding(kind="fault", what="clock", detector="clock", direction="ahead", shift=8760.0)
    assert words(clock) == "The clocks leapt 8,760.0 hours ahead since 2013-04-07."
