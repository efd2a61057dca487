"""What a step found is one entry: the worst in words, all as evidence; an outage is one page, and over as a whole."""

import pytest

from app.decisions.ledger import pages

HOUR = 3_600_000


@pytest.fixture
def away(finding):
    """A feature that is missing since an hour."""

    def make(what, hour=0, detector="missing"):
        return finding("fault", what, detector=detector, direction="missing", onset=hour * HOUR)

    return make


def whats(entry):
    return [finding["what"] for finding in entry.evidence["findings"]]


def test_all_that_moved_in_a_step_is_one_alarm_the_loss_first_then_the_most_certain(book, finding):
    moved = [finding(what=f"f{i}", evidence=8760.0 + i) for i in range(5)]
    loss = finding("loss", "loss", evidence=8760.0, shift=0.07)
    alarm, probe = book().on(2, *moved, loss)
    assert whats(alarm) == ["loss", "f4", "f3", "f2", "f1", "f0"]
    assert alarm.reason.startswith(
        "The loss is 7% higher than expected since 2024-03-01, and 5 more: f4, f3, f2 ...; "
    )
    assert probe.about == alarm.id
    assert "(loss, f4, f3 and 3 more)" in probe.reason


def test_however_much_moved_the_reason_stays_short(book, finding):
    few, _ = book().on(2, *(finding(what=f"feature{i}") for i in range(5)))
    many, _ = book().on(2, *(finding(what=f"feature{i}") for i in range(500)))
    assert len(many.reason) <= len(few.reason) + 2
    assert len(many.evidence["findings"]) == 500


def test_one_feature_that_moved_in_two_ways_is_named_once(book, finding):
    alarm, _ = book().on(2, finding(), finding(direction="wider"), finding(what="rain"))
    assert ", and 1 more: rain; " in alarm.reason


def test_an_alarm_names_only_what_was_not_noted_before(book, finding):
    book = book()
    book.on(2, finding(), finding(what="rain"))
    [alarm] = book.on(3, finding(), finding(what="wind"), finding(what="rain"))
    assert whats(alarm) == ["wind"]
    assert book.on(4, finding(what="wind")) == []


def test_a_cause_among_others_leads_to_what_it_buys(book, finding):
    alarm, retrain = book(policy="loss").on(2, finding(), finding("loss", "loss"))
    assert alarm.evidence["leads_to"] == "retrain"
    assert (retrain.kind, retrain.about) == ("retrain", alarm.id)
    assert "an alarm (loss)" in retrain.reason


def test_an_outage_is_one_page_and_over_when_all_is_whole_again(book, away):
    book = book()
    [fault] = book.on(2, away("temp"), away("rain"), away("wind"), faults=["rain", "temp", "wind"])
    assert whats(fault) == ["temp", "rain", "wind"]
    assert "temp is missing in 90% of the rows" in fault.reason
    assert ", and 2 more: rain, wind; this looks like a fault upstream" in fault.reason
    assert book.on(2.1, faults=["rain"]) == []
    assert book.on(2.2, away("temp"), faults=["rain", "temp"]) == []  # the same outage still
    [over] = book.on(3)
    assert (over.kind, over.about, over.evidence["what"]) == ("fault_over", fault.id, ["temp", "rain", "wind"])
    [again] = book.on(4, away("temp"), faults=["temp"])
    assert again.kind == "fault"
    assert pages(again)


def test_what_breaks_later_in_the_same_outage_pages_nobody_again(book, away, finding):
    book = book()
    [fault] = book.on(2, away("temp", hour=5), faults=["temp"])
    [more] = book.on(2.1, away("rain", hour=5), faults=["rain", "temp"])
    assert (more.kind, more.about, pages(fault), pages(more)) == ("fault", fault.id, True, False)
    [alarm] = book.on(2.2, finding(), faults=["rain"])
    assert "(rain, temp)" in alarm.reason
    over, _ = book.on(3)
    assert (over.kind, over.about, over.evidence["what"]) == ("fault_over", fault.id, ["temp", "rain"])


@pytest.mark.parametrize(("hour", "detector"), [(6, "missing"), (5, "unit")])
def test_another_cause_or_another_hour_is_another_outage(book, away, hour, detector):
    book = book()
    [first] = book.on(2, away("temp", hour=5), faults=["temp"])
    also = away("wind", hour=5)  # alone it would join the first
    [second] = book.on(2.1, away("rain", hour, detector), also, faults=["rain", "temp", "wind"])
    assert (second.about, pages(second)) == (None, True)
    assert [(entry.kind, entry.about) for entry in book.on(2.2, faults=["rain"])] == [("fault_over", first.id)]
    assert [(entry.kind, entry.about) for entry in book.on(3)] == [("fault_over", second.id)]


def test_a_step_has_one_alarm_and_one_fault_however_often_it_is_decided(book, finding, away):
    book = book(cooldown="0s", min_labels=10)
    found = [finding(), finding(what="rain"), away("temp")]
    first = book.on(2, *found, labels=0)
    assert [entry.kind for entry in first] == ["fault", "alarm_noted"]
    for faults, kinds in ((["temp"], []), ([], ["fault_over"]), ([], [])):
        book.step -= 1
        assert [entry.kind for entry in book.on(2, *found, labels=0, faults=faults)] == kinds
