"""Keys are made once, kept as hashes alone, and end when they are revoked."""

import datetime as dt
import hashlib
import json
from pathlib import Path

import pytest

from app.keys import add_key, read_keys, revoke_key
from app.types import UserError


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "rides" / "keys.json")


def test_a_key_is_long_never_the_same_and_nowhere_but_in_the_hands_of_who_made_it(uri: str) -> None:
    kept, one = add_key(uri, "one", ("predict",))
    _, other = add_key(uri, "other", ("predict", "labels"))
    assert one != other
    assert len(one) == len("evt_") + 43  # 256 bits
    text = Path(uri).read_text()
    assert one not in text
    assert other not in text
    assert kept.sha256 == hashlib.sha256(one.encode()).hexdigest()
    assert [key.name for key in read_keys(uri)] == ["one", "other"]


def test_an_expiring_key_says_until_when(uri: str) -> None:
    kept, _ = add_key(uri, "brief", ("read",), dt.timedelta(days=90))
    assert kept.expires == kept.created + dt.timedelta(days=90)
    assert read_keys(uri) == (kept,)
    with pytest.raises(UserError, match="beyond the calendar"):
        add_key(uri, "endless", ("read",), dt.timedelta(days=999_999_999))


def test_a_revoked_key_is_gone_and_its_name_is_free_again(uri: str) -> None:
    add_key(uri, "one", ("predict",))
    kept, _ = add_key(uri, "other", ("predict",))
    revoke_key(uri, "one")
    assert read_keys(uri) == (kept,)
    with pytest.raises(UserError, match="no key 'one'; there are: other"):
        revoke_key(uri, "one")
    add_key(uri, "one", ("labels",))


def test_where_there_is_no_file_there_is_no_key(uri: str) -> None:
    assert read_keys(uri) == ()


@pytest.mark.parametrize("name", ["", "-a", "a b", "a\n", "a" * 65, "ä", "../a"])
def test_what_is_no_name_is_refused(uri: str, name: str) -> None:
    with pytest.raises(UserError, match="name of a key"):
        add_key(uri, name, ("predict",))


def test_a_name_is_given_once(uri: str) -> None:
    add_key(uri, "one", ("predict",))
    with pytest.raises(UserError, match="'one' is there already"):
        add_key(uri, "one", ("labels",))


GOOD = {"name": "one", "sha256": "0" * 64, "scopes": ["predict"], "created": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        json.dumps({"keys": [GOOD | {"scopes": ["admin"]}]}),
        json.dumps({"keys": [GOOD | {"sha256": "evt_secret"}]}),
        json.dumps({"keys": [GOOD | {"created": "2026-01-01T00:00:00"}]}),
        json.dumps({"keys": [GOOD | {"expires": "soon"}]}),
        json.dumps({"keys": [GOOD | {"rate": 0}]}),
    ],
)
def test_a_file_that_holds_no_keys_is_refused_and_stays_as_it_was(uri: str, content: str) -> None:
    Path(uri).parent.mkdir()
    Path(uri).write_text(content)
    with pytest.raises(UserError, match=r"keys\.json holds no keys"):
        add_key(uri, "two", ("predict",))
    assert Path(uri).read_text() == content
