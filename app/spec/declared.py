"""One declaration as a whole: its sections, and what one says against another."""

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from app.spec.learning import Model, Train, Tune, Workers
from app.spec.loop import Alerts, Drift, Journal, Retrain, Rollout
from app.spec.section import Conflict, Section
from app.spec.service import Gate, Serve
from app.spec.table import Data, FeatureOrShorthand, Quality, Task
from app.spec.values import NAME, Column


class Spec(Section):
    """One declaration: all a user wants, in one object."""

    name: str = Field(
        pattern=NAME,
        description="Name of the service, the model and its address: lower-case letters, digits, hyphens.",
        examples=["flights"],
    )
    task: Task = Field(description="What is predicted.")
    data: Data = Field(description="Where the table is and how it is read.")
    features: dict[Column, FeatureOrShorthand] | None = Field(
        None,
        description="Columns the network sees: `number` or `category`, or a mapping with limits. Left out: every "
        "column but target, key, time and `data.exclude`, by its type.",
        examples=[{"distance": "number", "origin": "category"}],
    )
    quality: Quality = Field(default_factory=Quality, description="What is done with rows that break the contract.")
    model: Model = Field(default_factory=Model, description="Shape of the network.")
    train: Train = Field(default_factory=Train, description="How the network is trained.")
    tune: Tune = Field(
        default_factory=Tune,
        description="How a better network is searched for: checked today, read by the search that is to come.",
    )
    gate: Gate = Field(default_factory=Gate, description="What a version has to prove before it may serve.")
    serve: Serve = Field(default_factory=Serve, description="How the endpoint answers.")
    journal: Journal = Field(default_factory=Journal, description="What is written down of predictions and labels.")
    drift: Drift = Field(default_factory=Drift, description="The reference, and how traffic is held against it.")
    retrain: Retrain = Field(default_factory=Retrain, description="When to retrain, and on what.")
    rollout: Rollout = Field(default_factory=Rollout, description="What happens to a version that passed the gate.")
    alerts: Alerts = Field(default_factory=Alerts, description="Who is told when a person is needed.")

    def conflicts(self) -> Iterator[Conflict]:
        """Yield what one section says against another."""
        data, split, features = self.data, self.data.split, self.features or {}
        roles: dict[str, str] = {}
        for place, column in (("task.target", self.task.target), ("data.key", data.key), ("data.time", data.time)):
            if column in roles:
                yield tuple(place.split(".")), f"column {column!r} is already {roles[column]}"
            elif column is not None:
                roles[column] = place
        for column in features:
            if column in roles:
                yield ("features", column), f"this column is {roles[column]} and cannot be a feature"
            elif column in data.exclude:
                yield ("features", column), "this column is also in data.exclude"
        if self.task.positive is not None and self.task.type in ("multiclass", "regression"):
            yield ("task", "positive"), f"is for binary tasks; task.type is {self.task.type}"
        if data.time is None:
            for key, given in (
                ("train_from", split.train_from),
                ("train_until", split.train_until),
                ("gap", split.gap),
            ):
                if given:
                    yield ("data", "split", key), "needs data.time"
            if self.retrain.window != "all":
                yield ("retrain", "window"), "needs data.time"
        if split.train_from and split.train_until and split.train_from >= split.train_until:
            yield ("data", "split", "train_from"), "must be before train_until"
        workers = self.train.num_workers
        most = workers.max if isinstance(workers, Workers) else workers
        batch_size = self.train.batch_size
        if batch_size != "auto" and batch_size < most:
            yield ("train", "batch_size"), f"{batch_size} rows cannot be shared by {most} workers"

    def dump(self) -> dict[str, Any]:
        """Return the declaration as plain JSON values, every default written out."""
        return self.model_dump(mode="json")
