"""State and decisions are handed out as they were published; before there are any, that is what is said."""

import json
from pathlib import Path
from typing import Any

import pytest

from app.serving import pages


@pytest.fixture
def here(room: Any, version: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(pages, "SECONDS", 0.0)
    made = room()
    made.stand(version("1"))
    return made


def get(here: Any, page: str) -> Any:
    [answer] = here.ask(("GET", f"/rides{page}", {}))
    return answer


def test_before_the_drift_actor_has_reported_it_is_said_so(here: Any) -> None:
    assert get(here, "/drift").json() == {"status": "no drift actor has reported yet"}
    assert get(here, "/decisions").json() == {"decisions": []}


def test_state_and_newest_decisions_are_handed_out(here: Any, tmp_path: Path) -> None:
    (tmp_path / "status.json").write_text('{"status": "well"}')
    (tmp_path / "ledger").mkdir()
    for number in range(1, 4):
        (tmp_path / "ledger" / f"{number:06d}.json").write_text(json.dumps({"number": number}))
    assert get(here, "/drift").json() == {"status": "well"}
    assert [entry["number"] for entry in get(here, "/decisions").json()["decisions"]] == [3, 2, 1]
    assert [entry["number"] for entry in get(here, "/decisions?limit=2").json()["decisions"]] == [3, 2]
    (tmp_path / "ledger" / "000004.json").write_text('{"number": 4}')
    (tmp_path / "ledger" / ".000005.json.draft").write_text("{")
    (tmp_path / "status.json").write_text('{"status": "ill"}')
    assert get(here, "/decisions?limit=1").json() == {"decisions": [{"number": 4}]}
    assert get(here, "/drift").json() == {"status": "ill"}


@pytest.mark.parametrize("content", [b"{", b'{"number": "\xff"}'])
def test_what_is_no_document_is_not_handed_out(here: Any, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger" / "000001.json").write_text('{"number": 1}')
    (tmp_path / "ledger" / "000002.json").write_bytes(content)
    (tmp_path / "status.json").write_bytes(content)
    assert get(here, "/decisions").json() == {"decisions": [{"number": 1}]}
    assert get(here, "/drift").json() == {"status": "no drift actor has reported yet"}


def test_files_are_read_at_most_once_a_second(here: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "SECONDS", 3600.0)
    assert get(here, "/drift").json()["status"] == "no drift actor has reported yet"
    (tmp_path / "status.json").write_text('{"status": "well"}')
    assert get(here, "/drift").json()["status"] == "no drift actor has reported yet"


@pytest.mark.parametrize("limit", ["0", "1001", "-1", "x", "", "%F0", "000000001" + "0" * 5000])
def test_a_limit_that_is_none_is_refused(here: Any, limit: str) -> None:
    answer = get(here, f"/decisions?limit={limit}")
    assert answer.status_code == 422
    assert "from 1 to 1000" in answer.json()["detail"]


def test_the_console_and_its_files_are_there_and_load_nothing_from_elsewhere(here: Any) -> None:
    page = get(here, "/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name, (content_type, content) in pages.files().items():
        answer = get(here, f"/{name}")
        assert (answer.content, answer.headers["content-type"]) == (content, content_type)
    moved = get(here, "")
    assert (moved.status_code, moved.headers["location"]) == (307, "/rides/")
