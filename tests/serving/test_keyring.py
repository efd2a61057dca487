"""A replica's keys are those of the file, at the next look; what cannot be read takes no good key away."""

from pathlib import Path

import pytest

from app.keys import add_key, read_keys, revoke_key
from app.serving import keyring as following
from app.serving import looking
from app.serving.keyring import Keyring
from app.types import UserError


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "keys.json")


def names(keyring: Keyring, uri: str) -> list[str]:
    hashes = {bytes.fromhex(key.sha256): key.name for key in read_keys(uri)}
    return [hashes.get(known.digest, "gone") for known in keyring.known]


def test_every_change_is_followed_and_a_file_that_stays_is_not_read_again(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keyring = Keyring(uri)
    keyring.first()
    assert keyring.known == ()
    add_key(uri, "one", ("predict",))
    keyring.look()
    add_key(uri, "two", ("predict",))
    keyring.look()
    assert names(keyring, uri) == ["one", "two"]
    revoke_key(uri, "one")
    keyring.look()
    assert names(keyring, uri) == ["two"]
    monkeypatch.setattr(following, "read_keys", lambda *_: pytest.fail("was read again"))
    keyring.look()


@pytest.mark.parametrize("content", [b"{", b'{"keys": [{"name": "\xff"}]}'])
def test_a_file_that_is_none_leaves_the_keys_and_one_that_is_gone_takes_them(uri: str, content: bytes) -> None:
    add_key(uri, "one", ("predict",))
    keyring = Keyring(uri)
    keyring.first()
    good = Path(uri).read_bytes()
    Path(uri).write_bytes(content)
    keyring.look()
    assert len(keyring.known) == 1
    Path(uri).unlink()
    keyring.look()
    assert keyring.known == ()
    Path(uri).write_bytes(good)
    keyring.look()
    assert names(keyring, uri) == ["one"]


def test_a_file_that_stays_broken_is_logged_once(uri: str, caplog: pytest.LogCaptureFixture) -> None:
    add_key(uri, "one", ("predict",))
    keyring = Keyring(uri)
    keyring.first()
    good = Path(uri).read_bytes()
    for times in (1, 2):
        Path(uri).write_text("{")
        for _ in range(3):
            keyring.look()
        assert caplog.text.count("the keys last read stay good") == times
        Path(uri).write_bytes(good)
        keyring.look()


def test_a_replica_does_not_start_with_keys_it_cannot_read(uri: str) -> None:
    Path(uri).write_text("{")
    with pytest.raises(UserError, match="holds no keys"):
        Keyring(uri).first()


def test_its_thread_follows_until_it_is_closed(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "SECONDS", 0.001)
    keyring = Keyring(uri)
    keyring.first()
    keyring.start()
    add_key(uri, "one", ("predict",))
    while not keyring.known:  # the session's timeout bounds it
        pass
    keyring.close()
    revoke_key(uri, "one")
    assert len(keyring.known) == 1
