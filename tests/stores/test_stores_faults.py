"""A wrong address, wrong credentials, a missing bucket: one line that says what was found, and what is allowed."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest

from app.types import UserError
from app.workspace import PROMPT, Workspace, mark, name_of, read_bytes, resolve, write_bytes

Place = Callable[..., str]
SECRETS = {"s3": "AWS_SECRET_ACCESS_KEY", "abfss": "AZURE_STORAGE_ACCOUNT_KEY"}
WRONG = "d3JvbmdzZWNyZXQ="


@pytest.mark.parametrize("cloud", ["s3", "abfss"])
def test_a_wrong_secret_is_the_users_error_and_is_not_repeated(
    cloud: str, place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Workspace.open(place(cloud))
    right = os.environ[SECRETS[cloud]]
    monkeypatch.setenv(SECRETS[cloud], WRONG)
    with pytest.raises(UserError, match=r"refuses the credentials \(403 \w+\); allowed: \$A") as found:
        Workspace.open(place(cloud))
    with pytest.raises(OSError, match="refuses the credentials") as also:
        write_bytes(f"{Workspace(place(cloud)).uri('x')}", b"1")
    for said in (str(found.value), str(also.value), *caplog.messages):
        assert "\n" not in said
        assert WRONG not in said
        assert right not in said
    assert also.value.__suppress_context__  # nor does a traceback show what the client said


@pytest.mark.parametrize("cloud", ["s3", "gs", "abfss"])
def test_a_missing_bucket_is_the_users_error(cloud: str, place: Place) -> None:
    with pytest.raises(UserError, match=r"has no (bucket|container) 'not-there'; make it first, or name another$"):
        Workspace.open(place(cloud, bucket="not-there"))
    if cloud != "gs":  # the fake of Google's calls any missing object the same
        with pytest.raises(OSError, match=r"has no (bucket|container) 'not-there'") as found:
            read_bytes(Workspace(place(cloud, bucket="not-there")).uri("x"))
        assert not isinstance(found.value, FileNotFoundError)


@pytest.mark.usefixtures("credentials")
def test_an_endpoint_that_nobody_listens_at_is_the_users_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.workspace.root.PROMPT", 0.5)
    with pytest.raises(UserError, match=r"workspace 's3://b/w' .*127\.0\.0\.1:1, .* cannot be reached: "):
        Workspace.open("s3://b/w?endpoint_override=127.0.0.1:1&scheme=http")


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(
    ("root", "said"),
    [
        ("s3://b/w?secret_key=hidden", r"'s3://b/w': found option 'secret_key', allowed: region, endpoint_override"),
        ("gs://b/w?region=x", r"found option 'region', allowed: endpoint_override, scheme"),
        ("s3://b/w?scheme=ftp", r"found scheme 'ftp', allowed: http, https"),
        ("s3://me:hidden@b/w", r"'s3://\*\*\*@b/w' holds a credential, which would be logged; allowed: \$AWS_ACCESS"),
        ("gs://hidden@b/w", r"holds a credential, which would be logged; allowed: \$GOOGLE_APPLICATION_CREDENTIALS"),
        ("abfss://c:hidden@account/w", r"'abfss://\*\*\*@account/w' holds a credential"),
        ("abfss://account/w", r"names no container; allowed: abfss://container@account/folder"),
        ("s3:///w", r"cannot be opened: Missing bucket name; allowed: s3://bucket/folder"),
    ],
)
def test_an_address_that_is_none_says_what_is_allowed(root: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as found:
        Workspace.open(root)
    assert "hidden" not in str(found.value).replace("'gs://hidden@b/w'", "")


def test_a_machine_without_credentials_is_told_where_they_come_from(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = place("s3")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("app.workspace.root.PROMPT", 0.5)
    with pytest.raises(UserError, match=r"no credentials are found for s3://.*; allowed: \$AWS_ACCESS_KEY_ID"):
        Workspace.open(root)


def test_a_job_ends_with_one_line_and_without_the_secret(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRONG)
    script = "import sys, logging; logging.basicConfig(level=0)\nfrom app.workspace import Workspace\n"
    script += (
        "from app.types import UserError\ntry: Workspace.open(sys.argv[1])\nexcept UserError as e: sys.exit(str(e))"
    )
    done = subprocess.run([sys.executable, "-c", script, place("s3")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "SignatureDoesNotMatch" in done.stderr
    assert WRONG not in done.stderr


def test_the_endpoint_may_come_from_the_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    root = place("s3")
    plain, _, options = root.partition("?")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{options.split('=')[1].partition('&')[0]}")
    workspace = Workspace.open(plain)
    write_bytes(workspace.uri("x"), b"1")
    assert read_bytes(Workspace(root).uri("x")) == b"1"
    filesystem, path = resolve(workspace.uri("x"))
    assert filesystem.open_input_file(path).readall() == b"1"


def test_googles_endpoint_may_come_from_the_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, _, options = place("gs").partition("?")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", options.split("=")[1].partition("&")[0])
    assert mark(Workspace.open(plain).uri("nothing")) is None


def test_new_credentials_are_taken_without_a_restart(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    uri, right = Workspace(place("s3")).uri("x"), os.environ["AWS_SECRET_ACCESS_KEY"]
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", WRONG)
    with pytest.raises(OSError, match="refuses"):
        write_bytes(uri, b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", right)
    write_bytes(uri, b"1", PROMPT)


def test_an_addresss_name_has_no_options() -> None:
    assert name_of("s3://b/w/0a1b?region=x") == name_of("/w/0a1b") == name_of("gs://b/0a1b/") == "0a1b"
    assert name_of("/w/what?") == "what?"


def test_nothing_is_logged_of_a_store_that_answers(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    uri = Workspace(place("s3")).uri("x")
    caplog.clear()  # of the server's start
    write_bytes(uri, b"1")
    assert [line for line in caplog.records if line.thread == threading.get_ident()] == []
