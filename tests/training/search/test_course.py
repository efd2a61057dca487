"""The course of a search: declared settings first, nothing twice, and nothing begins when the time is over."""

import pytest

from app.training.search import course as courses
from app.training.search.course import Course
from app.training.search.space import Space
from app.training.search.trials import Record, Trial

OWN = {"model.width": {"type": "range", "low": 8, "high": 512, "log": True}}


class Nobody:
    """Who looks on, and keeps what it heard."""

    def __init__(self):
        self.seen = []

    def began(self, trial):
        self.seen.append(("began", trial.number))

    def heard(self, trial):
        self.seen.append(("heard", trial.losses[-1]))

    def ended(self, trial):
        self.seen.append(("ended", trial.state))


@pytest.fixture
def course_of(spec_of, tmp_path):
    """Return a function that begins a search, or goes on with it."""
    space = Space.of(spec_of(tune={"space": OWN}), 1000)

    def made(trials=5, seconds=None, watch=None):
        return Course(space, Record(str(tmp_path / "search"), "same"), watch or Nobody(), trials, seconds)

    return made


def finish(course, trial):
    loss = abs(trial.settings.get("model.width", 256) - 100) / 100
    course.hear(trial.number, 1, loss + 0.1)
    course.end(trial.number, "finished", loss, ((1, loss + 0.1), (2, loss)))


def finish_all(course):
    while trial := course.next():
        finish(course, trial)


def test_the_declared_settings_come_first_and_the_least_loss_is_best(course_of):
    watch = Nobody()
    course = course_of(watch=watch)
    finish_all(course)
    assert [trial.number for trial in course.ended] == [1, 2, 3, 4, 5]
    assert course.trials[1].settings == {}
    assert all(trial.settings for trial in course.ended[1:])
    assert course.best.loss == min(trial.loss for trial in course.ended)
    assert course.missing == 0
    assert watch.seen[:3] == [("began", 1), ("heard", (1, pytest.approx(1.66))), ("ended", "finished")]


def test_after_a_kill_what_ended_stays_and_what_ran_begins_again_first(course_of):
    course = course_of()
    finish(course, course.next())
    second, third = course.next(), course.next()
    finish(course, third)
    course.hear(second.number, 1, 0.9)  # and now it is killed
    before = course.trials[3]
    again = course_of()
    assert again.missing == 3
    first = again.next()
    assert (first.number, first.settings) == (2, second.settings)
    assert first.losses == ()
    finish(again, first)
    finish_all(again)
    assert [trial.number for trial in again.ended] == [1, 2, 3, 4, 5]
    assert again.trials[3] == before


def test_a_search_that_was_killed_ends_as_one_that_was_not(course_of, spec_of, tmp_path):
    space = Space.of(spec_of(tune={"space": OWN}), 1000)
    whole = Course(space, Record(str(tmp_path / "whole"), "same"), Nobody(), 9, None)
    finish_all(whole)
    for _ in range(3):  # killed after every third trial
        course = course_of(9)
        for _ in range(3):
            finish(course, course.next())
    assert [trial.settings for trial in course_of(9).ended] == [trial.settings for trial in whole.ended]


def test_more_trials_may_be_asked_for_later(course_of):
    finish_all(course_of(3))
    course = course_of(6)
    assert course.missing == 3
    finish_all(course)
    assert len(course.ended) == 6


def test_when_the_time_is_over_nothing_begins_but_the_declared_settings(course_of, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(courses.time, "monotonic", lambda: now[0])
    course = course_of(seconds=10)
    now[0] = 200.0
    declared = course.next()
    assert declared.number == 1
    assert course.missing == 0
    assert course.next() is None
    finish(course, declared)
    assert course_of().missing == 4


def test_seconds_spent_before_a_kill_count(course_of, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(courses.time, "time", lambda: clock[0])
    course = course_of()
    trial = course.next()
    clock[0] += 30.0
    finish(course, trial)
    assert course.trials[1].seconds == 30.0
    assert course_of(seconds=29.0).next() is None
    assert course_of(seconds=31.0).next() is not None


def test_a_trial_that_was_stopped_is_known_by_its_least_loss(course_of):
    course = course_of()
    finish(course, course.next())
    trial = course.next()
    course.hear(trial.number, 1, 0.4)
    course.hear(trial.number, 2, 0.7)
    course.end(trial.number, "stopped early")
    assert (course.trials[2].loss, course.best.number) == (0.4, 1)


def test_a_trial_that_failed_says_why_and_is_not_tried_again(course_of):
    course = course_of()
    finish(course, course.next())
    course.end(course.next().number, "failed", reason="out of memory")
    again = course_of()
    assert again.trials[2] == Trial(
        2,
        again.trials[2].settings,
        "failed",
        reason="out of memory",
        began=again.trials[2].began,
        seconds=again.trials[2].seconds,
    )
    assert again.next().number == 3
