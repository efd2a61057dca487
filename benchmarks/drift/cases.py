"""Which streams are watched: the quiet ones, and those in which something changes at a known moment.

A case is drawn once and kept in two files: `<name>.npz` with the rows of the columns that peers watch, and
`<name>.counts.npz` with what a replica would count of all columns, hour by hour.
"""

import functools
import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import app.monitor
from app.data.encode import Examples
from app.data.loss import row_loss
from app.monitor.binning import Binning
from app.monitor.profile import Reference
from app.spec import Drift
from app.types import Features
from benchmarks.drift.streams import (
    BEGIN,
    CATEGORY,
    DAY,
    HOUR,
    NULLED,
    PAIR,
    PLAIN,
    SEASONAL,
    TARGET,
    Change,
    Day,
    Process,
    World,
    plan,
)

VALIDATION = 15  # days of a reference that the model did not learn from
FOLLOWED = 30  # days after a change within which it has to be found

_MONITOR = Path(app.monitor.__file__).parent
_LEARNING = {"binning", "directions", "profile", "wobble"}

FAMILIES: dict[str, dict[str, float]] = {
    "usual": {"correlation": 0.5, "wobble": 0.03, "unequal": 0.1},
    "unequal": {"correlation": 0.5, "wobble": 0.03, "unequal": 0.5},
    "wobbly": {"correlation": 0.8, "wobble": 0.06, "unequal": 0.1},
}
"""Worlds that things change in; peers' thresholds are set in other streams of the same family."""


@dataclass(frozen=True)
class Scenario:
    """A change, the family of worlds it happens in, and the column that peers watch for it (none: they cannot)."""

    title: str
    change: Change
    column: str | None
    family: str = "usual"


SCENARIOS = {
    "mean.1": Scenario("mean +.1 sigma", Change("mean", PLAIN, 0.1), "plain"),
    "mean.25": Scenario("mean +.25 sigma", Change("mean", PLAIN, 0.25), "plain"),
    "mean.5": Scenario("mean +.5 sigma", Change("mean", PLAIN, 0.5), "plain"),
    "scale": Scenario("scale x 1.3", Change("scale", PLAIN, 1.3), "plain"),
    "seasonal": Scenario("mean +.25 sigma, seasonal", Change("mean", SEASONAL, 0.25), "seasonal"),
    "unequal": Scenario("mean +.25 sigma, unequal days", Change("mean", PLAIN, 0.25), "plain", "unequal"),
    "wobbly": Scenario("mean +.5 sigma, wobbly days", Change("mean", PLAIN, 0.5), "plain", "wobbly"),
    "category": Scenario("new category, 1 %", Change("category", CATEGORY, 0.01), "category"),
    "nulls": Scenario("nulls 3 to 8 %", Change("nulls", NULLED, 0.08), "missing"),
    "correlation": Scenario("correlation .6 to 0", Change("correlation", PAIR[1]), "pair"),
    "concept": Scenario("concept (labels only)", Change("concept", PLAIN, 1.0), "loss"),
}
COLUMNS = ("plain", "seasonal", "category", "missing", "loss", "pair")


@dataclass(frozen=True)
class Case:
    """One stream: `reference` days to learn from, then `days` to watch."""

    name: str
    family: str
    process: Process
    reference: int
    days: int
    columns: tuple[str, ...]
    calibrates: bool = False  # peers' thresholds are set on it

    @property
    def home(self) -> str:
        """Name of the files with the reference days, which cases of one world share."""
        return f"reference-{self.family}-{self.process.seed}"


def quiet(year: int, small: bool) -> list[Case]:
    """Return streams in which nothing changes: those that set thresholds, then a grid over wobble and volume."""
    found = []
    for family, number, held_out in (("usual", 6, 2), ("unequal", 3, 1), ("wobbly", 3, 1)):
        for i in range(1 if small else number + held_out):
            process = Process(1_000 + 100 * list(FAMILIES).index(family) + i, **FAMILIES[family])
            found.append(Case(f"quiet-{family}-{i}", family, process, 90, year, COLUMNS, small or i < number))
    grid = itertools.product((0.0, 0.3, 0.5, 0.8), (0.015, 0.03, 0.06))
    for i, (correlation, wobble) in enumerate(grid):
        process = Process(2_000 + i, correlation, wobble, (0.1, 0.5)[i % 2])
        found.append(Case(f"grid-{correlation}-{wobble}", "grid", process, (60, 75, 90)[i // 4], year, ()))
    return found[:3] + found[-1:] if small else found


def changing(seeds: int) -> list[Case]:
    """Return streams with a change at a random moment of their second week."""
    found = []
    for name, scenario in SCENARIOS.items():
        for seed in range(seeds):
            world = Process(3_000 + 100 * list(FAMILIES).index(scenario.family) + seed, **FAMILIES[scenario.family])
            days = np.random.default_rng(seed).uniform(6, 13)
            onset = BEGIN + 90 * DAY + int(days * DAY)
            change = Change(scenario.change.kind, scenario.change.column, scenario.change.size, onset)
            columns = (scenario.column,) if scenario.column else ()
            found.append(
                Case(f"{name}-{seed}", scenario.family, world.changed(change), 90, int(days) + 1 + FOLLOWED, columns)
            )
    return found


@dataclass(frozen=True)
class Counted:
    """What our detectors are told of a case."""

    start: npt.NDArray[np.int64]  # (h,) of the hours, ms
    counts: npt.NDArray[np.uint32]  # (h, W, bins + 2)
    time: npt.NDArray[np.int64]  # (n,) of the labelled rows
    loss: npt.NDArray[np.float32]  # (n,)


class Store:
    """Cases on disk, drawn when they are asked for the first time; other code draws other ones."""

    def __init__(self, home: Path) -> None:
        code = b"".join((Path(__file__).parent / name).read_bytes() for name in ("streams.py", "cases.py"))
        self.folder = home / hashlib.sha256(code).hexdigest()[:8]
        self.folder.mkdir(parents=True, exist_ok=True)

    def reference(self, case: Case) -> tuple[Reference, float]:
        """Return the reference of the days before the case, and the validation rows' mean loss."""
        rows, learned = self.folder / f"{case.home}.npz", self.folder / f"{case.home}.{version()}.bin"
        if not learned.exists() or not rows.exists():
            self._learn(case, rows, learned)
        return Reference.from_bytes(learned.read_bytes()), float(np.load(rows)["mean_loss"])

    def counted(self, case: Case) -> Counted:
        """Return the case as our detectors see it."""
        path = self.folder / f"{case.name}.counts.npz"
        if not path.exists():
            self._draw(case, self.reference(case)[0].binning)
        return Counted(**np.load(path))

    def _learn(self, case: Case, rows: Path, learned: Path) -> None:
        days = list(World(case.process.changed(Change())).days(0, case.reference))
        fitting = _joined(days[: case.reference - VALIDATION])
        held_out = _joined(days[case.reference - VALIDATION :])
        reference = Reference.of(
            plan(fitting.features), Drift(), _examples(fitting), _examples(held_out), held_out.score
        )
        loss = row_loss(TARGET, held_out.score, held_out.label)
        learned.write_bytes(reference.to_bytes())
        _save(rows, **_columns(_joined(days), COLUMNS), mean_loss=loss.mean())

    def _draw(self, case: Case, binning: Binning) -> None:
        rows: list[dict[str, Any]] = []
        start, counts = [], []
        for day in World(case.process).days(case.reference, case.reference + case.days):
            rows.append(_columns(day, {*case.columns, "loss"}))
            first = int(day.time[0]) // DAY * DAY
            start.append(first + np.arange(24) * HOUR)
            counts.append(hourly(binning, day))
        table = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
        if case.columns:
            _save(self.folder / f"{case.name}.npz", **table)
        _save(
            self.folder / f"{case.name}.counts.npz",
            start=np.concatenate(start),
            counts=np.concatenate(counts),
            time=table["time"],
            loss=table["loss"],
        )


@functools.cache
def version() -> str:
    """Return a digest of the code that our results rest on: what another code said counts no longer."""
    sources = sorted([*_MONITOR.glob("*.py"), *(_MONITOR / "detectors").glob("*.py")])
    kept = [path for path in sources if path.parent.name == "detectors" or path.stem in _LEARNING]
    return hashlib.sha256(b"".join(path.read_bytes() for path in kept)).hexdigest()[:8]


def hourly(binning: Binning, day: Day) -> npt.NDArray[np.uint16]:
    """Return the counts (24, W, bins + 2) of a day's hours."""
    return binning.count_groups(day.features, day.score, day.time % DAY // HOUR, 24).astype(np.uint16)


def _joined(days: list[Day]) -> Day:
    number = np.concatenate([day.features.number for day in days])
    category = np.concatenate([day.features.category for day in days])
    time, score, label = (np.concatenate([getattr(day, name) for day in days]) for name in ("time", "score", "label"))
    return Day(time, Features(number, category), score, label)


def _examples(rows: Day) -> Examples:
    return Examples(rows.features, rows.label, rows.time, np.arange(len(rows.time)))


def _columns(rows: Day, names: set[str] | tuple[str, ...]) -> dict[str, npt.NDArray[Any]]:
    number = rows.features.number
    found: dict[str, npt.NDArray[Any]] = {"time": rows.time}
    if "plain" in names:
        found["plain"] = number[:, PLAIN]
    if "seasonal" in names:
        found["seasonal"] = number[:, SEASONAL]
    if "missing" in names:
        found["missing"] = number[:, NULLED]
    if "category" in names:
        found["category"] = rows.features.category[:, CATEGORY].astype(np.uint8)
    if "pair" in names:
        found["pair"] = number[:, list(PAIR)]
    if "loss" in names:
        found["loss"] = row_loss(TARGET, rows.score, rows.label).astype(np.float32)
    return found


def _save(path: Path, **arrays: npt.NDArray[Any] | float) -> None:
    """Write all or nothing: a run may end at any time, and the next goes on from the files that are there."""
    draft = path.with_suffix(".draft.npz")
    np.savez(draft, **arrays)
    draft.rename(path)
