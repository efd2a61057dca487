"""The keeper: from an alarm to a settled champion by itself, and the same however often it is killed on the way."""

from unittest.mock import Mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import app.decisions.keeper
import app.decisions.ledger
import app.decisions.snapshots
import app.lineup
from app.decisions.keeper import SNAPSHOT_STEPS
from app.decisions.retrain import Outcome
from app.decisions.work import Failed
from app.journal.rows import JournalError
from app.lineup import Answering, Lineup, read_lineup, write_lineup

LOOP = ["deploy", "alarm_noted", "probe", "probed", "retrain", "retrained", "shadow", "stage", "stage", "promote"]


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda file: None)  # processes are killed here, no plug is pulled


def test_an_alarm_ends_in_a_new_champion_by_itself(make_world):
    world = make_world()
    world.live(12)
    assert world.kinds() == LOOP
    lineup = read_lineup(world.uri)
    assert (lineup.champion.version, lineup.challenger.version, lineup.share) == ("2", "1", 0.0)
    assert world.registry.line == [1, 2]
    assert "promote" in world.entries[-1].kind
    assert "watched" in world.status()["next"]


def test_the_report_tells_a_probe_from_a_retraining_and_how_often_turns_come(make_world):
    world = make_world(drift={"interval": "2m"})
    world.live(1)
    assert (world.status()["retrain"], world.status()["interval"]) == (None, 120.0)
    world.work.patience = 3
    for kind, state in (("probe", "probing"), ("retrain", "running")):
        world.until(kind)
        [entry] = [entry for entry in world.entries if entry.kind == kind]
        assert world.status()["retrain"] == {"state": state, "since": entry.written, "id": entry.id}
    world.until("promote")
    assert world.status()["retrain"] is None


def test_metrics_show_the_whole_ledger_also_after_a_restart_and_again_between_two_turns(make_world):
    world = make_world()
    world.live(12)
    entries, newest = "evertrue_ledger_entries", "evertrue_ledger_newest_timestamp_seconds"
    world.restart()
    world.time += 60
    world.keeper.turn()
    assert world.gauges[entries, "rides", "stage"] == 2
    assert world.gauges[entries, "rides", "rollback"] == 0
    assert world.gauges[newest, "rides", "promote"] == world.entries[-1].written_ms / 1000
    assert (newest, "rides", "rollback") not in world.gauges
    assert world.gauges["evertrue_champion_version", "rides"] == 2
    assert world.gauges["evertrue_loop_turn_timestamp_seconds", "rides"] == world.time
    before = dict(world.gauges)
    world.gauges.clear()
    world.keeper.rest()
    assert world.gauges == before


def bombed(world, monkeypatch):
    for module, name in (
        (app.decisions.ledger, "create_bytes"),
        (app.lineup, "write_bytes"),
        (app.decisions.keeper, "write_bytes"),
        (app.decisions.snapshots, "write_bytes"),
    ):
        monkeypatch.setattr(module, name, world.bomb.around(getattr(module, name)))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_killed_anywhere_it_repeats_nothing_forgets_nothing_and_ends_the_same(make_world, bombs):
    with pytest.MonkeyPatch.context() as patch:
        world = make_world()
        bombed(world, patch)
        for bomb in bombs:
            world.bomb.left = bomb
            world.live(6)
        world.bomb.left = -1
        world.live(14)
    assert world.kinds() == LOOP
    assert world.registry.line == [1, 2]
    assert read_lineup(world.uri).champion.version == "2"
    bought = {entry.id for entry in world.entries if entry.kind in ("probe", "retrain")}
    assert set(world.work.begun) == bought


def test_after_a_restart_the_state_is_the_snapshot_and_the_steps_behind_it(make_world):
    world = make_world(script={})
    world.live(SNAPSHOT_STEPS + 5)
    state = world.keeper._monitor.to_bytes()
    world.restart()
    world.keeper.turn()
    assert world.keeper._monitor.to_bytes() == state
    assert [path.name for path in sorted((world.folder / "monitor").iterdir())] == ["state-000050-d1.bin"]


def test_what_ends_the_fold_of_a_long_journal_does_not_send_it_back_to_the_first_step(make_world, monkeypatch):
    """For another declaration or other code there is no snapshot yet, and a year of steps takes hours."""
    world = make_world(script={})
    world.live(45)
    monkeypatch.setattr(app.decisions.keeper, "CATCH_UP_STEPS", 20)
    asked = []

    def steps(after=0):
        asked.append(after)
        yield from world.journal.committed[after:]
        if len(asked) == 1:
            raise JournalError("the store is away")

    monkeypatch.setattr(world.journal, "steps", steps)
    world.restart()
    with pytest.raises(JournalError):
        world.keeper.turn()
    world.restart()
    world.live(1)
    assert asked == [0, 40]
    assert world.keeper._monitor.state.step == 46


def test_a_snapshot_that_cannot_be_read_is_passed_over(make_world):
    world = make_world(script={})
    world.live(3)
    world.keeper.close()
    (world.folder / "monitor/state-000003-d1.bin").write_bytes(b"{")
    world.restart()
    world.live(1)
    assert world.keeper._monitor.state.step == 4


def test_a_breach_goes_back_within_one_turn(make_world, profile_of):
    world = make_world()
    while "stage" not in world.kinds():
        world.live(1)
    world.journal.arrive(profile_of("1", "champion", 50), profile_of("2", "challenger", 50, errors=50))
    world.keeper.turn()
    assert world.kinds()[-1] == "rollback"
    assert read_lineup(world.uri).challenger is None
    assert world.registry.line == [1]


def test_a_champion_that_breaks_under_watch_is_rolled_back_in_the_registry_too(make_world, profile_of):
    world = make_world()
    world.live(12)
    world.journal.arrive(profile_of("2", "champion", 500, errors=20))
    world.keeper.turn()
    assert world.kinds()[-1] == "rollback"
    assert read_lineup(world.uri).champion.version == "1"
    assert world.registry.line == [1]
    world.restart()
    world.live(2)
    assert world.registry.line == [1]


def test_a_registry_that_is_down_does_not_keep_a_bad_version_answering(make_world, profile_of):
    world = make_world()
    world.live(12)

    def away():
        raise ConnectionError("the registry is away")

    versions, champion = world.keeper._rooms.versions, world.registry.champion
    world.registry.champion = away
    world.journal.arrive(profile_of("2", "champion", 500, errors=20))
    with pytest.raises(ConnectionError):
        world.keeper.turn()
    assert read_lineup(world.uri).champion.version == "1"
    told = Mock()
    world.keeper._rooms.alerts.tell = told
    with pytest.raises(ConnectionError):
        world.keeper.turn()
    entries, now = told.call_args.args
    assert (entries[-1].kind, now) == ("rollback", 1e12), "who is paged need not wait for the registry"
    world.registry.champion = champion
    world.keeper.turn()
    assert world.registry.line == [1]
    assert versions.registry() is world.registry


def test_a_bundle_that_cannot_be_opened_is_refused_before_any_replica_sees_it(make_world):
    world = make_world()
    world.broken = "model.onnx is changed"
    world.live(8)
    assert world.kinds()[-2:] == ["retrain", "refused"]
    assert read_lineup(world.uri).challenger is None


def test_a_probe_that_fails_and_a_gate_that_refuses_buy_nothing_more(make_world):
    world = make_world()
    world.work.told = Failed("too few days")
    world.live(8)
    assert world.kinds()[-1] == "probed"
    other = make_world(retrain={"policy": "drift"})
    other.work.made = Outcome("d", 9.0, 2, "bundles/two", False, ["refused: worse"])
    other.live(8)
    assert other.kinds()[-1] == "refused"
    assert "worse" in other.entries[-1].reason


def test_a_retraining_that_fails_three_times_pages_once(make_world):
    world = make_world(retrain={"policy": "drift"})
    world.work.made = Outcome("d", 3.0, error="killed")
    for _ in range(30):
        world.live(1)
        world.time += 100
    assert world.kinds() == ["deploy", "alarm_noted", *["retrain", "retrain_failed"] * 3, "page"]
    waits = [entry.evidence["not_before"] for entry in world.entries if entry.kind == "retrain_failed"]
    assert waits == sorted(waits)


def test_with_manual_promotion_a_version_that_passed_stays_challenger(make_world):
    world = make_world(rollout={"promote": "manual"})
    world.live(10)
    assert world.kinds()[-1] == "retrained"
    assert read_lineup(world.uri) == Lineup(4, Answering("1", "bundles/one"))
    assert world.status()["versions"][0] == world.status()["versions"][0] | {"version": "2", "role": "challenger"}


def test_a_line_up_changed_by_hand_is_followed_not_fought(make_world):
    world = make_world()
    while "stage" not in world.kinds():
        world.live(1)
    by_hand = read_lineup(world.uri).then(Answering("7", "bundles/seven"))
    write_lineup(world.uri, by_hand)
    world.live(3)
    assert world.kinds()[-1] == "ended"
    assert read_lineup(world.uri) == by_hand


def test_a_restart_does_not_take_back_what_somebody_registered_since(make_world):
    world = make_world()
    world.until("promote")
    world.registry.promote(7)  # trained by hand, and not put up yet
    world.restart()
    world.live(2)
    assert world.registry.line == [1, 2, 7]


def test_a_failing_turn_is_reported_and_the_next_goes_on(make_world):
    world = make_world()
    world.live(1)
    commit = world.journal.commit

    def full():
        commit()
        raise JournalError("no space left on device")

    world.serve()
    world.journal.commit = full
    with pytest.raises(JournalError) as raised:
        world.keeper.turn()
    world.keeper.failed(raised.value)
    assert world.status()["health"]["state"] == "degraded"
    assert "no space left" in world.status()["health"]["words"]
    world.journal.commit = commit
    world.live(12)
    assert world.kinds() == LOOP
    assert "health" not in world.status()


@pytest.mark.parametrize("stopped", [False, True])
def test_what_a_step_found_is_noted_although_the_ledger_could_not_be_written_just_then(
    make_world, finding, monkeypatch, stopped
):
    world = make_world({2: [finding("fault", "rain", detector="missing", step=2)]})
    world.live(1)
    world.serve()
    with monkeypatch.context() as full:
        full.setattr("app.decisions.ledger.create_bytes", Mock(side_effect=OSError("no space left on device")))
        with pytest.raises(OSError, match="no space"):
            world.keeper.turn()
    if stopped:
        world.keeper.close()
        world.restart()
    world.live(1)
    assert "fault" in world.kinds()


def test_rows_past_their_retention_are_deleted_now_and_then(make_world):
    world = make_world(script={}, journal={"retention": "10d"})
    world.live(3)
    assert world.journal.expired == [round((1e9 - 864_000) * 1000)]
    world.time += 3600
    world.live(1)
    assert len(world.journal.expired) == 2
    assert np.diff(world.journal.expired) == [3_600_000]
