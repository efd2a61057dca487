"""AutoGluon on the same rows, in a virtual environment of its own that this file makes."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.data.encode import Examples
from app.types import Scores, UserError
from benchmarks.train.rows import Rows

_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "requirements-autogluon.txt"
_ENVIRONMENT = _HERE.parents[1] / ".venvs" / "bench-autogluon"


class Learned(NamedTuple):
    """Test scores, the seconds of learning, and pairs of seconds and the least validation loss known by then."""

    scores: Scores
    seconds: float
    reached: list[tuple[float, float]]


def learn(rows: Rows, seconds: int) -> Learned:
    """Let it learn for `seconds` with its medium preset.

    Raises UserError when it is left out (0 seconds), cannot be installed or fails.
    """
    if seconds == 0:
        raise UserError("left out")
    python = _install()
    with TemporaryDirectory() as name:
        folder = Path(name)
        for part, examples in {
            "train": rows.parts.train,
            "validation": rows.parts.validation,
            "test": rows.test,
        }.items():
            pq.write_table(_table(rows, examples), folder / f"{part}.parquet")
        _run([str(python), str(_HERE / "autogluon_peer.py"), str(folder), str(seconds)])
        told = json.loads((folder / "told.json").read_text())
        return Learned(np.load(folder / "scores.npy"), float(told["seconds"]), told["reached"])


def _table(rows: Rows, examples: Examples) -> pa.Table:
    """Return the encoded features as a plain table: numbers with nulls, categories as text."""
    columns = {
        column.name: pa.array(examples.features.number[:, i], from_pandas=True)
        for i, column in enumerate(rows.plan.number)
    }
    for i, column in enumerate(rows.plan.category):
        names = pa.array([None, "unseen", *(str(value) for value in column.vocabulary)])
        columns[column.name] = names.take(pa.array(examples.features.category[:, i]))
    return pa.table({**columns, rows.plan.target.name: examples.target.astype(np.int64)})


def _install() -> Path:
    python = _ENVIRONMENT / "bin" / "python"
    stamp = _ENVIRONMENT / "installed"
    wanted = hashlib.sha256(_REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
    if not (stamp.is_file() and stamp.read_text() == wanted):
        print(f"installing {_REQUIREMENTS.name} into .venvs/{_ENVIRONMENT.name}", flush=True)
        _run([sys.executable, "-m", "venv", "--clear", str(_ENVIRONMENT)])
        _run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(_REQUIREMENTS)]
        )
        stamp.write_text(wanted)
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"{' '.join(Path(part).name for part in command[:4])} failed:\n{done.stderr[-2000:]}")
