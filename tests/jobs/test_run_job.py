"""The report of the whole loop says what was served, however short the arrivals are."""

from typing import Any

import pytest

from jobs.run import _tell


@pytest.mark.parametrize(("months", "says"), [({"log_loss": 0.25}, "mean of the months"), ({}, "all rows")])
def test_arrivals_of_less_than_two_months_are_told_by_all_their_rows(
    months: dict[str, float], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    side = {"overall": {"rows": 9.0, "log_loss": 0.5}, "mean_of_months": months}
    report: dict[str, Any] = {
        "policy": {"never": side, "ours": {**side, "overall": {**side["overall"], "auc": 0.5}}},
        "versions": [{"version": 1, "rows_served": 9}],
        "requests": {"sent": 1, "failed": 0, "again": 0, "rows": 9},
        "labels": {"sent": 9, "joined": 9},
    }
    _tell(report)
    heading, figure, served, *_ = capsys.readouterr().out.strip().splitlines()
    assert heading.split("  ")[0] == says
    assert figure.split() == ["log_loss", *[f"{months.get('log_loss', 0.5):.4f}"] * 2]
    assert served == "rows served by version: 1: 9"
