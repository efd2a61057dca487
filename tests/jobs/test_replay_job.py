"""While rows are replayed, a service that tells nothing of itself for a moment is asked again, and one that lags waited for."""

import argparse
import datetime as dt
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


def test_rows_wait_for_a_loop_that_is_further_behind_than_the_lead(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    now, day = 1000.0, 86_400_000
    monkeypatch.setattr(replay, "time", SimpleNamespace(monotonic=lambda: now))
    read = None

    def get(page: str) -> Any:
        return {"decisions": []} if page.startswith("decisions") else {"as_of": read}

    patient, blind = replay.Watch(get, dt.timedelta(days=2)), replay.Watch(get)
    assert not patient(100 * day)  # it has read nothing yet: there is nothing to wait for
    read, now = "1970-01-11T00:00:00.000Z", now + 1
    assert not patient(12 * day)
    assert patient(12 * day + 1)  # between two looks, too
    assert not blind(100 * day)
    now += 1
    capsys.readouterr()
    assert patient(40 * day)
    assert "waits for the loop" in capsys.readouterr().out
    now += replay.PATIENCE
    assert all(patient(40 * day + i) for i in range(3))
    assert [line.getMessage() for line in caplog.records if line.name == replay.log.name] == [
        "the loop has read nothing new for 60 s; rows wait for it, as --lead says"
    ]
    read, now = "1970-02-10T00:00:00.000Z", now + 1
    assert not patient(40 * day)


@pytest.mark.parametrize(
    ("argument", "text"),
    [
        *[("--lead", text) for text in ("-1d", "soon")],
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
