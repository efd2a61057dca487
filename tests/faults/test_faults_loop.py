"""The loop keeps itself true under traffic though its actor is killed, challengers are bad, labels odd and clocks wrong."""

import os
import signal

import pyarrow.compute as pc
import pytest
import ray

from app.decisions import actor
from app.lineup import bucket

pytestmark = pytest.mark.ray

HOUR = 3_600_000
YEAR = 365 * 24 * HOUR


def clocks(service):
    """Yield what was found of clocks, as the faults in the ledger tell it."""
    for entry in service.entries():
        if entry.kind == "fault":
            yield from (finding for finding in entry.evidence["findings"] if finding["what"] == "clock")


def asked(row):
    """Return what a request may know of a row."""
    return {name: value for name, value in row.items() if name != "late"}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("corrupt", "it failed on"),
        ("answers NaN", "it failed on"),
        ("raises", "it failed on"),
        ("slow", "a scoring call takes"),
    ],
)
def test_a_bad_challenger_goes_back_by_itself_and_costs_nobody_an_answer(service, bundles, wait_for, how, said):
    service.start()
    number = f"bad {how}"
    with service.load() as load:
        load.until(100)
        given = service.give(number, bundles(how))
        back = wait_for(lambda: service.said(given, "rollback"), 120)
        wait_for(lambda: service.get("readyz")["challenger"] is None)
        load.until(200)
    assert said in back.reason
    assert load.failures == []
    assert load.versions == {"1", number} if how == "slow" else {"1"}
    assert all(bucket(row) < 0.5 for row, version in load.answers if version == number)
    assert service.about(given) == ["stage", "rollback"]


def test_an_actor_killed_at_every_stage_brings_a_good_version_all_the_way_and_repeats_nothing(
    service, bundles, wait_for
):

    def alive():
        try:
            return actor.show("faults")["pid"]
        except ray.exceptions.GetTimeoutError:  # Ray is still about to start it again
            return None

    service.start()
    with service.registry.run(service.declaration.spec, "test") as run:
        number = service.registry.register(bundles("good"), run.id, "test", "second").number
    with service.load() as load:
        load.until(100)
        given = service.give(str(number), bundles("good"))
        for entries in (1, 2, 3):
            wait_for(lambda entries=entries: len(service.about(given)) >= entries, 120)
            killed = wait_for(alive, 120)
            os.kill(killed, signal.SIGKILL)
        settled = wait_for(lambda: service.said(given, "settled"), 120)
        load.until(200)
    assert wait_for(alive, 120) != killed
    assert load.failures == []
    assert load.versions == {"1", str(number)}
    assert load.answers[-1][1] == settled.version == str(number)
    assert service.about(given) == ["stage", "stage", "promote", "settled"]
    entries = service.entries()
    assert len({entry.id for entry in entries}) == len(entries)
    wait_for(lambda: service.registry.champion().number == number)
    wait_for(lambda: service.get("drift")["labels"]["joined"] == service.journal.labelled(columns=["id"]).num_rows)
    actor.stop("faults")
    assert service.differences() == []


def test_labels_of_unknown_rows_second_labels_and_late_ones_are_taken_and_told_apart(service, wait_for):
    service.start()
    with service.load() as load:
        load.until(100)
        before = wait_for(lambda: service.get("drift").get("labels"))
        now = load.row(load.newest)["at"]
        rows = [asked(load.row(0) | {"ride": f"odd{i}", "at": now}) for i in range(2)]
        assert service.post("predict", json={"rows": rows}).status_code == 200
        for label in ({"id": "nobody", "label": True}, {"id": "odd0", "label": True}, {"id": "odd0", "label": False}):
            told = service.post("labels", json={"labels": [label | {"time": now}]})
            assert (told.status_code, told.json()) == (202, {"accepted": 1})
            wait_for(lambda at=label: at["id"] in service.journal.labels()["id"].to_pylist())
        # twelve hours of event time
        wait_for(lambda: service.get("drift")["labels"]["unmatched"] > before["unmatched"], 200)
        told = service.post("labels", json={"labels": [{"id": "odd1", "label": True, "time": now + 13 * HOUR}]})
        assert told.status_code == 202
        after = wait_for(lambda: (found := service.get("drift")["labels"])["late"] > before["late"] and found)
    assert load.failures == []
    assert {name: after[name] - before[name] for name in ("unmatched", "duplicates", "late")} == {
        "unmatched": 1,
        "duplicates": 1,
        "late": 1,
    }
    learned = service.journal.labelled(columns=["id"]).filter(pc.starts_with(pc.field("id"), "odd"))
    assert dict(zip(*(learned[name].to_pylist() for name in ("id", "label")), strict=True)) == {
        "odd0": False,  # training takes the last
        "odd1": True,  # and late ones, too
    }


def test_a_minute_of_clocks_a_year_ahead_and_one_a_year_behind_is_a_fault_and_closes_nothing(service, wait_for):
    service.start()
    with service.load() as load:
        load.until(200)
        begin = wait_for(lambda: service.get("drift").get("as_of"))
        for years in (1, -1):
            then = load.row(load.newest)["at"] + years * YEAR
            rows = [asked(load.row(i) | {"ride": f"{years}y{i}", "at": then + i * 30}) for i in range(2000)]
            assert service.post("predict", json={"rows": rows}).status_code == 200
            load.until(200)
        assert actor.show("faults")["error"] is None
        fault = wait_for(lambda: next(clocks(service), None))
        after = service.get("drift")["as_of"]
        load.until(400)
        wait_for(lambda: service.get("drift")["as_of"] > after)
    assert load.failures == []
    assert fault["direction"] == "ahead"
    assert begin[:4] == service.get("drift")["as_of"][:4] == "2024"
    ids = [entry.id for entry in service.entries()]
    assert len(set(ids)) == len(ids)
    actor.stop("faults")
    assert service.differences() == []
