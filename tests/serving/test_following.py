"""A replica answers with what the line-up names, loads each version once, and goes on when one cannot be loaded."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from app.lineup import Answering, Lineup, write_lineup
from app.serving import following
from app.serving.deploy import appoint
from app.serving.following import Follower
from app.serving.loaded import Loaded, Standing
from app.types import UserError

ONE, TWO = Answering("1", "bundles/one"), Answering("2", "bundles/two")
BROKEN = Answering("9", "bundles/broken")


class Replica:
    """Keeps what a follower tells."""

    def __init__(self, uri: str, version: Any) -> None:
        self.uri, self.version = uri, version
        self.loaded: list[str] = []
        self.standings: list[Standing] = []
        self.faults: list[str | None] = []
        self.follower = Follower(uri, self.load, self.standings.append, self.faults.append)

    def load(self, answering: Answering) -> Loaded:
        self.loaded.append(answering.version)
        if answering == BROKEN:
            raise KeyError("features.json")
        made: Loaded = self.version(answering.version)
        return made

    def stands(self) -> tuple[str, str | None, float, int]:
        now = self.standings[-1]
        return now.champion.version, now.challenger.version if now.challenger else None, now.share, now.generation


@pytest.fixture
def replica(tmp_path: Path, version: Any) -> Replica:
    return Replica(str(tmp_path / "lineup.json"), version)


def test_without_a_line_up_there_is_no_replica(replica: Replica) -> None:
    with pytest.raises(UserError, match=r"lineup\.json is not there"):
        replica.follower.first()
    write_lineup(replica.uri, Lineup(1, BROKEN))
    with pytest.raises(UserError, match="version 9 cannot be loaded"):
        replica.follower.first()


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"\xff", b'{"generation": 2, "champion": {"version": "\xff", "bundle": "x"}}']
)
def test_a_line_up_that_is_none_is_a_fault_and_who_answers_goes_on(data: bytes, replica: Replica) -> None:
    write_lineup(replica.uri, Lineup(1, ONE))
    replica.standings.append(replica.follower.first())
    Path(replica.uri).write_bytes(data)
    replica.follower.look()
    assert replica.stands() == ("1", None, 0, 1)
    assert replica.faults == [None]


def test_every_change_is_followed_and_a_version_is_loaded_once(replica: Replica) -> None:
    write_lineup(replica.uri, Lineup(1, ONE))
    replica.standings.append(replica.follower.first())
    replica.follower.look()
    assert replica.stands() == ("1", None, 0, 1)
    for lineup, expected in (
        (Lineup(2, ONE, TWO), ("1", "2", 0, 2)),
        (Lineup(3, ONE, TWO, 0.25), ("1", "2", 0.25, 3)),
        (Lineup(4, TWO), ("2", None, 0, 4)),
    ):
        write_lineup(replica.uri, lineup)
        replica.follower.look()
        assert replica.stands() == expected
    assert len(replica.standings) == 4
    assert replica.loaded == ["1", "2"]
    assert replica.faults == []


def test_a_broken_challenger_leaves_the_champion_alone_and_is_tried_again_later(
    replica: Replica, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_lineup(replica.uri, Lineup(1, ONE))
    replica.follower.first()
    write_lineup(replica.uri, Lineup(2, ONE, BROKEN, 0.5))
    replica.follower.look()
    assert replica.stands() == ("1", None, 0, 2)
    assert replica.faults == ["9"]
    assert "features.json" in str(replica.standings[-1].fault)
    replica.follower.look()
    assert replica.loaded == ["1", "9"]
    monkeypatch.setattr(following, "RETRY_SECONDS", -1.0)
    write_lineup(replica.uri, Lineup(3, ONE, BROKEN, 0.5))
    replica.follower.look()
    replica.follower.look()
    assert replica.loaded == ["1", "9", "9", "9"]


@pytest.mark.parametrize(
    "content", [b"{", b'{"generation": 2}', b'{"generation": 2, "champion": {"version": "\xff"}}', None]
)
def test_a_broken_champion_or_line_up_changes_nothing(replica: Replica, content: bytes | None) -> None:
    write_lineup(replica.uri, Lineup(1, ONE))
    replica.follower.first()
    if content is None:
        write_lineup(replica.uri, Lineup(2, BROKEN))
    else:
        Path(replica.uri).write_bytes(content)
    replica.follower.look()
    assert replica.standings == []
    assert replica.faults == [None]
    Path(replica.uri).unlink()
    replica.follower.look()
    write_lineup(replica.uri, Lineup(5, TWO))
    replica.follower.look()
    assert replica.stands() == ("2", None, 0, 5)


def test_a_line_up_that_stays_broken_is_logged_once(replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    write_lineup(replica.uri, Lineup(1, ONE))
    replica.follower.first()
    for times in (1, 2):
        Path(replica.uri).write_text("{")
        for _ in range(3):
            replica.follower.look()
        assert caplog.text.count("the versions that answer go on") == times
        write_lineup(replica.uri, Lineup(times + 1, ONE))
        replica.follower.look()


def test_a_version_that_answers_no_more_is_let_go(room: Any, version: Any) -> None:
    here = room()
    old = version("1")
    gone = weakref.ref(old)
    here.stand(old, version("2"), 0.5)
    del old
    row = {"distance": 250.0, "passengers": 2, "zone": "north", "rain": True}
    assert here.predict(*[row] * 20).status_code == 200
    here.stand(version("3"))
    here.recorder.flush()
    gc.disable()  # by reference counts alone: what lives long is frozen
    try:
        assert gone() is None
    finally:
        gc.enable()


def test_appointing_ends_a_rollout_and_twice_is_once(tmp_path: Path) -> None:
    uri = str(tmp_path / "lineup.json")
    assert [appoint(uri, ONE), appoint(uri, ONE)] == [1, 1]
    write_lineup(uri, Lineup(2, ONE, TWO, 0.5))
    assert [appoint(uri, ONE), appoint(uri, TWO)] == [3, 4]
