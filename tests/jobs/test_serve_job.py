"""Who starts a service in the background can end it, however long it takes to come up."""

from pathlib import Path
from typing import Any

import pytest

from app.types import UserError
from jobs import serve


class Started:
    """Stands in for a process that never answers."""

    pid = 4_194_305  # of no process: Linux has fewer

    def __init__(self, status: int | None) -> None:
        self.poll = lambda: status


@pytest.mark.parametrize(
    ("status", "says", "kept"), [(None, "goes on; see", True), (1, "did not come up:\nwhy", False)]
)
def test_a_service_that_still_trains_can_be_ended_and_one_that_died_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int | None, says: str, kept: bool
) -> None:
    def start(_: list[str], stdout: Any, **__: Any) -> Started:
        stdout.write("why")
        stdout.flush()
        return Started(status)

    monkeypatch.setattr(serve, "PATIENCE", 0)
    monkeypatch.setattr(serve.subprocess, "Popen", start)
    pid = tmp_path / "serve.pid"
    with pytest.raises(UserError, match=says):
        serve._start(pid, tmp_path / "serve.address", tmp_path / "serve.log")
    assert pid.exists() is kept
