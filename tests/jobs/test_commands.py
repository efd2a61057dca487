"""Jobs as their users start them: from a shell, or submitted to a cluster with a token."""

import argparse
import importlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from app.decisions.ledger import Draft
from app.declaration import Declaration
from jobs.command import parse_name

ROOT = Path(__file__).parent.parent.parent
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if "__main__" in path.read_text())


def job(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return a function that runs a job in this process; it returns its exit code and what it said."""

    def run(name: str, *arguments: str) -> tuple[int, str, str]:
        path = str(ROOT / "jobs" / f"{name}.py")
        monkeypatch.setattr(sys, "argv", [path, *arguments])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(path, run_name="__main__")
        return int(end.value.code or 0), *capsys.readouterr()

    return run


@pytest.mark.parametrize("name", JOBS)
def test_every_job_explains_itself(name: str, ended: Callable[..., tuple[int, str, str]]) -> None:
    code, told, _ = ended(name, "--help")
    assert code == 0
    assert f"usage: python -m jobs.{name}" in told
    assert "declaration" in told


def test_a_place_where_something_else_is_is_told_in_one_line(
    ended: Callable[..., tuple[int, str, str]], declaration: Declaration, tmp_path: Path
) -> None:
    (tmp_path / "rides").write_text("no folder")
    code, _, told = ended("keys", str(declaration.path), "--workspace", str(tmp_path), "--add", "app")
    assert code == 2
    assert re.fullmatch(rf"error: {tmp_path}/rides\S*: (Not a directory|File exists)\n", told)


def test_decisions_that_never_were_are_not_called_right(
    ended: Callable[..., tuple[int, str, str]], declaration: Declaration, tmp_path: Path
) -> None:
    code, _, told = ended("monitor", str(declaration.path), "--workspace", str(tmp_path), "--verify")
    assert code == 2
    assert f"{tmp_path}/rides/ledger has no entries: no service 'rides' was ever put up there" in told


def test_a_mistake_in_the_declaration_is_one_clear_message_and_exit_code_2(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("name: broken\ntask: {target: t}\ndata: {source: x.parquet}\ntrain: {epoch: 5}\n")
    done = job("jobs.train", str(path))
    assert done.returncode == 2
    assert "broken.yaml:4" in done.stderr
    assert "did you mean epochs" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_version_that_is_not_there_is_said_before_anything_starts(declaration: Declaration, tmp_path: Path) -> None:
    done = job("jobs.deploy", str(declaration.path), "--workspace", str(tmp_path))
    assert done.returncode == 2
    assert "no champion yet" in done.stderr


@pytest.mark.parametrize("text", ["", ".", "..", "../journal", "a/b", "a b", "-a", "a" * 129])
@pytest.mark.parametrize(
    ("name", "argument"), [("train", "run"), ("tune", "run"), ("compress", "run"), ("retrain", "decision")]
)
def test_what_names_a_folder_leads_nowhere_else(
    name: str, argument: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The checkpoints of a run that has ended are deleted: `../journal` would have been the journal."""
    parser = argparse.ArgumentParser()
    importlib.import_module(f"jobs.{name}")._extend(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([f"--{argument}={text}", *(["--reason=why"] if argument == "decision" else [])])
    assert f"found {text!r}, allowed letters, digits" in capsys.readouterr().err


def test_ids_of_the_ledger_and_names_by_hand_are_taken() -> None:
    for name in ("by-hand-1", "2026.11_b", Draft("retrain", "k", 0, 0, "why").id("a" * 63)):
        assert parse_name(name) == name


@pytest.mark.ray
@pytest.mark.slow  # a real submission over HTTP with a token, as from a laptop
@pytest.mark.timeout(400)
def test_a_training_is_submitted_to_a_running_cluster_with_a_token(
    ray_session: str, declaration: Declaration, tmp_path: Path
) -> None:
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "app", folder / "app", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "jobs", folder / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    submit = [Path(sys.executable).with_name("ray"), "job", "submit", "--address", ray_session, "--working-dir", "."]
    command = ["python", "-m", "jobs.train", str(declaration.path), "--workspace", str(tmp_path / "workspace")]
    settings = ["--set", "train.epochs=1", "--set", "train.baseline=false"]

    def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in environment.items() if not name.startswith("RAY_ADDRESS")}
        return subprocess.run(
            [*submit, "--", *command, *settings],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
            timeout=300,
        )

    done = run(dict(os.environ))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "version 1:" in done.stdout
    assert "the gate" in done.stdout
    assert list((tmp_path / "workspace" / "rides" / "bundles").glob("*/manifest.json"))

    stranger = run({**os.environ, "RAY_AUTH_TOKEN": "0" * 64})
    assert stranger.returncode != 0
    assert "version 1" not in stranger.stdout
