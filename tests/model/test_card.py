"""The card states the facts, draws for every task, and is a pure function of the contents."""

from dataclasses import replace

import numpy as np
import pytest

from app.data.features import TargetColumn
from app.model.card import render
from app.model.contents import Evaluation, Judged, library_versions

PICTURES = {
    "binary": {"calibration", "roc", "importance", "training"},
    "multiclass": {"calibration", "confusion", "importance", "training"},
    "regression": {"residuals", "importance", "training"},
}


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_each_task_has_its_pictures_and_the_same_bytes_twice(make_contents, task) -> None:
    files = render(make_contents(task))
    assert files.keys() == {"card.md"} | {f"plots/{name}.png" for name in PICTURES[task]}
    assert all(data.startswith(b"\x89PNG") for path, data in files.items() if path.endswith(".png"))
    assert render(make_contents(task)) == files
    text = files["card.md"].decode()
    for name in PICTURES[task]:
        assert f"](plots/{name}.png)" in text


def test_the_facts_are_there(make_contents) -> None:
    text = render(replace(make_contents(), judged=Judged(False, ["slower than allowed"])))["card.md"].decode()
    for fact in (
        "# flights",
        "Not passed.",
        "- slower than allowed",
        "|  | network | LightGBM |",
        "| log-loss | 0.5000 | 0.5000 |",
        "| log-loss, mean over months | 0.5000 | 0.5000 |",
        "| 2013-03 | 300 | 0.5000 | 0.5000 |",
        "| JFK | 300 | 0.5000 |",
        "| `n0` | 10.0% |",
        "- quarantined, dew point: 3",
        "2013-02-28",
        f"torch {library_versions()['torch']}",
    ):
        assert fact in text, fact


def test_without_baseline_labels_or_gate_the_card_is_shorter(make_contents) -> None:
    contents = make_contents()
    none = np.full(300, np.nan, np.float32)
    files = render(replace(contents, baseline=None, baseline_scores=None, target=none, importance={}, history=[]))
    assert files.keys() == {"card.md"}
    assert "LightGBM" not in files["card.md"].decode()
    assert "## Gate" not in files["card.md"].decode()


def test_names_of_any_kind_are_drawn_and_cannot_break_the_table(make_contents) -> None:
    contents = make_contents()
    names = ["price $ in $", "a|b\nc", "駅\U0001f600", "x" * 100, "`code`"]
    number = tuple(replace(column, name=name) for column, name in zip(contents.plan.number, names, strict=False))
    plan = replace(contents.plan, number=number)
    files = render(replace(contents, plan=plan, importance={"model": dict.fromkeys(names, 0.1)}))
    assert "| `a\\|b c` |" in files["card.md"].decode()


def test_figures_say_which_rows_they_rest_on(make_contents) -> None:
    contents = make_contents()
    assert "on 300 labelled test rows" in render(contents)["card.md"].decode()
    origin = replace(contents.origin, rows={"train": 300, "validation": 300})
    text = render(replace(contents, origin=origin))["card.md"].decode()
    assert "on 300 labelled validation rows" in text
    assert "too good" in text


def test_more_classes_than_a_picture_holds(make_contents) -> None:
    contents = make_contents("multiclass")
    target = TargetColumn("kind", "multiclass", tuple(f"class {i}" for i in range(30)))
    scores = np.random.default_rng(0).dirichlet(np.ones(30), 300).astype(np.float32)
    plan = replace(contents.plan, target=target)
    files = render(replace(contents, plan=plan, scores=scores, baseline_scores=None))
    assert "Only the first 20 of 30 classes are shown." in files["card.md"].decode()


def test_the_mean_of_months_leaves_out_slivers_and_figures_that_a_month_lacks() -> None:
    months = {
        "2013-11": {"rows": 500.0, "log_loss": 0.25, "auc": 0.5},
        "2013-12": {"rows": 490.0, "log_loss": 0.75},
        "2014-01": {"rows": 9.0, "log_loss": 99.0, "auc": 0.0},
    }
    assert Evaluation({}, months).mean_of_months() == {"log_loss": 0.5}
    assert Evaluation({}, {"2013-11": months["2013-11"]}).mean_of_months() == {}
