"""One declaration as a whole: its sections, and what one says against another."""

from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import Field, ValidationError

from app.spec.learning import Model, Train, Workers
from app.spec.loop import Alerts, Drift, Journal, Retrain, Rollout
from app.spec.search import Choice, Compress, Tune
from app.spec.section import Conflict, Section
from app.spec.service import Gate, Serve
from app.spec.table import Data, FeatureOrShorthand, Quality, Task
from app.spec.values import NAME, Column, Value


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
        description="Columns the model sees: `number` or `category`, or a mapping with limits. Left out: every "
        "column but target, key, time and `data.exclude`, by its type.",
        examples=[{"distance": "number", "origin": "category"}],
    )
    quality: Quality = Field(default_factory=Quality, description="What is done with rows that break the contract.")
    model: Model = Field(default_factory=Model, description="Kind and shape of the model.")
    train: Train = Field(default_factory=Train, description="How the model is trained.")
    tune: Tune = Field(default_factory=Tune, description="How a better model is searched for.")
    compress: Compress = Field(default_factory=Compress, description="How a smaller, faster model is made.")
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
        if self.train.class_weights != "none" and self.task.type == "regression":
            yield ("train", "class_weights"), "is for classes; task.type is regression"
        yield from self._outside_of_space()
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

    def with_settings(self, settings: Mapping[str, Value]) -> Self:
        """Return the declaration with keys set by their place, such as `model.width`.

        Raises pydantic's ValidationError for a key that is not there or a value that is not allowed.
        """
        given = self.dump()
        for place, value in settings.items():
            _put(given, place, value)
        return self.model_validate(given)

    def left_open(self, place: str) -> bool:
        """Say whether the declaration leaves a key, such as `model.width`, at its default without naming it."""
        section: object = self
        for part in place.split("."):
            if not isinstance(section, Section) or part not in section.model_fields_set:
                return True
            section = getattr(section, part)
        return False

    def _outside_of_space(self) -> Iterator[Conflict]:
        """Yield keys of `tune.space` that are not there, and values that they could not have."""
        for place, searched in self.tune.space.items():
            section, _, key = place.partition(".")
            if section not in ("model", "train"):
                yield ("tune", "space", place), "is no key of model or train"
                continue
            for value in searched.values if isinstance(searched, Choice) else (searched.low, searched.high):
                if mistake := _mistake(type(getattr(self, section)), key, value):
                    yield ("tune", "space", place), mistake
                    break

    def dump(self) -> dict[str, Any]:
        """Return the declaration as plain JSON values, every default written out."""
        return self.model_dump(mode="json")


def _put(whole: dict[str, Any], place: str, value: Value) -> None:
    """Set a key below, or beside everything where its place is not there: whoever validates finds it."""
    *above, key = place.split(".")
    within: Any = whole
    for part in above:
        within = within.get(part) if isinstance(within, dict) else None
    if isinstance(within, dict):
        within[key] = value
    else:
        whole[place] = value


def _mistake(section: type[Section], place: str, value: Value) -> str | None:
    """Say why a section's key, below which may be another section, cannot have a value."""
    key, _, below = place.partition(".")
    if key not in section.model_fields:
        return f"there is no key {key!r}; there are {', '.join(section.model_fields)}"
    if below:
        inner = section.model_fields[key].annotation
        if not (isinstance(inner, type) and issubclass(inner, Section)):
            return f"{key!r} has no keys of its own"
        return _mistake(inner, below, value)
    try:
        section.__pydantic_validator__.validate_assignment(section.model_construct(), key, value)
    except ValidationError as error:
        return f"{value!r} is not allowed: {error.errors()[0]['msg']}"
    return None
