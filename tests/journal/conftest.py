"""Rows of a small model, a journal of its own, and a disk that dies or is full at a chosen operation."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.journal import manifests
from app.journal.rows import label_schema, prediction_schema
from app.journal.steps import Journal
from app.journal.writer import SegmentWriter

PLAN = FeaturePlan(
    number=(NumberColumn("distance"), NumberColumn("rain")),
    category=(CategoryColumn("zone", "string", ("north", "south")),),
    target=TargetColumn("late", "binary", (False, True)),
    key="ride",
    time="at",
)
Rows = Callable[..., pa.Table]


class Killed(BaseException):
    """The process ends here."""


class Disk:
    """Counts what is done to files; the n-th ends the process, or fails."""

    def __init__(self) -> None:
        self.operations = 0
        self._at: int | None = None
        self._error: OSError | None = None

    def fail_at(self, operation: int | None, error: OSError | None = None) -> None:
        """Arrange it, counting from now."""
        self.operations, self._at, self._error = 0, operation, error

    def kill_at(self, operation: int, do: Callable[[], object]) -> bool:
        """Do it, and say whether it was killed."""
        self.fail_at(operation)
        try:
            do()
        except Killed:
            return True
        finally:
            self.fail_at(None)
        return False

    def wrap(self, do: Callable[..., Any], fails: bool = True) -> Callable[..., Any]:
        """Return `do`, counted; an operation that never `fails` may still be the last of a process."""

        def counted(*args: Any, **options: Any) -> Any:
            self.operations += 1
            if self._at is not None and self._error is None and self.operations >= self._at:
                raise Killed  # and the dead do nothing more, not even tidy up
            if fails and self._error is not None and self.operations == self._at:
                raise self._error
            return do(*args, **options)

        return counted


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    """Return the disk under everything that the journal does."""
    disk = Disk()
    places = [(os, "fsync"), (os, "link"), (Path, "replace"), (manifests, "delete")]
    for owner, name in places:
        monkeypatch.setattr(owner, name, disk.wrap(getattr(owner, name)))
    monkeypatch.setattr(Path, "unlink", disk.wrap(Path.unlink, fails=False))
    yield disk
    disk.fail_at(None)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Return the address of a journal."""
    return str(tmp_path / "rides" / "journal")


@pytest.fixture
def writer(folder: str) -> SegmentWriter:
    """Return a replica's writer."""
    return SegmentWriter(folder, "a")


@pytest.fixture
def journal(folder: str) -> Journal:
    """Return the journal."""
    return Journal(folder)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merge two steps, two blocks, and so on."""
    monkeypatch.setattr(manifests, "FANOUT", 2)


@pytest.fixture
def plan() -> FeaturePlan:
    """Return the small model's plan."""
    return PLAN


@pytest.fixture(scope="session")
def predictions() -> Rows:
    """Return a function from a range of row numbers to predictions; row i happened at i seconds."""
    return _predictions


@pytest.fixture(scope="session")
def labels() -> Rows:
    """Return a function from row numbers to labels that arrive `delay` seconds after their rows."""
    return _labels


def _predictions(start: int, end: int) -> pa.Table:
    number = np.arange(start, end)
    features = {
        "distance": pa.array(number / 8, pa.float32()),
        "rain": pa.array(number % 2, pa.float32(), mask=number % 5 == 0),
        "zone": pa.array([["north", "south", None][i % 3] for i in number.tolist()]),
    }
    columns = {
        "id": pa.array([f"r{i}" for i in number.tolist()]),
        "event": pa.array(number * 1000).cast(pa.timestamp("ms", "UTC")),
        "arrival": pa.array(number * 1000).cast(pa.timestamp("ms", "UTC")),
        "version": pa.array(["1"] * len(number)),
        "role": pa.array(["champion"] * len(number)),
        "score": pa.array(number / 1000, pa.float32()),
        "shadow_version": pa.nulls(len(number), pa.string()),
        "shadow_score": pa.nulls(len(number), pa.float32()),
        "features": pa.StructArray.from_arrays(list(features.values()), names=list(features)),
    }
    return pa.table(columns, schema=prediction_schema(PLAN))


def _labels(rows: range | list[int], late: bool = True, delay: int = 60) -> pa.Table:
    moments = pa.array([(i + delay) * 1000 for i in rows], pa.timestamp("ms", "UTC"))
    columns = {"id": [f"r{i}" for i in rows], "label": [late] * len(rows), "event": moments, "arrival": moments}
    return pa.table(columns, schema=label_schema(PLAN.target))
