"""The record of a search: what is written is what is read, whoever was killed in between."""

import hypothesis
import hypothesis.strategies as st
import pytest

from app.training.search.trials import Record, Trial, best_of, busy_seconds
from app.types import UserError

VALUES = st.one_of(st.integers(-5, 5), st.floats(allow_nan=False, allow_infinity=False), st.text(), st.booleans())
TRIALS = st.builds(
    Trial,
    number=st.integers(1, 10**6),
    settings=st.dictionaries(st.text(), VALUES),
    state=st.sampled_from(["running", "finished", "stopped early", "failed"]),
    losses=st.lists(st.tuples(st.integers(1, 99), st.floats(0, 9))).map(tuple),
    loss=st.none() | st.floats(0, 9),
    reason=st.text(),
)


@hypothesis.given(TRIALS)
def test_a_trial_comes_back_as_it_was_written(trial):
    assert Trial.from_json(trial.to_json()) == trial


def test_a_record_holds_the_newest_word_of_each_trial(tmp_path, ended):
    record = Record(str(tmp_path / "search"), "a")
    assert record.open() == []
    record.write(Trial(2, {"model.width": 9}))
    record.write(Trial(1, {}))
    record.write(ended(1, {}, 0.5))
    assert Record(record.uri, "a").open() == [ended(1, {}, 0.5), Trial(2, {"model.width": 9})]


def test_the_record_of_another_search_is_not_gone_on_with(tmp_path):
    uri = str(tmp_path / "search")
    Record(uri, "a").open()
    with pytest.raises(
        UserError, match=r"search holds a search of another declaration .*--run, or remove that folder"
    ):
        Record(uri, "b").open()


def test_only_what_finished_can_be_best_and_the_first_of_equals_is(ended):
    trials = [
        ended(4, {}, 0.3),
        ended(2, {}, 0.3),
        ended(3, {}, 0.1, state="stopped early"),
        ended(5, {}, None, state="failed"),
    ]
    assert best_of(trials).number == 2
    assert best_of(trials[2:]) is None


def test_seconds_in_which_several_ran_count_once(ended):
    trials = [
        ended(1, {}, 0.3, began=100.0, seconds=10.0),
        ended(2, {}, 0.3, began=105.0, seconds=10.0),
        ended(3, {}, 0.3, began=106.0, seconds=1.0),
        ended(4, {}, 0.3, began=200.0, seconds=5.0),
        Trial(5, {}, began=300.0),
    ]
    assert busy_seconds(trials) == pytest.approx(20.0)


def test_a_trial_that_began_anew_tells_its_epochs_anew():
    trial = Trial(1, {}).heard(1, 0.9).heard(2, 0.8).heard(3, 0.7)
    assert trial.heard(2, 0.75).losses == ((1, 0.9), (2, 0.75))
