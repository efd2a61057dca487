"""The policies: what each buys and when, what stands against it, and what is written of an alarm that buys nothing."""

from itertools import pairwise

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.decisions.policy import decide, due
from app.monitor.findings import Finding

START = 1_709_251_200_000
GAIN = {"relative": 0.02, "low": 0.01, "high": 0.03, "buys": True}
NOTHING = {"relative": 0.001, "low": -0.01, "high": 0.01, "buys": False}


def test_an_alarm_buys_a_probe_and_the_probes_gain_a_retraining(book, finding):
    book = book()
    alarm, probe = book.on(2, finding())
    assert (alarm.kind, alarm.evidence["leads_to"], probe.kind, probe.about) == (
        "alarm_noted",
        "probe",
        "probe",
        alarm.id,
    )
    assert "distance is higher" in alarm.reason
    assert book.on(3) == []
    probed = book.answer("probed", 3, **GAIN)
    [retrain] = book.on(4)
    assert (retrain.kind, retrain.about, retrain.evidence["attempt"]) == ("retrain", probed.id, 1)
    assert retrain.evidence["champion"]["version"] == "1"
    assert book.on(5) == []


def test_a_probe_without_a_gain_buys_nothing_until_something_new_happens(book, finding):
    book = book(every="28d")
    book.on(2, finding())
    book.answer("probed", 2, **NOTHING)
    assert book.on(20) == []
    assert [entry.kind for entry in book.on(30)] == ["probe"]


@pytest.mark.parametrize(
    ("policy", "kind", "bought"),
    [
        ("probe", "drift", "probe"),
        ("probe", "loss", "probe"),
        ("drift", "drift", "retrain"),
        ("drift", "loss", None),
        ("loss", "loss", "retrain"),
        ("loss", "drift", None),
        ("calendar", "drift", None),
        ("never", "loss", None),
    ],
)
def test_each_policy_acts_on_its_own_cause_and_notes_the_others(book, finding, policy, kind, bought):
    written = book(policy=policy).on(2, finding(kind))
    assert [entry.kind for entry in written] == ["alarm_noted", bought][: 1 + bool(bought)]
    assert written[0].evidence["leads_to"] == bought
    assert bought or f"policy is {policy}" in written[0].reason


def test_the_calendar_retrains_by_time_alone(book):
    book = book(policy="calendar", every="10d", cooldown="1d")
    bought = []
    for day in range(1, 41):
        for retrain in book.on(day):
            bought.append(day)
            champion = {"version": f"{day}", "bundle": "b", "known_until": retrain.at_ms}
            book.answer("retrained", day, rollout=False)
            book.answer("promote", day, champion=champion)
            book.answer("settled", day)
    assert bought == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("retrain", "labels", "day", "why"),
    [
        ({"min_labels": 500}, 499, 2, "labels"),
        ({"budget": {"retrains": 0}}, 1000, 2, "budget"),
        ({}, 10**6, 2, None),
    ],
)
def test_what_stands_against_a_probe_is_noted_once(book, finding, retrain, labels, day, why):
    book = book(**retrain)
    first, *more = book.on(day, finding(), labels=labels)
    assert (first.evidence["obstacle"] or {"name": None})["name"] == why
    assert [entry.kind for entry in more] == ([] if why else ["probe"])
    assert book.on(day + 0.1, finding(step=9), labels=labels) == []


def test_an_alarm_that_had_to_wait_for_labels_is_followed_up(book, finding):
    book = book(min_labels=500)
    [alarm] = book.on(2, finding(), labels=100)
    assert "500 are needed" in alarm.reason
    assert book.on(3, labels=499) == []
    [probe] = book.on(4, labels=500)
    assert (probe.kind, probe.about) == ("probe", alarm.id)


def test_the_cooldown_keeps_probes_apart(book, finding):
    book = book(cooldown="7d", every="1000d")
    book.on(2, finding())
    book.answer("probed", 2, **NOTHING)
    [alarm] = book.on(5, finding(what="rain"))
    assert alarm.evidence["obstacle"]["name"] == "cooldown"
    assert "2024-03-10" in alarm.reason
    assert book.on(8.9) == []
    [probe] = book.on(9)
    assert probe.about == alarm.id


def test_the_budget_counts_retrainings_of_its_period_only(book, finding):
    book = book(policy="drift", cooldown="0s", budget={"retrains": 1, "per": "100d"})
    book.on(2, finding())
    book.answer("refused", 3, cpu_seconds=10.0)
    [alarm] = book.on(4, finding(what="rain"))
    assert alarm.evidence["obstacle"]["name"] == "budget"
    assert [entry.kind for entry in book.on(103)] == ["retrain"]


def test_a_retraining_that_would_cost_more_than_is_left_is_not_bought(book, finding):
    book = book(policy="drift", cooldown="0s", budget={"cpu_seconds": 100.0})
    book.on(2, finding())
    book.answer("refused", 3, cpu_seconds=60.0)
    [alarm] = book.on(4, finding(what="rain"))
    assert alarm.evidence["obstacle"]["words"] == "60 of 100 CPU seconds are spent, and one retraining takes 60"


def test_a_fault_pages_blocks_and_releases(book, finding):
    book = book(policy="probe")
    null_burst = finding("fault", "rain", detector="missing", direction="empty")
    [fault] = book.on(2, null_burst, faults=["rain"])
    assert fault.kind == "fault"
    assert book.on(2.1, null_burst, faults=["rain"]) == []
    [alarm] = book.on(3, finding(), faults=["rain"])
    assert alarm.evidence["obstacle"]["name"] == "fault"
    assert [entry.kind for entry in book.on(4)] == ["fault_over", "probe"]


def test_a_fault_in_the_same_step_as_an_alarm_comes_first(book, finding):
    written = book().on(2, finding(), finding("fault", "rain", detector="unit"), faults=["rain"])
    assert [entry.kind for entry in written] == ["fault", "alarm_noted"]


def test_what_a_probe_bought_waits_while_a_fault_is_open(book, finding):
    book = book()
    book.on(2, finding())
    book.answer("probed", 2, **GAIN)
    assert [entry.kind for entry in book.on(3, finding("fault", "rain"), faults=["rain"])] == ["fault"]
    assert [entry.kind for entry in book.on(4)] == ["fault_over", "retrain"]


def test_a_failed_retraining_is_tried_again_after_a_wait_and_then_a_person_is_paged(book, finding):
    book = book(policy="drift", attempts=3, budget={"retrains": 1})
    [_, first] = book.on(2, finding())
    attempts = [first]
    for minute in (1, 5):
        book.answer(
            "retrain_failed", 2, attempt=len(attempts), error="killed", not_before=f"1970-01-01T00:0{minute}:00Z"
        )
        assert book.on(2, now=minute * 60_000 - 1) == []
        [again] = book.on(2, now=minute * 60_000)
        attempts.append(again)
    assert [one.evidence["attempt"] for one in attempts] == [1, 2, 3]
    assert len({one.id for one in attempts}) == 3
    book.answer("retrain_failed", 2, attempt=3, error="killed by the kernel", not_before="1970-01-01T00:00:00Z")
    [page] = book.on(2, now=10**9)
    assert page.kind == "page"
    assert "killed by the kernel" in page.reason
    assert book.on(3, now=10**10) == []


@pytest.mark.parametrize("policy", ["loss", "drift", "probe"])
@pytest.mark.parametrize("refused", [False, True])
def test_an_alarm_stands_when_an_outage_took_the_retraining_that_it_bought(book, finding, policy, refused):
    """The monitor tells a finding once: an alarm that were taken for answered would never be followed again."""
    book = book(policy=policy, attempts=2, every="1000d", cooldown="7d")
    book.on(2, finding("drift" if policy == "drift" else "loss"))
    if policy == "probe":
        book.answer("probed", 2, buys=True, relative=0.02)
        book.on(2)
    book.answer("retrain_failed", 2, attempt=1, error="no disk", not_before="1970-01-01T00:00:00Z")
    [second] = book.on(2)
    assert second.evidence["attempt"] == 2
    if refused:
        book.answer("refused", 2, decision=second.evidence["decision"])
    else:
        book.answer("retrain_failed", 2, attempt=2, error="no disk", not_before="1970-01-01T00:00:00Z")
        assert [entry.kind for entry in book.on(2)] == ["page"]
    assert book.on(3) == []
    assert [entry.kind for entry in book.on(9.5)] == ["probe" if policy == "probe" else "retrain"]


@pytest.mark.parametrize("kind", ["shadow", "stage", "promote"])
def test_nothing_is_bought_while_a_rollout_is_under_way(book, finding, kind):
    book = book(policy="drift")
    evidence = {"champion": {"version": "2", "bundle": "b", "known_until": 0}}
    book.answer(kind, 1, **(evidence if kind == "promote" else {}))
    [alarm] = book.on(2, finding())
    assert alarm.evidence["obstacle"]["name"] == "busy"


def test_alarms_about_the_version_before_do_not_accuse_the_new_champion(book, finding):
    book = book(min_labels=500, every="1000d")
    book.on(2, finding(), labels=0)
    book.answer("deploy", 3, champion={"version": "2", "bundle": "b", "known_until": START})
    assert book.on(4) == []


def test_without_a_version_that_answers_nothing_is_bought(book, finding):
    book = book()
    book.entries.clear()
    [alarm] = book.on(2, finding())
    assert alarm.evidence["obstacle"]["name"] == "champion"
    assert due(book.spec, book.entries) is None


days = st.lists(
    st.tuples(
        st.floats(0.01, 20),
        st.lists(st.sampled_from(["drift/a", "drift/b", "loss/loss", "fault/c"]), max_size=3),
        st.integers(0, 2000),
        st.sampled_from(["gain", "nothing", "failed", "refused", "none"]),
    ),
    max_size=25,
)


@given(days, st.sampled_from(["probe", "drift", "loss", "calendar", "never"]), st.integers(0, 3))
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_happens_decisions_are_unique_repeatable_and_within_their_bounds(book, days, policy, budget):
    retrain = {"policy": policy, "cooldown": "5d", "min_labels": 300, "budget": {"retrains": budget, "per": "365d"}}
    book, day = book(**retrain), 0.0
    for wait, found, labels, outcome in days:
        day += wait
        findings = [Finding(*one.split("/"), "fast", "higher", 1.0, 1.0, 1.0, 0, 0, book.step, "1") for one in found]
        situation = book.situation(day, *findings, labels=labels, faults=["c"] if "fault/c" in found else [], now=1)
        drafts = decide(book.spec, situation, book.entries)
        assert drafts == decide(book.spec, situation, list(book.entries))
        before = len(book.entries)
        for draft in drafts:
            book.append(draft)
        assert len(book.entries) == before + len(drafts), "a decision was made twice"
        assert decide(book.spec, situation, book.entries) == []
        kinds = [entry.kind for entry in book.entries if entry.step == book.step]
        assert max(kinds.count("alarm_noted"), kinds.count("fault")) <= 1
        last = book.entries[-1]
        if last.kind == "probe" and outcome in ("gain", "nothing"):
            book.answer("probed", day, **(GAIN if outcome == "gain" else NOTHING))
        elif last.kind == "retrain" and outcome == "failed":
            attempt = last.evidence["attempt"]
            book.answer("retrain_failed", day, attempt=attempt, error="x", not_before="1970-01-01T00:00:00Z")
        elif last.kind == "retrain" and outcome == "refused":
            book.answer("refused", day)
    bought = [entry for entry in book.entries if entry.kind in ("probe", "retrain")]
    first = [entry for entry in bought if entry.kind == "retrain" and entry.evidence["attempt"] == 1]
    assert len(first) <= budget
    assert policy != "never" or not bought
    causes = [entry for entry in bought if entry.kind == "probe" or (policy != "probe" and entry in first)]
    gaps = [later.at_ms - earlier.at_ms for earlier, later in pairwise(causes)]
    assert all(gap >= 5 * 86_400_000 for gap in gaps)
    assert all(entry.evidence["labels"] >= 300 for entry in causes)
