"""While rows are replayed, a service that tells nothing of itself for a moment is asked again."""

import argparse
from types import SimpleNamespace
from typing import Any

import pytest

from app.types import UserError
from jobs import replay


def test_silence_is_borne_for_a_while(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    now = 1000.0
    monkeypatch.setattr(replay, "time", SimpleNamespace(monotonic=lambda: now))  # the others' time goes on
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
    assert [line.getMessage() for line in caplog.records if line.name == replay.log.name] == [
        "drift does not answer"
    ] * 2
    now += replay.PATIENCE
    with pytest.raises(UserError, match="drift does not answer"):
        watch(0)


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        *[("--pace", text) for text in ("0", "-1", "nan", "inf", "fast")],
        *[
            ("--address", text)
            for text in ("rubbish", "127.0.0.1:8000/rides", "http://", "http://127.0.0.1:abc/rides")
        ],
    ],
)
def test_a_pace_or_an_address_that_leads_nowhere_is_refused_before_anything_is_sent(
    argument: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = argparse.ArgumentParser()
    replay._extend(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["rides.parquet", f"{argument}={text}"])
    assert f"found {text!r}, allowed a" in capsys.readouterr().err
    assert parser.parse_args(["rides.parquet", "--address", "https://h:1/rides/"]).address == "https://h:1/rides"
