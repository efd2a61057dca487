"""A small service to watch: traffic with a day and a night, a reference of its first weeks, and the journal's steps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
import pytest

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.journal.rows import PROFILES, Step, label_schema, prediction_schema
from app.monitor.findings import Subject
from app.monitor.profile import Reference
from app.spec import Drift, Spec

HOUR, DAY = 3_600_000, 86_400_000
START = 1_704_067_200_000  # 2024-01-01, a Monday
NUMBERS = ("temp", "distance", "amount", "rate", "rain")
CODES = tuple(f"{a}{b}" for a in "ABCD" for b in "XYZ")

Rows = pl.DataFrame


@dataclass(frozen=True)
class World:
    """Hours of traffic, and what a replica would have journaled of them."""

    plan: FeaturePlan
    reference: Reference
    loss: float

    @staticmethod
    def rows(first: int, hours: int, an_hour: int = 60, seed: int = 1, warmer: float = 0.0) -> Rows:
        """Return traffic from hour `first` on: columns id, event, features, late."""
        random = np.random.default_rng([seed, first])
        size = hours * an_hour
        event = START + first * HOUR + np.sort(random.integers(0, hours * HOUR, size))
        day, of_day = event // DAY, (event % DAY) / DAY
        wander = np.random.default_rng(5).normal(0, 3, 2000)[day - START // DAY]
        temp = 40 + warmer + wander - 8 * np.cos(2 * np.pi * of_day) + random.normal(0, 2, size)
        routes = np.random.default_rng(6).gamma(2, 400, 40).round() + 90
        rain = np.where(random.random(size) < 0.1, random.gamma(1, 2, size), 0.0)
        logit = (temp - 40) / 10 + 0.8 * (rain > 0) - 1
        return pl.DataFrame(
            {
                "id": [f"{seed}-{moment}-{i}" for i, moment in enumerate(event.tolist())],
                "event": event,
                "temp": temp,
                "distance": random.choice(routes, size),
                "amount": random.lognormal(3, 1, size),
                "rate": np.where(random.random(size) < 0.03, np.nan, random.normal(1000, 8, size)),
                "rain": rain,
                "carrier": random.choice(CODES, size, p=np.array(range(12, 0, -1)) / 78),
                "late": random.random(size) < 1 / (1 + np.exp(-logit)),
            }
        )

    @staticmethod
    def score(rows: Rows) -> npt.NDArray[np.float32]:
        """Answer as a good model would."""
        rain = rows["rain"].fill_null(0).to_numpy() > 0 if "rain" in rows.columns else 0
        logit = (rows["temp"].fill_null(40).fill_nan(40).to_numpy() - 40) / 10 + 0.8 * rain - 1
        return (1 / (1 + np.exp(-np.clip(logit, -30, 30)))).astype(np.float32)

    @staticmethod
    def of(rows: Rows, numbers: Sequence[str], categories: Sequence[str]) -> "World":
        """Learn what is usual from rows in order of time."""
        present = [rows[name].drop_nulls().drop_nans() for name in numbers]
        plan = FeaturePlan(
            number=tuple(
                NumberColumn(
                    name,
                    mean=float(values.mean()),
                    std=float(values.std()),
                    nulls=1 - len(values) / len(rows),
                    quantiles=tuple(np.quantile(values.to_numpy(), np.linspace(0, 1, 257)).tolist()),
                )
                for name, values in zip(numbers, present, strict=True)
            ),
            category=tuple(
                CategoryColumn(
                    name,
                    "string",
                    tuple(rows[name].drop_nulls().alias("x").value_counts().sort("count", "x")[::-1]["x"]),
                )
                for name in categories
            ),
            target=TargetColumn("late", "binary", (False, True)),
            time="event",
        )
        score = World.score(rows)
        cut = len(rows) * 3 // 4
        every = Examples(
            plan.encode(rows.to_arrow()),
            rows["late"].cast(pl.Float32).to_numpy(),
            rows["event"].to_numpy(),
            np.arange(len(rows)),
        )

        def part(rows: slice) -> Examples:
            return Examples(every.features.rows(rows), every.target[rows], every.time[rows], every.position[rows])

        reference = Reference.of(plan, Drift(), part(slice(cut)), part(slice(cut, None)), score[cut:])
        chosen = np.where(every.target == 1, score, 1 - score)
        return World(plan, reference, float(-np.log(chosen).mean()))

    def subject(self, version: str) -> Subject:
        """Return any version: they all learned from the same rows."""
        return Subject(version, self.reference, self.plan, self.loss)

    def step(
        self,
        number: int,
        rows: Rows,
        version: str = "1",
        role: str = "champion",
        labels: Rows | None = None,
        arrival: npt.NDArray[np.int64] | None = None,
        shadow: str | None = None,
        count: bool = True,
    ) -> Step:
        """Return the step that journals rows as answered by a version, and labels of rows."""
        arrival = rows["event"].to_numpy() if arrival is None else arrival
        score = self.score(rows)
        features = [field.name for field in prediction_schema(self.plan).field("features").type]
        predictions = pa.table(
            {
                "id": rows["id"].to_arrow(),
                "event": rows["event"].to_arrow(),
                "arrival": arrival,
                "version": [version] * len(rows),
                "role": [role] * len(rows),
                "score": score,
                "shadow_version": pa.array([shadow] * len(rows), pa.string()),
                "shadow_score": pa.array(score * 0.9 if shadow else [None] * len(rows), pa.float32()),
                "features": rows.select(pl.struct(features).alias("features"))["features"].to_arrow(),
            }
        ).cast(prediction_schema(self.plan))
        told = rows.clear() if labels is None else labels
        label = pa.table(
            {
                "id": told["id"].to_arrow(),
                "label": told["late"].to_arrow(),
                "event": told["event"].to_arrow(),
                "arrival": told["event"].to_arrow(),
            }
        ).cast(label_schema(self.plan.target))
        profiles = self.profiles(rows, version, role) if count else PROFILES.empty_table()
        return Step(number, predictions, label, profiles)

    def profiles(self, rows: Rows, version: str, role: str, replica: str = "r1") -> pa.Table:
        """Count rows as a replica does."""
        found = []
        hours = rows["event"].to_numpy() // HOUR * HOUR
        for hour in np.unique(hours).tolist():
            chosen = rows.filter(pl.Series(hours == hour))
            counts = self.reference.binning.count(self.plan.encode(chosen.to_arrow()), self.score(chosen))
            found.append(
                {
                    "version": version,
                    "role": role,
                    "reference": "bundle",
                    "window": hour,
                    "replica": replica,
                    "rows": len(chosen),
                    "counts": counts.astype("<u4").tobytes(),
                    "calls": 1,
                    "errors": 0,
                    "not_finite": 0,
                    "seconds": [1, 0, 0],
                }
            )
        return pa.Table.from_pylist(found, PROFILES)

    def steps(self, rows: Rows, hours: int = 6, first: int = 1, delay: int = 3, version: str = "1") -> Iterator[Step]:
        """Yield rows as steps of some hours each; labels come `delay` hours after their row."""
        start = int(rows["event"][0]) // HOUR * HOUR
        piece = (rows["event"] - start) // (hours * HOUR)
        known = (rows["event"] + delay * HOUR - start) // (hours * HOUR)
        for i in range(int(piece.max()) + 1):
            yield self.step(
                first + i,
                rows.filter(piece == i),
                version,
                labels=rows.filter(known == i).with_columns(pl.col("event") + delay * HOUR),
            )


@pytest.fixture(scope="session")
def world() -> World:
    """Return the service that is watched."""
    return World.of(World.rows(0, 28 * 24, seed=0), NUMBERS, ["carrier"])


@pytest.fixture
def spec() -> Spec:
    """Return its declaration, with the defaults."""
    return Spec.model_validate(
        {"name": "trips", "task": {"target": "late"}, "data": {"source": "trips.parquet", "time": "event"}}
    )
