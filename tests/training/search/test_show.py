"""What a person sees: a line for each trial, and on a terminal a table below the lines."""

import io
import logging

import pytest

from app.training.search.show import Show, table
from app.training.search.trials import Trial


class Terminal(io.StringIO):
    """Keeps what a terminal would show: understands the one way in which the table is taken away."""

    def shown(self):
        lines = []
        for piece in self.getvalue().split("\x1b["):
            if piece.startswith("J"):
                piece = piece[1:]
            elif "F" in piece[:4] and piece.partition("F")[0].isdigit():
                count, _, piece = piece.partition("F")
                del lines[len(lines) - int(count) :]
            lines += piece.splitlines()
        return lines


@pytest.fixture
def trials(ended):
    return [
        ended(1, {}, 0.5),
        ended(2, {"model.width": 64}, 0.4),
        ended(3, {"model.width": 9}, 0.9, state="stopped early"),
        ended(4, {"model.width": 8}, None, state="failed", reason="diverged"),
        Trial(5, {"model.width": 33}).heard(1, 0.45),
    ]


def test_the_table_shows_the_best_first_and_who_runs_last(trials):
    assert table(trials, 9) == [
        " trial  epoch     loss  settings",
        "     2      2   0.4000  width 64",
        "     1      2   0.5000  as declared",
        "     5      1   0.4500  width 33  ...",
        "4 of 9 trials ended, 1 stopped early, 1 failed",
    ]


def test_a_terminal_shows_one_table_however_often_it_is_drawn(trials):
    terminal = Terminal()
    show = Show("search", 9, terminal)
    for trial in trials:
        show.began(trial)
        show.heard(trial)
        if trial.ended:
            show.ended(trial)
    assert terminal.shown() == table(trials, 9)
    show.close()
    assert terminal.shown() == []


def test_every_trial_that_ends_is_a_line_of_the_log(trials, caplog):
    caplog.set_level(logging.INFO)
    show = Show("search", 9)
    for trial in trials[:4]:
        show.ended(trial)
    assert caplog.messages == [
        "search trial 1 of 9: loss 0.5000 in 1.0 s; as declared",
        "search trial 2 of 9: loss 0.4000 in 1.0 s; width 64",
        "search trial 3 of 9: loss 0.9000, stopped early in 1.0 s (best 0.4000, trial 2); width 9",
        "search trial 4 of 9: failed in 1.0 s (best 0.4000, trial 2); diverged",
    ]


def test_a_search_that_goes_on_says_what_is_known(trials, caplog):
    caplog.set_level(logging.INFO)
    Show("search", 9, None, trials[:3])
    assert caplog.messages == ["search: 3 trials are known from before"]
