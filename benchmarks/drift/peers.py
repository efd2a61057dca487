"""What the peers say of the cases: each in its own environment, at thresholds silent in the quiet streams.

A peer hands back, for a case and a column, every new highest value of its statistic and when that was. Its threshold,
for every column and family of worlds its own, is the highest value in the quiet streams that calibrate: there
it is silent for stream-years, as ours is. No user of a peer has such streams; here they get them.
"""

import json
import os
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from app.types import UserError
from benchmarks.drift import classic
from benchmarks.drift.cases import Case
from benchmarks.drift.streams import BEGIN, DAY
from benchmarks.serve.environments import python_of

ENVIRONMENTS = ("river", "nannyml", "evidently")
BLIND = {
    "river": {"pair"},
    "nannyml": {"loss"},
    "evidently": {"pair", "loss", "missing"},
    "classic": {"pair", "loss"},
}
"""Columns that a peer cannot watch."""
DEFAULT = "ADWIN at its default"  # never silent: it takes no part in the comparison
_HERE = Path(__file__).parent
_EVIDENTLY_DAYS, _EVIDENTLY_SEEDS = 120, 3  # it takes .1 s for a column's day
_QUIETLY = {"OMP_NUM_THREADS": "1", "NML_DISABLE_USAGE_LOGGING": "1", "DO_NOT_TRACK": "1"}


@dataclass(frozen=True)
class Watched:
    """A column of a case through the eyes of one method; records are (moment in ms, statistic), both rising."""

    case: str
    column: str
    method: str
    records: list[tuple[int, float]]


def ask(peer: str, folder: Path, cases: list[Case]) -> list[Watched]:
    """Return what a peer (river, nannyml, evidently or classic: PSI and scipy's tests) says of all cases.

    Raises UserError when it cannot be installed, or fails.
    """
    todo = [_item(case, column) for case in cases for column in case.columns if column not in BLIND[peer]]
    if peer == "evidently":
        todo = [item for item in map(_shortened, todo) if item]
    if peer == "classic":
        return [
            Watched(item["case"], item["column"], method, found)
            for item in todo
            for method, found in classic.records(folder, item["home"], item["case"], item["column"]).items()
        ]
    (folder / f"{peer}.todo.json").write_text(json.dumps(todo))
    run(peer, str(folder))
    found = json.loads((folder / f"{peer}.found.json").read_text())
    return [Watched(**{**item, "records": [(at, value) for at, value in item["records"]]}) for item in found]


def run(peer: str, *arguments: str) -> str:
    """Run a peer's script in its environment and return what it prints. Raises UserError when it fails."""
    command = [str(python_of(peer, _HERE)), str(_HERE / f"{peer}_peer.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **_QUIETLY})
    if done.returncode:
        raise UserError(f"{peer} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def thresholds(cases: list[Case], watched: list[Watched]) -> dict[tuple[str, str, str], float]:
    """Return by method, family and column the highest statistic in the quiet streams that calibrate."""
    calibrating = {case.name: case.family for case in cases if case.calibrates}
    found: dict[tuple[str, str, str], float] = defaultdict(float)
    for item in watched:
        if item.case in calibrating:
            key = (item.method, calibrating[item.case], item.column)
            found[key] = max(found[key], max((value for _, value in item.records), default=0.0))
    return dict(found)


def first_alarm(item: Watched, threshold: float) -> int | None:
    """Return the moment (ms) at which the statistic passes the threshold first, or None."""
    return next((at for at, value in item.records if value > threshold), None)


def _item(case: Case, column: str) -> dict[str, object]:
    return {
        "case": case.name,
        "home": case.home,
        "column": column,
        "group": f"{case.family} {column}",
        "calibrates": case.calibrates,
        "onset": case.process.change.onset,
        "begin": BEGIN + case.reference * DAY,
    }


def _shortened(item: dict[str, object]) -> dict[str, object] | None:
    """Return the days that a slow peer is given: the first of one quiet stream, those after a change of few seeds."""
    number = int(str(item["case"]).rpartition("-")[2])
    if not item["onset"]:
        return {**item, "first": 0, "until": _EVIDENTLY_DAYS} if number == 0 else None
    day = (int(str(item["onset"])) - int(str(item["begin"]))) // DAY
    return {**item, "first": day, "until": day + 15} if number < _EVIDENTLY_SEEDS else None
