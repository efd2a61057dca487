"""The ledger: append-only, whole, each decision once, whoever writes and however often."""

import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.decisions.ledger import Draft, Ledger, from_iso, newest, to_iso
from app.types import UserError
from app.workspace import Workspace


def draft(key: str = "a", **changes) -> Draft:
    return Draft(**({"kind": "alarm_noted", "key": key, "at": 1_000, "step": 3, "reason": "it moved"} | changes))


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(Workspace.open(str(tmp_path)), "rides")


def test_an_entry_is_read_back_as_it_was_written(ledger, tmp_path):
    written = ledger.append(
        draft(evidence={"loss": 0.25, "nan": float("nan"), "pair": (1, 2)}, version="4", about="x"), now=5_000
    )
    [again] = Ledger.open(Workspace.open(str(tmp_path)), "rides").entries()
    assert again == written
    assert again.evidence == {"loss": 0.25, "nan": None, "pair": [1, 2]}
    assert (again.number, again.at_ms, again.written_ms, again.step) == (1, 1_000, 5_000, 3)


def test_a_decision_made_again_is_found_and_not_repeated(ledger, tmp_path):
    first = ledger.append(draft(), now=1)
    assert ledger.append(draft(at=9_999, step=8, reason="made anew after a restart"), now=2) == first
    assert Ledger.open(Workspace.open(str(tmp_path)), "rides").append(draft(), now=3) == first
    assert ledger.append(draft("b"), now=4).number == 2


def test_ids_tell_declarations_kinds_and_occasions_apart():
    one = draft()
    others = [draft("b"), draft(kind="fault"), draft(about="x")]
    assert len({one.id("rides"), one.id("flights"), *(other.id("rides") for other in others)}) == 5
    assert one.id("rides") == draft(at=7, reason="other words", step=9).id("rides")


def test_what_another_process_wrote_is_read_without_reading_all_again(ledger, tmp_path):
    ledger.append(draft("a"), now=1)
    assert len(ledger.entries()) == 1
    (tmp_path / "rides/ledger/000001.json").write_text("unreadable now, but read before")
    entry = Ledger.open(Workspace.open(str(tmp_path / "elsewhere")), "rides").append(draft("b"), now=2)
    source = tmp_path / "elsewhere/rides/ledger/000001.json"
    (tmp_path / "rides/ledger/000002.json").write_bytes(source.read_bytes())
    assert ledger.entries()[1].id == entry.id


def test_two_writers_never_share_a_number_nor_lose_an_entry(tmp_path):
    workspace, keys = Workspace.open(str(tmp_path)), [f"{n}" for n in range(20)]
    writers = [
        threading.Thread(target=lambda own: [own.append(draft(key), now=1) for key in keys], args=[ledger])
        for ledger in (Ledger.open(workspace, "rides") for _ in range(4))
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    entries = Ledger.open(workspace, "rides").entries()
    assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
    assert sorted(entry.id for entry in entries) == sorted(draft(key).id("rides") for key in keys)
    assert not list(tmp_path.glob("rides/ledger/.*"))


@pytest.mark.parametrize("content", [b'{"number": "two"}', b'{"kind": "\xff"}'])
def test_a_file_that_is_no_entry_is_named(ledger, tmp_path, content):
    ledger.append(draft(), now=1)
    (tmp_path / "rides/ledger/000002.json").write_bytes(content)
    with pytest.raises(UserError, match=r"000002\.json is no entry"):
        ledger.entries()


def test_a_missing_entry_is_named_and_what_comes_behind_it_is_not_forgotten(ledger, tmp_path):
    for key in "abcd":
        ledger.append(draft(key), now=1)
    (tmp_path / "rides/ledger/000002.json").unlink()
    again = Ledger.open(Workspace.open(str(tmp_path)), "rides")
    for _ in range(2):  # one that has told it once does not go on either
        with pytest.raises(UserError, match=r"000002\.json is missing, and the ledger goes on to entry 4"):
            again.append(draft("e"), now=2)


@given(st.integers(min_value=0, max_value=4_102_444_800_000))
def test_moments_survive_writing(moment):
    assert from_iso(to_iso(moment)) == moment


def test_the_newest_of_some_kinds_is_found(ledger):
    for key, kind in enumerate(("probe", "probed", "probe", "page")):
        ledger.append(draft(str(key), kind=kind), now=1)
    assert newest(ledger.entries(), "probe", "probed").number == 3
    assert newest(ledger.entries(), "promote") is None
