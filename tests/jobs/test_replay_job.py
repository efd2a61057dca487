"""While rows are replayed, a service that tells nothing of itself for a moment is asked again."""

from typing import Any

import pytest

from app.types import UserError
from jobs import replay


def test_silence_is_borne_for_a_while(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    monkeypatch.setattr("jobs.replay.time.monotonic", lambda: now)
    silent = True

    def get(page: str) -> Any:
        if silent:
            raise UserError(f"{page} does not answer")
        return {"decisions": []} if page.startswith("decisions") else {"retrain": {"state": "running"}}

    watch = replay.Watch(get)
    assert not watch(0)
    silent, now = False, now + replay.PATIENCE
    assert watch(0)
    silent, now = True, now + 1
    assert watch(0)  # what it knew last
    assert [line.getMessage() for line in caplog.records] == ["drift does not answer"] * 2
    now += replay.PATIENCE
    with pytest.raises(UserError, match="drift does not answer"):
        watch(0)
