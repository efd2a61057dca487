"""What a user declares: the types of the one YAML file. Reading the file is `app.declaration`'s work.

Every key has a description; the reference in docs/declaration.md and the editors' JSON Schema are
generated from here.
"""

import datetime as dt
import re
import zoneinfo
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)

DURATION = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d|w)$"
MOMENT = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:\d{2})?)?$"
NAME = r"^[a-z][a-z0-9-]{0,62}$"

_MICROSECONDS = {
    "w": 604_800_000_000,
    "d": 86_400_000_000,
    "h": 3_600_000_000,
    "m": 60_000_000,
    "s": 1_000_000,
    "ms": 1000,
}


def _duration(value: object) -> dt.timedelta:
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9.]+)([a-z]+)", value)) and re.search(DURATION, value):
        try:
            return dt.timedelta(microseconds=int(Decimal(match[1]) * _MICROSECONDS[match[2]]))
        except OverflowError:
            raise ValueError("longer than any calendar") from None
    if isinstance(value, dt.timedelta) and value >= dt.timedelta(0):
        return value
    raise ValueError("not a duration")


def _longer_than_nothing(value: dt.timedelta) -> dt.timedelta:
    if not value:
        raise ValueError("must be longer than 0s")
    return value


def write_duration(value: dt.timedelta) -> str:
    """Write it in the largest unit that needs no fraction."""
    whole = value // dt.timedelta(microseconds=1)
    for unit, size in _MICROSECONDS.items():
        if whole and whole % size == 0:
            return f"{whole // size}{unit}"
    return f"{whole // 1000}.{whole % 1000:03}ms" if whole else "0s"


def _moment(value: object) -> dt.datetime:
    if isinstance(value, str) and re.search(MOMENT, value):
        value = dt.datetime.fromisoformat(value)
    if isinstance(value, dt.datetime):
        try:
            return value.astimezone(dt.UTC) if value.tzinfo else value.replace(tzinfo=dt.UTC)
        except OverflowError:
            raise ValueError("outside the calendar") from None
    if isinstance(value, dt.date):
        return dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC)
    raise ValueError("not a moment")


def _zone(value: str) -> str:
    try:
        zoneinfo.ZoneInfo(value)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
        raise ValueError("not an IANA zone such as UTC or America/New_York") from None
    return value


Duration = Annotated[
    dt.timedelta,
    BeforeValidator(_duration),
    PlainSerializer(write_duration),
    WithJsonSchema({"type": "string", "pattern": DURATION}),
]
"""A length of time: a number and one of ms, s, m, h, d, w."""

PositiveDuration = Annotated[Duration, AfterValidator(_longer_than_nothing)]
"""A length of time that is not zero."""

Moment = Annotated[dt.datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string", "pattern": MOMENT})]
"""A date or date and time, ISO 8601; UTC when it names no zone."""

Zone = Annotated[str, AfterValidator(_zone)]
"""An IANA time zone's name."""

Column = Annotated[str, Field(min_length=1)]
"""A column's name."""

Value: TypeAlias = str | int | float | bool


Conflict: TypeAlias = tuple[tuple[str, ...], str]
"""The key to change (its path below the section that finds the conflict) and why."""


class ConflictError(ValueError):
    """Keys that are right by themselves and do not go together."""

    def __init__(self, conflicts: list[Conflict]) -> None:
        super().__init__("; ".join(f"{'.'.join(key)}: {why}" for key, why in conflicts))
        self.conflicts = conflicts


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    def conflicts(self) -> Iterator[Conflict]:
        """Yield what cannot go together in this section."""
        yield from ()

    @model_validator(mode="after")
    def _without_conflicts(self) -> Self:
        if conflicts := list(self.conflicts()):
            raise ConflictError(conflicts)
        return self


class Task(_Section):
    """What is predicted."""

    target: Column = Field(description="Column that holds what is to be predicted.", examples=["late"])
    type: Literal["auto", "binary", "multiclass", "regression"] = Field(
        "auto",
        description="Kind of prediction. `auto`: two values are binary; text or up to 20 whole numbers are "
        "multiclass; other numbers are regression.",
    )
    positive: Value | None = Field(
        None,
        description="Binary only: the target's value that counts as 1. Left out: true, 1, or the later "
        "of the two in sorted order.",
        examples=[True],
    )
    threshold: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Binary only: the score from which the answer's `label` is the positive one.",
    )


class Split(_Section):
    """Which rows train, which validate, which test; by time wherever a time column is declared."""

    train_from: Moment | None = Field(
        None, description="Rows before this moment are left aside.", examples=["2013-01-01"]
    )
    train_until: Moment | None = Field(
        None,
        description="Rows from this moment on are test rows. Left out: the newest `test` fraction.",
        examples=["2013-03-01"],
    )
    test: float = Field(
        0.15, ge=0, lt=1, description="Fraction of rows, the newest, that test. Unused with `train_until`."
    )
    validation: float = Field(
        0.15, gt=0, lt=1, description="Fraction of the training rows, the newest, that validate."
    )
    gap: Duration = Field(
        dt.timedelta(0),
        description="Rows this close before a later part are left aside, because their label was not known yet.",
    )


class Data(_Section):
    """Where the table is and how it is read."""

    source: Annotated[str, Field(min_length=1)] | Annotated[list[Column], Field(min_length=1)] = Field(
        description="Path, URI, folder or glob of the table's files, or a list of these; relative to this file.",
        examples=["flights.parquet"],
    )
    format: Literal["auto", "parquet", "csv", "jsonl", "arrow"] = Field(
        "auto",
        description="File format; `auto` goes by the suffix (.parquet .csv .jsonl .ndjson .arrow .feather).",
    )
    key: Column | None = Field(
        None, description="Column that names a row, unique; becomes the `id` of requests.", examples=["flight_id"]
    )
    time: Column | None = Field(
        None, description="Column that says when the row happened (event time).", examples=["scheduled"]
    )
    timezone: Zone = Field("UTC", description="IANA zone of times that carry none.")
    exclude: list[Column] = Field(
        default_factory=list,
        description="Columns that are never features, such as those not known in time.",
        examples=[["dep_delay"]],
    )
    split: Split = Field(default_factory=Split, description="Training, validation and test rows.")


class NumberFeature(_Section):
    """A quantity: one float32 with NaN for missing."""

    type: Literal["number"] = Field(description="A quantity.", examples=["number"])
    required: bool = Field(False, description="Null is refused, in data and in requests.")
    min: float | None = Field(None, description="Smallest value allowed.", examples=[0])
    max: float | None = Field(None, description="Largest value allowed.", examples=[5000])

    def conflicts(self) -> Iterator[Conflict]:
        """Yield limits that no value could keep."""
        if self.min is not None and self.max is not None and self.min > self.max:
            yield ("min",), f"{self.min:g} is above max {self.max:g}"


class CategoryFeature(_Section):
    """One of a set of names, whole numbers or truth values: one id into a vocabulary."""

    type: Literal["category"] = Field(description="One of a set of values.", examples=["category"])
    required: bool = Field(False, description="Null is refused, in data and in requests.")
    values: Annotated[list[str | int | bool], Field(min_length=1)] | None = Field(
        None,
        description="The values allowed, all of one kind; others are refused. Left out: any, learned from the data.",
        examples=[["EWR", "JFK", "LGA"]],
    )
    max_categories: int = Field(
        1000,
        ge=1,
        le=1_000_000,
        description="The most common values that get an id of their own; the rest share one.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        """Yield values of several kinds and values given twice."""
        values = self.values or []
        if len({type(value) for value in values}) > 1:
            yield ("values",), "text, whole numbers and truth values cannot be mixed; quote what is meant as text"
        elif repeated := [value for value, count in Counter(values).items() if count > 1]:
            yield ("values",), f"given more than once: {', '.join(map(repr, repeated))}"


Feature = Annotated[NumberFeature | CategoryFeature, Field(discriminator="type")]
"""A feature by its `type`; further kinds (text, image) are further classes here."""


def _feature_shorthand(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value


FeatureOrShorthand = Annotated[
    Feature,
    BeforeValidator(_feature_shorthand, json_schema_input_type=Feature | Literal["number", "category"]),
]
"""A feature, or its kind alone."""


class Rule(_Section):
    """A quality rule of the user's own."""

    name: str = Field(min_length=1, description="Name shown with the rows it rejects.", examples=["arrives_later"])
    expression: str = Field(
        min_length=1,
        description="SQL expression over the table's columns; a row where it is false is rejected, null passes.",
        examples=["sched_arr_utc > scheduled"],
    )


class Quality(_Section):
    """What is done with rows that break the contract."""

    max_rejected: float = Field(0.05, ge=0, le=1, description="Fraction of rejected rows above which the run stops.")
    future: Literal["reject", "keep"] = Field("reject", description="What happens to rows whose time lies after now.")
    rules: list[Rule] = Field(default_factory=list, description="Rules of your own.")

    def conflicts(self) -> Iterator[Conflict]:
        """Yield names that two rules share: the reason of a rejected row would be unclear."""
        for name, count in Counter(rule.name for rule in self.rules).items():
            if count > 1:
                yield ("rules",), f"the name {name!r} is given {count} times"


class Model(_Section):
    """The network."""

    width: int = Field(256, ge=4, le=8192, description="Units of each hidden layer.")
    depth: int = Field(2, ge=1, le=16, description="Hidden layers.")
    dropout: float = Field(0.1, ge=0, lt=1, description="Fraction of hidden units dropped in training.")
    number_embedding: int = Field(16, ge=1, le=256, description="Size of a number's periodic embedding.")
    frequencies: int = Field(32, ge=1, le=512, description="Frequencies of a number's periodic embedding.")
    frequency_scale: float = Field(
        0.1, gt=0, le=100, description="Standard deviation of the frequencies when training starts."
    )
    category_embedding: int = Field(
        16, ge=1, le=1024, description="Largest size of a category's embedding; small vocabularies get less."
    )


class Workers(_Section):
    """An elastic range of training workers."""

    min: int = Field(ge=1, le=10_000, description="Fewest workers training goes on with.")
    max: int = Field(ge=1, le=10_000, description="Most workers used when the cluster has room.")

    def conflicts(self) -> Iterator[Conflict]:
        """Yield an empty range."""
        if self.min > self.max:
            yield ("min",), f"{self.min} is above max {self.max}"


class Train(_Section):
    """How the network is trained."""

    epochs: int = Field(20, ge=1, le=1_000_000, description="Most passes over the training rows.")
    batch_size: int = Field(1024, ge=2, le=16_777_216, description="Rows of one step, over all workers together.")
    learning_rate: float = Field(0.001, gt=0, description="Peak learning rate of AdamW.")
    weight_decay: float = Field(0.01, ge=0, description="Weight decay of AdamW.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Fraction of all steps in which the rate rises to its peak.")
    gradient_clip: float = Field(1.0, gt=0, description="Largest norm of the gradient.")
    patience: int = Field(4, ge=1, description="Epochs without a better validation loss before training stops.")
    seed: int = Field(0, ge=0, le=4_294_967_295, description="Seed of initial weights and row order.")
    num_workers: Annotated[int, Field(ge=0, le=10_000)] | Workers = Field(
        0, description="Training workers; 0 trains in the driver, {min, max} follows the cluster's size."
    )
    cpus_per_worker: float = Field(1, gt=0, description="CPUs a worker reserves.")
    use_gpu: Literal["auto"] | bool = Field("auto", description="Train on GPUs; `auto` when the cluster has any.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Arithmetic of the forward pass; `auto` is bfloat16 on GPUs that have it."
    )
    loader: Literal["auto", "memory", "stream"] = Field(
        "auto",
        description="`memory` keeps all encoded rows in the object store, `stream` reads them batch by batch; "
        "`auto` keeps them when they fill less than a third of it.",
    )
    max_failures: int = Field(3, ge=0, description="Times a run resumes after a lost worker.")
    baseline: bool = Field(True, description="Also train LightGBM on the same features, and report both.")


class Tune(_Section):
    """How a better network is searched for (validated now, read by the search job)."""

    trials: int = Field(24, ge=1, le=100_000, description="Trials of a search.")
    time_budget: PositiveDuration | None = Field(
        None, description="Time after which a search starts no more trials.", examples=["30m"]
    )


class Gate(_Section):
    """What a challenger has to prove before it may serve."""

    confidence: float = Field(0.95, gt=0.5, lt=1, description="Confidence of every interval.")
    margin: float = Field(
        0.02,
        ge=0,
        description="Relative loss by which a version may trail the baseline, or on one slice the champion, and pass.",
    )
    slices: list[Column] = Field(
        default_factory=list,
        description="Columns whose every common value is judged and reported apart.",
        examples=[["origin"]],
    )
    min_rows: int = Field(500, ge=1, description="Fewest labelled rows a verdict may rest on.")
    resamples: int = Field(
        1000, ge=100, le=100_000, description="Bootstrap resamples (of days where there is a time)."
    )
    max_latency: PositiveDuration = Field(
        dt.timedelta(milliseconds=20), description="Largest 99th percentile of one row's prediction."
    )
    max_megabytes: float = Field(100, gt=0, description="Largest size of the bundle.")


class Serve(_Section):
    """How the endpoint answers."""

    host: str = Field(
        "127.0.0.1", min_length=1, description="Address the endpoint listens on; loopback unless told otherwise."
    )
    port: int = Field(8000, ge=1, le=65535, description="Port the endpoint listens on.")
    min_replicas: int = Field(1, ge=1, description="Fewest replicas.")
    max_replicas: int = Field(4, ge=1, description="Most replicas.")
    target_ongoing_requests: float = Field(
        64, gt=0, description="Requests in flight a replica is meant to carry; more of them start another."
    )
    max_ongoing_requests: int = Field(512, ge=1, description="Most requests one replica works on at once.")
    max_queued_requests: int = Field(
        512,
        ge=0,
        description="Requests that may wait for a replica; beyond it the answer is 429 with Retry-After.",
    )
    max_batch_rows: int = Field(1024, ge=1, description="Most rows of small requests scored together.")
    max_request_rows: int = Field(100_000, ge=1, description="Most rows of one request.")
    max_request_bytes: int = Field(33_554_432, ge=1024, description="Largest request body.")
    cpus_per_replica: float = Field(1, gt=0, description="CPUs a replica reserves.")
    use_gpu: Literal["auto"] | bool = Field(
        False,
        description="Answer on GPUs; `auto` when the cluster has any. A small network is faster without.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        """Yield limits that could never be reached."""
        if self.min_replicas > self.max_replicas:
            yield ("min_replicas",), f"{self.min_replicas} is above max_replicas {self.max_replicas}"
        if self.target_ongoing_requests > self.max_ongoing_requests:
            yield (
                ("target_ongoing_requests",),
                f"{self.target_ongoing_requests:g} is above max_ongoing_requests {self.max_ongoing_requests}, "
                "so no replica would ever be added",
            )


class Drift(_Section):
    """What the bundle remembers of its training data, for drift to be held against."""

    bins: int = Field(32, ge=4, le=256, description="Histogram bins of a number.")
    season: Literal["none", "hour_of_week", "hour_of_day"] = Field(
        "hour_of_day",
        description="Season slots of the reference: `hour_of_day` by weekday or weekend (48), `hour_of_week` (168).",
    )
    components: int = Field(20, ge=0, le=100, description="Most principal components watched as virtual features.")


class Retrain(_Section):
    """What a retraining rests on."""

    window: Literal["all"] | PositiveDuration = Field(
        "all",
        description="Rows a training uses: all, or those this close before the end of the training part.",
    )


class Rollout(_Section):
    """What happens to a version that passed the gate."""

    promote: Literal["auto", "manual"] = Field(
        "auto", description="`auto`: a version that passes becomes champion; `manual`: it stays challenger."
    )


class Spec(_Section):
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
    tune: Tune = Field(default_factory=Tune, description="How a better network is searched for.")
    gate: Gate = Field(default_factory=Gate, description="What a version has to prove before it may serve.")
    serve: Serve = Field(default_factory=Serve, description="How the endpoint answers.")
    drift: Drift = Field(default_factory=Drift, description="The reference that drift is held against.")
    retrain: Retrain = Field(default_factory=Retrain, description="What a retraining rests on.")
    rollout: Rollout = Field(default_factory=Rollout, description="What happens to a version that passed the gate.")

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
        fewest = workers.max if isinstance(workers, Workers) else workers
        if self.train.batch_size < fewest:
            yield ("train", "batch_size"), f"{self.train.batch_size} rows cannot be shared by {fewest} workers"

    def dump(self) -> dict[str, Any]:
        """Return the declaration as plain JSON values, every default written out."""
        return self.model_dump(mode="json")
