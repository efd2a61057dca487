"""Who starts a service in the background can end it, however long it takes to come up."""

import os
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


def test_a_service_in_the_foreground_is_found_and_no_second_one_comes_up_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "serve.pid"
    serve._claim(pid)
    assert pid.read_text() == str(os.getpid())
    serve._claim(pid)  # as the one that a start in the background has written down
    pid.write_text("4194305")
    serve._claim(pid)  # which has ended
    assert pid.read_text() == str(os.getpid())
    pid.write_text("4194305")
    monkeypatch.setattr(serve, "_alive", lambda _: True)
    with pytest.raises(UserError, match="process 4194305 keeps this service up already"):
        serve._claim(pid)
    assert pid.read_text() == "4194305"


def test_of_two_starts_at_once_the_one_that_fails_leaves_the_other_to_be_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = tmp_path / "serve.pid"

    def poll() -> int:
        pid.write_text("4194306")
        return 2

    started = Started(2)
    started.poll = poll
    monkeypatch.setattr(serve.subprocess, "Popen", lambda *_, **__: started)
    with pytest.raises(UserError, match="did not come up"):
        serve._start(pid, tmp_path / "serve.address", tmp_path / "serve.log")
    assert pid.read_text() == "4194306"
