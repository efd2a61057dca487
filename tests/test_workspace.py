"""Addresses lead to the right place, and a file is seen whole or not at all."""

import io
import os
import pwd
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.types import UserError
from app.workspace import ENVIRONMENT, Workspace, create_bytes, exists, join, read_bytes, resolve, write_bytes


@pytest.fixture(autouse=True)
def _no_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)


def test_the_root_is_the_argument_the_environment_or_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    assert Workspace.open().root == str(tmp_path / "workspace")
    monkeypatch.setenv(ENVIRONMENT, "elsewhere")
    assert Workspace.open().root == str(tmp_path / "elsewhere")
    assert Workspace.open("here").root == str(tmp_path / "here")
    assert Workspace.open(f"file://{tmp_path}/there").root == str(tmp_path / "there")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "here", "there", "workspace"]


def test_a_local_root_can_be_opened_again_and_keeps_its_files(tmp_path: Path) -> None:
    write_bytes(Workspace.open(str(tmp_path / "w")).uri("a", "b"), b"1")
    assert read_bytes(Workspace.open(str(tmp_path / "w") + "/").uri("a", "b")) == b"1"


def test_a_root_that_cannot_be_made_is_the_users_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match=r"workspace .*file/w' cannot be made: Not a directory"):
        Workspace.open(str(tmp_path / "file" / "w"))


@pytest.mark.parametrize("root", ["s3:bucket/x", "s3:/bucket/x", "gs:x"])
def test_a_mistyped_uri_makes_no_folder_of_that_name(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="neither a path nor a URI; allowed: a path, file:///, s3://"):
        Workspace.open(root)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("root", "below"),
    [
        ("/w", "/w/flights/data"),
        ("/w/", "/w/flights/data"),
        ("/what?/w", "/what?/w/flights/data"),
        ("s3://bucket", "s3://bucket/flights/data"),
        ("s3://bucket/w/?region=eu-west-1", "s3://bucket/w/flights/data?region=eu-west-1"),
    ],
)
def test_the_options_of_a_uri_stay_at_its_end(root: str, below: str) -> None:
    assert join(root, "flights", "data") == below
    assert join(join(root, "flights"), "data") == below
    assert Workspace(root).uri("flights", "data") == below


@given(st.lists(st.from_regex(r"[a-z0-9_-]{1,8}", fullmatch=True), min_size=1, max_size=4))
def test_an_s3_address_keeps_its_path_and_options_without_asking_the_network(parts: list[str]) -> None:
    filesystem, path = resolve(join("s3://bucket/root?region=eu-west-1", *parts))
    assert isinstance(filesystem, pafs.S3FileSystem)
    assert filesystem.region == "eu-west-1"
    assert path == "/".join(["bucket", "root", *parts])


def test_an_s3_region_may_come_from_the_environment_and_the_address_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-north-1")
    assert resolve("s3://bucket/x")[0].region == "eu-north-1"
    assert resolve("s3://bucket/x?scheme=https")[0].region == "eu-north-1"
    monkeypatch.setenv("AWS_REGION", "eu-south-1")
    assert resolve("s3://bucket/x")[0].region == "eu-south-1"
    assert resolve("s3://bucket/x?region=eu-west-3")[0].region == "eu-west-3"


@pytest.mark.parametrize(
    ("uri", "kind"),
    [
        ("s3://bucket/x?endpoint_override=127.0.0.1:9000&scheme=http", pafs.S3FileSystem),
        ("gs://anonymous@bucket/x", pafs.GcsFileSystem),
        ("abfss://container@account.dfs.core.windows.net/x", pafs.AzureFileSystem),
        ("file:///tmp/x", pafs.LocalFileSystem),
        ("x", pafs.LocalFileSystem),
    ],
)
def test_every_kind_of_address_finds_its_filesystem(uri: str, kind: type) -> None:
    assert isinstance(resolve(uri)[0], kind)


def test_a_path_is_absolute_wherever_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/someone")
    assert resolve("a/../b")[1] == str(tmp_path / "b")
    assert resolve("~/b")[1] == "/home/someone/b"
    assert resolve("file:///a%20b/c")[1] == "/a b/c"


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("ftp://host/x", "unknown scheme ftp://; allowed: a path, file:///, s3://, gs://, abfss://"),
        ("mock://x", "unknown scheme mock://"),
        ("://x", "unknown scheme"),
        ("file://x", "cannot be opened: File URI cannot be relative"),
        ("s3:///x", "cannot be opened: Missing bucket name"),
        (
            "s3://bucket/x?nonsense=1&region=x",
            "s3://bucket/x.: found option .nonsense., allowed: region, endpoint_override, scheme",
        ),
    ],
)
def test_an_address_that_leads_nowhere_is_the_users_error(uri: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        resolve(uri)


def test_a_workspace_of_an_unknown_scheme_is_refused_when_it_is_opened() -> None:
    with pytest.raises(UserError, match="workspace 'weird://x' cannot be opened: unknown scheme weird://; allowed"):
        Workspace.open("weird://x")


def test_a_workspace_nobody_may_write_to_is_refused_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0)  # as root, no folder would be so
    with pytest.raises(UserError, match="is read-only"):
        Workspace.open(str(tmp_path))


def test_a_path_that_leads_nowhere_is_the_users_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match=r"loop/w' cannot be opened: Symlink loop"):
        Workspace.open(f"{tmp_path}/loop/w")

    def unknown(_: int) -> None:  # a container may run as a user that it does not know
        raise KeyError("no such user")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(UserError, match=r"'~/evertrue' cannot be opened: Could not determine home directory"):
        Workspace.open("~/evertrue")


def test_what_was_written_is_read_whatever_its_bytes(tmp_path: Path) -> None:
    uri = str(tmp_path / "new" / "folder" / "file")
    for data in (b"", b"\x00\xff" * 1000, b"shorter"):
        write_bytes(uri, data)
        assert read_bytes(uri) == data


def test_a_missing_file_is_told_apart_from_an_empty_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_bytes(str(tmp_path / "nothing"))


def test_exists_knows_files_folders_and_nothing(tmp_path: Path) -> None:
    write_bytes(str(tmp_path / "folder" / "file"), b"")
    assert exists(str(tmp_path / "folder"))
    assert exists(f"file://{tmp_path}/folder/file")
    assert not exists(str(tmp_path / "folder" / "other"))


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_crash_at_any_step_leaves_the_old_file_whole(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = str(tmp_path / "file")
    write_bytes(uri, b"old")

    def crash(*_: object) -> None:
        with io.FileIO(uri) as stream:
            assert stream.readall() == b"old"
        raise OSError(28, "No space left on device")

    if step == "write":
        monkeypatch.setattr(Path, "open", crash)
    elif step == "fsync":
        monkeypatch.setattr(os, "fsync", crash)
    else:
        monkeypatch.setattr(Path, "replace", crash)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(uri, b"new")
    monkeypatch.undo()
    assert read_bytes(uri) == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_process_killed_before_the_last_step_leaves_the_old_file_whole(tmp_path: Path) -> None:
    uri = str(tmp_path / "file")
    write_bytes(uri, b"old")
    script = (
        "import os, pathlib, signal, sys; from app.workspace import write_bytes\n"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_bytes(sys.argv[1], b'new')"
    )
    assert subprocess.run([sys.executable, "-c", script, uri]).returncode == -signal.SIGKILL
    assert read_bytes(uri) == b"old"
    write_bytes(uri, b"newer")
    assert read_bytes(uri) == b"newer"


@pytest.mark.parametrize("write", [write_bytes, create_bytes])
def test_what_was_written_outlasts_a_power_cut_together_with_its_name(
    write: Callable[[str, bytes], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[tuple[bool, bool]] = []

    def fsync(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), (tmp_path / "file").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    write(str(tmp_path / "file"), b"1")
    assert synced == [(False, False), (True, True)]  # the bytes before they get their name, the folder after


def test_of_many_who_create_a_file_one_succeeds(tmp_path: Path) -> None:
    uri = str(tmp_path / "folder" / "file")

    def create(number: int) -> int | None:
        try:
            create_bytes(uri, str(number).encode())
        except FileExistsError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [number for number in pool.map(create, range(50)) if number is not None]
    assert [read_bytes(uri).decode()] == [str(number) for number in winners]
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["file"]


def test_a_submitted_job_keeps_its_results_outside_of_its_own_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("EVERTRUE_WORKSPACE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    assert Workspace.open().root == str(tmp_path / "workspace")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert Workspace.open().root == str(tmp_path / "home" / "evertrue")
