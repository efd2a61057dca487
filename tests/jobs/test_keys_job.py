"""`jobs.keys` as its user runs it: a new key is shown once, and listed never."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

import jobs.keys
from app.declaration import Declaration
from app.keys import digest, read_keys

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def keys(declaration: Declaration, tmp_path: Path):
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jobs.keys", str(declaration.path), "--workspace", str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)

    return run


def test_a_key_is_made_listed_and_revoked(keys, tmp_path: Path) -> None:
    made = keys("--add", "shop", "--scopes", "labels,predict", "--expires", "90d", "--rate", "2.5")
    [secret] = made.stdout.splitlines()
    uri = str(tmp_path / "rides" / "keys.json")
    [key] = read_keys(uri)
    assert key.sha256 == digest(secret.encode()).hex()
    assert (key.name, key.scopes, key.rate) == ("shop", ("predict", "labels"), 2.5)
    assert secret not in made.stderr
    assert "rides asks for no key; see serve.keys" in made.stderr
    listed = keys("--list", "--set", "serve.keys=required")
    assert "shop" in listed.stdout
    assert "predict,labels" in listed.stdout
    assert "2.5 rows a second" in listed.stdout
    assert secret not in listed.stdout + listed.stderr
    assert listed.stderr == ""
    assert keys("--revoke", "shop").returncode == 0
    assert read_keys(uri) == ()
    again = keys("--revoke", "shop")
    assert again.returncode == 2
    assert "there is no key 'shop'; there are: none" in again.stderr


def test_a_new_key_is_no_line_of_a_log(keys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERTRUE_LOG_FORMAT", "json")
    made = keys("--add", "shop")
    [secret] = made.stdout.splitlines()
    [key] = read_keys(str(tmp_path / "rides" / "keys.json"))
    assert key.sha256 == digest(secret.encode()).hex()
    assert secret not in made.stderr
    assert "shop" in keys("--list").stderr


def test_an_unknown_scope_and_nothing_asked_are_told(keys, tmp_path: Path) -> None:
    wrong = keys("--add", "shop", "--scopes", "predict,admin")
    assert wrong.returncode == 2
    assert "found 'admin', allowed are predict, labels, read" in wrong.stderr
    for rate in ("0", "1e-320", "-1", "nan", "inf", "fast"):
        with pytest.raises(argparse.ArgumentTypeError, match=r"allowed a number of at least 0\.001"):
            jobs.keys._rate(rate)
    assert "one of the arguments --add --list --revoke is required" in keys().stderr
    assert list(tmp_path.rglob("keys.json")) == []
