"""Every decision comes out again from journal and ledger alone, and one that was tampered with does not."""

import dataclasses

import pytest

from app.decisions.recompute import recompute


@pytest.fixture
def told(make_world, finding, monkeypatch):
    """A world in which much has happened: alarms, a fault, a champion that stayed and one that was rolled back."""
    monkeypatch.setattr("os.fsync", lambda file: None)
    gone = {"detector": "missing", "direction": "missing", "version": "2"}
    script = {
        2: [finding(step=2), finding("loss", "loss", step=2)],
        14: [finding("fault", "rain", step=14, **gone), finding("fault", "snow", step=14, **gone)],
        16: [finding("fault", "wind", step=16, **gone)],  # joins the one before
        30: [finding("drift", "zone", step=30, version="2")],
    }
    world = make_world(script, retrain={"cooldown": "1h"})
    world.until("promote")
    world.restart()
    world.label(300, 0.2)
    world.until("promote", 2)
    world.label(300, -0.2)
    world.live(1)
    return world


def differences(world, entries=None):
    steps, monitor = world.journal.steps(), world.monitor(None)
    return list(recompute(world.spec, steps, monitor, entries or world.entries))


def test_every_decision_comes_out_again(told):
    kinds = told.kinds()
    assert (kinds.count("fault"), kinds.count("fault_over")) == (2, 1)
    assert {"alarm_noted", "probe", "retrain", "promote", "settled", "rollback"} <= set(kinds)
    assert differences(told) == []


@pytest.mark.parametrize(
    "kind", ["alarm_noted", "fault", "probe", "retrain", "shadow", "stage", "promote", "rollback"]
)
@pytest.mark.parametrize(("part", "value"), [("reason", "because"), ("evidence", None), ("step", 1), ("step", 0)])
def test_an_entry_that_says_something_else_is_found(told, kind, part, value):
    entries = told.entries
    place = next(i for i, entry in enumerate(entries) if entry.kind == kind)
    value = entries[place].evidence | {"labels": -1} if part == "evidence" else value
    entries[place] = dataclasses.replace(entries[place], **{part: value})
    assert any(f"entry {place + 1} ({kind})" in said for said in differences(told, entries))


def test_an_alarm_that_nobody_wrote_down_is_found(told):
    entries = [entry for entry in told.entries if "zone" not in entry.reason]
    assert any("zone" in said and "not written down" in said for said in differences(told, entries))


def test_an_entry_in_anothers_place_is_found(told):
    entries = told.entries
    entries[3:5] = entries[4], entries[3]
    assert "entry 5 (retrain) lies in the place of entry 4" in differences(told, entries)


def test_a_journal_that_lost_its_beginning_is_told(told):
    told.journal.committed = told.journal.committed[5:]
    assert differences(told) == ["the journal begins with step 6, so that nothing can be made again"]


def test_an_entry_on_a_step_that_the_journal_lost_is_told(told):
    told.journal.committed = told.journal.committed[:10]
    assert "rests on step" in differences(told)[-1]
