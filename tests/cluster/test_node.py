"""What runs on a node of `ray up`: its settings are those of app.cluster, and its setup does what it says."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from app.cluster import settings

ROOT = Path(__file__).parents[2]
ENVIRONMENT = ROOT / "cluster/kuberay/base/ray.env"
STUB = """#!/bin/sh
echo "$(basename "$0") $*" >>~/calls
case "$(basename "$0") $1" in "uv venv") mkdir -p venv/bin && touch venv/bin/python && chmod +x venv/bin/python ;; esac
"""
INSTALLER = """#!/bin/sh
echo "curl $*" >>~/calls
echo 'mkdir -p "$UV_INSTALL_DIR" && cp ~/stub "$UV_INSTALL_DIR/uv"'
"""


def variables(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return dict(line.split("=", 1) for line in lines)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a node's home as `ray up` leaves it before setup, with stubs for what would reach the network."""
    node = tmp_path / "evertrue"
    node.mkdir()
    for source in ("cluster/node/environment.sh", "cluster/node/setup.sh", "requirements.lock"):
        shutil.copy(ROOT / source, node)
    shutil.copy(ENVIRONMENT, node)
    (node / "evertrue-0.1.0-py3-none-any.whl").touch()
    (tmp_path / ".ray").mkdir(mode=0o755)
    (tmp_path / ".ray/auth_token").write_text("secret")
    (tmp_path / ".ray/auth_token").chmod(0o644)
    (tmp_path / ".bashrc").touch()
    (tmp_path / "stub").write_text(STUB)
    (tmp_path / "stub").chmod(0o755)
    (tmp_path / "programs").mkdir()
    (tmp_path / "programs/curl").write_text(INSTALLER)
    (tmp_path / "programs/curl").chmod(0o755)
    return tmp_path


def run(home: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {"HOME": str(home), "PATH": f"{home}/programs:/usr/bin:/bin"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60)


def set_up(home: Path, *more: str) -> list[str]:
    run(home, "bash", f"{home}/evertrue/setup.sh", "s3://bucket/evertrue", "http://mlflow:5000", *more)
    return (home / "calls").read_text().splitlines()


def test_the_nodes_have_the_settings_that_a_cluster_on_this_machine_has(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("RAY_", "OMP_"))]:
        monkeypatch.delenv(name)
    chosen = settings(Path("/tmp/evertrue"), local=False)
    assert variables(ENVIRONMENT.read_text()) == {"RAY_AUTH_MODE": "token", **chosen}


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_every_shell_of_a_node_gets_the_settings_as_they_stand(home: Path, shell: str) -> None:
    (home / "evertrue/place.env").write_text("EVERTRUE_WORKSPACE=s3://bucket/a b?c=d\n")
    told = run(home, shell, "-c", ". ~/evertrue/environment.sh; env -0").stdout
    found = dict(line.split("=", 1) for line in told.split("\0") if line)
    expected = variables(ENVIRONMENT.read_text()) | {"EVERTRUE_WORKSPACE": "s3://bucket/a b?c=d"}
    assert {name: found.get(name) for name in expected} == expected
    assert found["PATH"].startswith(f"{home}/evertrue/venv/bin:")


def test_setup_closes_the_token_and_installs_the_wheel_in_the_versions_that_were_tested(home: Path) -> None:
    calls = set_up(home, "boto3==1.44.5")
    assert (home / ".ray/auth_token").stat().st_mode & 0o777 == 0o600
    assert (home / ".ray").stat().st_mode & 0o777 == 0o700
    assert (home / "evertrue").stat().st_mode & 0o777 == 0o700  # where the head's state will be
    assert calls[0].split()[:3] == ["curl", "--proto", "=https"]
    assert calls[1] == "uv venv --quiet --python 3.11 venv"
    install = "uv pip install --quiet --python venv/bin/python --constraint requirements.lock"
    assert calls[2] == f"{install} --torch-backend auto ./evertrue-0.1.0-py3-none-any.whl boto3==1.44.5"
    assert len(calls) == 3
    place = variables((home / "evertrue/place.env").read_text())
    assert place == {"EVERTRUE_WORKSPACE": "s3://bucket/evertrue", "MLFLOW_TRACKING_URI": "http://mlflow:5000"}


def test_a_node_with_a_gpu_answers_on_it(home: Path) -> None:
    shutil.copy(home / "stub", home / "programs/nvidia-smi")
    *_, uninstall, install = set_up(home)
    assert uninstall.startswith("uv pip uninstall ")
    assert uninstall.endswith(" onnxruntime")  # both write into one folder
    assert "--reinstall-package onnxruntime-gpu onnxruntime-gpu==" in install


def test_setup_can_be_repeated(home: Path) -> None:
    set_up(home)
    first = len((home / "calls").read_text().splitlines())
    set_up(home)
    again = (home / "calls").read_text().splitlines()[first:]
    assert [call.split()[:2] for call in again] == [["uv", "pip"]]  # which does nothing where all is there
    assert (home / ".bashrc").read_text() == ". ~/evertrue/environment.sh\n"
