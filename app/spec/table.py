"""What is predicted from what: the task, the table, its features and its quality."""

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from app.spec.section import Conflict, Section
from app.spec.values import Column, Duration, Moment, Value, Zone


class Task(Section):
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
    loss: Literal["auto", "squared", "absolute", "quantile"] = Field(
        "auto",
        description="Regression only: the loss in which training, gate and monitor count. `squared` (`auto`) predicts the "
        "mean, `absolute` the median, `quantile` the one of `task.quantile`. Classes are always judged by log-loss.",
    )
    quantile: float = Field(
        0.5, gt=0, lt=1, description="With `loss: quantile`: the share of rows whose value lies below the prediction."
    )
    threshold: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Binary only: the score from which the answer's `label` is the positive one.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        """Yield a loss where there are classes, and a quantile that nobody asks for."""
        if self.loss != "auto" and self.type in ("binary", "multiclass"):
            yield ("loss",), f"is for regression; task.type is {self.type}"
        if self.quantile != 0.5 and self.loss != "quantile":
            yield ("quantile",), f"needs loss: quantile; found {self.loss}"


class Split(Section):
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


class Data(Section):
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


class NumberFeature(Section):
    """A quantity: one float32 with NaN for missing."""

    type: Literal["number"] = Field(description="A quantity.", examples=["number"])
    required: bool = Field(False, description="Null is refused, in data and in requests.")
    min: float | None = Field(None, description="Smallest value allowed.", examples=[0])
    max: float | None = Field(None, description="Largest value allowed.", examples=[5000])

    def conflicts(self) -> Iterator[Conflict]:
        """Yield limits that no value could keep."""
        if self.min is not None and self.max is not None and self.min > self.max:
            yield ("min",), f"{self.min:g} is above max {self.max:g}"


class CategoryFeature(Section):
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
        elif wide := [value for value in values if isinstance(value, int) and not -(2**63) <= value < 2**63]:
            yield ("values",), f"{wide[0]} is no whole number of 64 bits; quote what is meant as text"


Feature = Annotated[NumberFeature | CategoryFeature, Field(discriminator="type")]
"""A feature by its `type`; further kinds (text, image) are further classes here."""


def _feature_shorthand(value: object) -> object:
    return {"type": value} if isinstance(value, str) else value


FeatureOrShorthand = Annotated[
    Feature,
    BeforeValidator(_feature_shorthand, json_schema_input_type=Feature | Literal["number", "category"]),
]
"""A feature, or its kind alone."""


class Rule(Section):
    """A quality rule of the user's own."""

    name: str = Field(min_length=1, description="Name shown with the rows it rejects.", examples=["arrives_later"])
    expression: str = Field(
        min_length=1,
        description="SQL expression over the table's columns; a row where it is false is rejected, null passes.",
        examples=["sched_arr_utc > scheduled"],
    )


class Quality(Section):
    """What is done with rows that break the contract."""

    max_rejected: float = Field(0.05, ge=0, le=1, description="Fraction of rejected rows above which the run stops.")
    future: Literal["reject", "keep"] = Field("reject", description="What happens to rows whose time lies after now.")
    rules: list[Rule] = Field(default_factory=list, description="Rules of your own.")

    def conflicts(self) -> Iterator[Conflict]:
        """Yield names that two rules share: the reason of a rejected row would be unclear."""
        for name, count in Counter(rule.name for rule in self.rules).items():
            if count > 1:
                yield ("rules",), f"the name {name!r} is given {count} times"
