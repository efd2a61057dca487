"""The rollout: the order of its stages, what each is checked for, and the way back."""

import datetime as dt
from types import SimpleNamespace

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from app.decisions.ledger import Draft
from app.decisions.rollout import Breach, Passed, Waiting, advance, by_hand, check, lineup_of
from app.decisions.situation import Situation, champion
from app.decisions.trial import measure, stage_of
from app.journal.rows import PROFILES
from app.lineup import Answering, Lineup
from app.monitor.figures import Figures
from app.telemetry import DURATION_BOUNDS

START = int(dt.datetime(2024, 3, 1, tzinfo=dt.UTC).timestamp() * 1000)
DAY = 86_400_000
SECOND = {"version": "2", "bundle": "bundles/two", "known_until": START}


class Rollout:
    """A rollout of version 2 against version 1, with figures as the monitor would sum them up."""

    def __init__(self, book) -> None:
        self.book, self.figures, self.step, self.now, self.day = book, Figures(), 1, 0, 1.0
        self.target = SimpleNamespace(task="binary", std=7.0)
        self.reference = SimpleNamespace(labels=np.array([[60, 40]]))
        subject = SimpleNamespace(plan=SimpleNamespace(target=self.target), reference=self.reference)
        self.monitor = SimpleNamespace(state=SimpleNamespace(figures=self.figures), subject=lambda version: subject)
        book.append(Draft("retrained", "", START, 1, "passed", {"trial": SECOND, "rollout": True}, "r", "2"))

    def turn(self):
        situation = Situation(self.step, START + round(self.day * DAY), self.now, 0)
        generation = len(self.book.entries)
        draft = advance(self.book.spec, situation, self.book.entries, self.monitor, generation)
        return None if draft is None else self.book.append(draft, self.now)

    def verdict(self):
        stage = stage_of(self.book.entries)
        situation = Situation(self.step, START + round(self.day * DAY), self.now, 0)
        return check(self.book.spec, stage, measure(self.monitor, stage, situation, 0.95))

    def scored(self, version: str, role: str, rows: int, errors=0, not_finite=0, seconds=0.0004, calls=None):
        calls = rows if calls is None else calls
        times = [0] * (len(DURATION_BOUNDS) + 1)
        times[np.searchsorted(DURATION_BOUNDS, seconds)] = calls
        row = {"version": version, "role": role, "rows": rows, "calls": calls, "errors": errors, "seconds": times}
        self.step += 1
        self.figures.add_profiles(self.step, pa.Table.from_pylist([row | {"not_finite": not_finite}], PROFILES))

    def paired(self, rows: int, theirs: float, ours: float):
        scores = pa.array(np.full(rows, theirs, np.float32)), pa.array(np.full(rows, ours, np.float32))
        names = pa.array(["1"] * rows), pa.array(["champion"] * rows), pa.array(["2"] * rows)
        columns = dict(zip(("version", "role", "shadow_version"), names, strict=True))
        self.step += 1
        self.figures.add_pairs(self.step, pa.table(columns | {"score": scores[0], "shadow_score": scores[1]}))

    def labelled(self, rows: int, worse: float, *, champion: str = "1", shadow: str = "2", day: int = 0):
        """Labels on rows of a day; the shadow's loss is higher by `worse`, and some noise."""
        random = np.random.default_rng(day)
        loss = random.random(rows)
        shadow_loss = loss + worse + 0.1 * random.standard_normal(rows)
        joined = pl.DataFrame(
            {
                "event": START + day * DAY + np.arange(rows),
                "version": [champion] * rows,
                "role": ["champion"] * rows,
                "shadow_version": [shadow] * rows,
                "loss": loss,
                "shadow_loss": shadow_loss,
                "difference": loss - shadow_loss,
            }
        )
        self.step += 1
        self.figures.add_losses(self.step, joined)

    def to(self, kind: str, share: float | None = None):
        """Go on without trouble until a stage begins."""
        for _ in range(20):
            entry = self.turn()
            if entry is not None and entry.kind == kind and share in (None, entry.evidence["share"]):
                return self
            stage = stage_of(self.book.entries)
            self.scored("2", stage.role, 1000)
        raise AssertionError(self.book.kinds())


@pytest.fixture
def rollout(book):
    return Rollout(book())


@pytest.fixture
def rollout_with(spec_of, book):
    def make(**sections):
        made = book()
        made.spec = spec_of(rollout=sections)
        return Rollout(made)

    return make


def test_a_version_goes_from_shadow_by_its_shares_to_champion_and_is_watched(rollout):
    lineups = []
    while len(lineups) < 6:
        entry = rollout.turn()
        if entry is not None:
            lineups.append((entry.kind, lineup_of(rollout.book.entries)))
        stage = stage_of(rollout.book.entries)
        if stage is not None and stage.role == "champion":
            rollout.labelled(200, 0.0, champion="2", shadow="1")
        elif stage is not None:
            rollout.scored("2", stage.role, 250)
    one, two = Answering("1", "bundles/one"), Answering("2", "bundles/two")
    assert [(kind, it.champion, it.challenger, it.share) for kind, it in lineups] == [
        ("shadow", one, two, 0.0),
        ("stage", one, two, 0.05),
        ("stage", one, two, 0.25),
        ("stage", one, two, 1.0),
        ("promote", two, one, 0.0),
        ("settled", two, None, 0.0),
    ]
    assert champion(rollout.book.entries).version == "2"
    generations = [lineup.generation for _, lineup in lineups]
    assert generations == sorted(set(generations))


def test_a_stage_waits_for_its_rows_and_its_time(rollout_with):
    rollout = rollout_with(shadow_rows=500, stage_time="1m")
    rollout.turn()
    rollout.scored("2", "shadow", 499)
    assert rollout.turn() is None
    assert rollout.verdict() == Waiting("499 of 500 rows are scored")
    rollout.scored("2", "shadow", 1)
    assert rollout.turn().kind == "stage"
    rollout.scored("2", "challenger", 10_000)
    rollout.now = 59_000
    assert isinstance(rollout.verdict(), Waiting)
    rollout.now = 60_000
    assert isinstance(rollout.verdict(), Passed)


def test_without_a_shadow_the_first_share_comes_at_once(rollout_with):
    entry = rollout_with(shadow_rows=0, stages=[0.5, 1.0]).turn()
    assert (entry.kind, entry.evidence["share"]) == ("stage", 0.5)


def test_a_version_that_nobody_wants_rolled_out_stays_challenger(book):
    book = book()
    rollout = Rollout(book)
    book.entries[-1].evidence["rollout"] = False
    assert rollout.turn() is None


STAGES = [("shadow", None), ("stage", 0.05), ("stage", 1.0)]


@pytest.mark.parametrize(("kind", "share"), STAGES)
@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ({"rows": 99, "errors": 1}, "failed on 1.00% of 100 rows"),
        ({"rows": 0, "errors": 1}, "failed on 100.00% of 1 rows"),
        ({"rows": 100, "not_finite": 100}, "failed on"),
        ({"rows": 300, "seconds": 0.15}, "a scoring call takes 150 ms"),
    ],
)
def test_every_stage_breaks_off_at_failures_and_slowness(rollout, kind, share, trouble, said):
    rollout.to(kind, share)
    role = stage_of(rollout.book.entries).role
    rollout.scored("1", "champion", 1000)
    rollout.scored("2", role, **trouble)
    back = rollout.turn()
    assert back.kind == "rollback"
    assert said in back.reason
    lineup = lineup_of(rollout.book.entries)
    assert (lineup.champion.version, lineup.challenger) == ("1", None)
    assert lineup.generation == back.evidence["generation"]
    assert rollout.turn() is None


def test_a_shadow_that_scores_whole_flushes_is_not_called_slow(rollout):
    rollout.to("shadow")
    rollout.scored("1", "champion", 20_000, calls=20_000)
    rollout.scored("2", "shadow", 20_000, calls=200, seconds=0.009)
    assert isinstance(rollout.verdict(), Passed)


def test_a_challenger_with_few_rows_a_call_is_not_called_slow(rollout):
    rollout.to("stage", 0.05)
    rollout.scored("1", "champion", 20_000, calls=200, seconds=0.0009)
    rollout.scored("2", "challenger", 200, calls=200, seconds=0.0009)
    assert isinstance(rollout.verdict(), Passed)


@pytest.mark.parametrize(("calls", "slow"), [(200, False), (20_000, True)])
def test_a_challenger_that_answers_all_is_held_to_what_the_champion_takes_for_the_same_rows_unheard(
    rollout, calls, slow
):
    rollout.to("stage", 1.0)
    rollout.scored("1", "shadow", 20_000, calls=0)
    rollout.scored("1", "champion", 0, calls=20_000)
    rollout.scored("2", "challenger", 20_000, calls=calls, seconds=0.009)
    assert isinstance(rollout.verdict(), Breach if slow else Passed)


def test_a_tail_beyond_the_gates_limit_breaks_off_unless_the_champion_has_it_too(rollout):
    rollout.to("stage", 0.25)
    rollout.scored("2", "challenger", 1000)
    rollout.scored("2", "challenger", 50, seconds=0.15)
    assert "1 % of its scoring calls take at least 100 ms" in rollout.verdict().reasons[0]
    rollout.scored("1", "champion", 1000)
    rollout.scored("1", "champion", 50, seconds=0.15)
    assert isinstance(rollout.verdict(), Passed)


def test_scores_far_from_the_champions_break_off(rollout):
    rollout.to("shadow")
    rollout.scored("2", "shadow", 1000)
    rollout.paired(1000, 0.2, 0.34)
    assert isinstance(rollout.verdict(), Passed)
    rollout.paired(1000, 0.2, 0.42)
    assert "its scores are 0.18 away" in rollout.verdict().reasons[0]


def test_a_regressions_scores_are_told_apart_in_deviations_of_its_target(rollout):
    rollout.to("shadow")
    rollout.target.task = "regression"
    rollout.scored("2", "shadow", 1000)
    rollout.paired(1000, 20.0, 21.0)
    assert isinstance(rollout.verdict(), Passed)
    rollout.paired(1000, 20.0, 22.0)
    assert "its scores are 0.214 away" in rollout.verdict().reasons[0]


def test_a_shadow_that_a_replica_cannot_load_breaks_off(rollout):
    rollout.to("shadow")
    rollout.scored("1", "champion", 5000)
    rollout.scored("2", "challenger", 0, errors=1)
    assert isinstance(rollout.verdict(), Breach)


def test_a_shadow_that_never_scores_is_given_up(rollout):
    rollout.to("shadow")
    rollout.scored("1", "champion", 5000)
    rollout.now = 59_000
    assert isinstance(rollout.verdict(), Waiting)
    rollout.now = 61_000
    assert rollout.verdict() == Breach(["it scored none of 5,000 rows in 61 seconds"])


def test_labels_that_prove_it_worse_break_off_before_it_answers_all(rollout):
    rollout.to("stage", 0.05)
    rollout.labelled(40, 0.2)
    assert isinstance(rollout.verdict(), Waiting)
    rollout.labelled(400, 0.2)
    assert "its loss is proven worse than that of version 1 on the same 440 rows" in rollout.verdict().reasons[0]


def test_labels_of_a_rare_class_break_off_nothing_before_some_can_have_come(rollout):
    rollout.reference.labels = np.array([[980, 20]], np.uint32)
    rollout.to("shadow")
    rollout.labelled(400, 0.1)
    assert not isinstance(rollout.verdict(), Breach)
    rollout.labelled(200, 0.1)
    assert isinstance(rollout.verdict(), Breach)


def test_a_champion_proven_worse_under_watch_gives_way_to_the_one_before(rollout):
    rollout.to("promote")
    rollout.labelled(150, -0.2, champion="2", shadow="1")
    back = rollout.turn()
    assert (back.kind, back.version) == ("rollback", "2")
    assert champion(rollout.book.entries).version == "1"


def test_a_better_champion_under_watch_is_kept_and_one_that_fails_is_not(rollout):
    rollout.to("promote")
    rollout.labelled(150, 0.2, champion="2", shadow="1")
    assert isinstance(rollout.verdict(), Waiting)
    rollout.scored("2", "champion", 100, errors=3)
    assert isinstance(rollout.verdict(), Breach)


def test_the_watch_ends_when_no_label_can_come_any_more(rollout):
    rollout.to("promote")
    rollout.day += 29
    assert isinstance(rollout.verdict(), Waiting)
    rollout.day += 2
    assert rollout.turn().kind == "settled"


def test_failures_before_a_stage_are_not_held_against_it(rollout):
    rollout.scored("2", "shadow", 10, errors=10)
    rollout.turn()
    rollout.scored("2", "shadow", 500)
    assert isinstance(rollout.verdict(), Passed)


def test_a_line_up_changed_by_hand_ends_the_rollout_and_counts(rollout):
    rollout.to("stage", 0.25)
    situation = Situation(rollout.step, START, 0, 0)
    found = Lineup(99, Answering("7", "bundles/seven"))
    entry = rollout.book.append(by_hand(situation, rollout.book.entries, found, START))
    assert (entry.kind, entry.version) == ("ended", "2")
    assert lineup_of(rollout.book.entries) == found
    assert rollout.turn() is None
    again = rollout.book.append(by_hand(situation, rollout.book.entries, Lineup(100, found.champion), START))
    assert (again.kind, again.version) == ("deploy", "7")


def test_a_stage_waits_until_calls_enough_are_timed_however_many_rows_they_bring(rollout):
    rollout.to("stage", 0.05)
    rollout.scored("1", "champion", 20_000, calls=200)
    rollout.scored("2", "challenger", 20_000, calls=10, seconds=0.9)
    assert rollout.verdict() == Waiting("10 of 20 scoring calls are timed")
    rollout.scored("2", "challenger", 20_000, calls=10, seconds=0.9)
    assert "a scoring call takes" in rollout.verdict().reasons[0]
