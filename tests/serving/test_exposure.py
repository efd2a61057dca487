"""Whoever puts a service up hears who may ask it, before anybody does."""

import socket
from pathlib import Path

import pytest

from app.keys import add_key
from app.serving.deploy import check_free, exposure
from app.spec import Serve, Tls
from app.types import UserError

TLS = Tls(certificate="/tls.crt", key="/tls.key")


@pytest.mark.parametrize(
    ("serving", "warned"),
    [
        (Serve(), []),
        (Serve(host="0.0.0.0"), ["requests need a key, and there is none yet", "0.0.0.0:8000 speaks plain HTTP"]),
        (Serve(host="0.0.0.0", tls=TLS), ["requests need a key, and there is none yet"]),
        (Serve(keys="required"), ["requests need a key, and there is none yet"]),
        (
            Serve(host="0.0.0.0", keys="none"),
            ["whoever reaches 0.0.0.0:8000 may ask, read and, by its labels, teach", "speaks plain HTTP"],
        ),
    ],
)
def test_what_leaves_the_door_open_or_nobody_in_is_said(serving: Serve, warned: list[str], tmp_path: Path) -> None:
    said = list(exposure(serving, str(tmp_path / "keys.json")))
    assert len(said) == len(warned)
    assert all(words in line for words, line in zip(warned, said, strict=True))


def test_with_a_key_there_is_nothing_to_say_and_a_file_of_no_keys_is_a_mistake(tmp_path: Path) -> None:
    uri = str(tmp_path / "keys.json")
    add_key(uri, "app", ("predict",))
    assert list(exposure(Serve(keys="required"), uri)) == []
    Path(uri).write_text("[]")
    with pytest.raises(UserError, match="holds no keys"):
        list(exposure(Serve(keys="required"), uri))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_an_address_is_free_until_somebody_listens_there(host: str) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind((host, 0))
        port = other.getsockname()[1]
        check_free(Serve(host=host, port=port))
        other.listen()
        with pytest.raises(UserError, match="cannot be listened on: Address already in use"):
            check_free(Serve(host=host, port=port))


def test_an_address_of_another_machine_is_told() -> None:
    with pytest.raises(UserError, match=r"192\.0\.2\.1:8000 cannot be listened on"):
        check_free(Serve(host="192.0.2.1"))
