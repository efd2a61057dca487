"""How a better model is searched for, and how a smaller one is made of it."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from app.spec.learning import Single
from app.spec.section import Conflict, Section
from app.spec.values import PositiveDuration


class Choice(Section):
    """One of several values."""

    type: Literal["choice"] = Field(description="One of several values.", examples=["choice"])
    values: Annotated[list[str | int | float | bool], Field(min_length=1)] = Field(
        description="The values tried.", examples=[[128, 256, 512]]
    )


class Range(Section):
    """A number between two limits."""

    type: Literal["range"] = Field(description="A number between two limits.", examples=["range"])
    low: int | float = Field(description="Smallest value tried.", examples=[0.0003])
    high: int | float = Field(description="Largest value tried.", examples=[0.003])
    log: bool = Field(False, description="Even in the logarithm, as suits learning rates and sizes.")

    def conflicts(self) -> Iterator[Conflict]:
        """Yield limits between which there is nothing."""
        if not self.low < self.high:
            yield ("low",), f"{self.low:g} is not below high {self.high:g}"
        elif self.log and self.low <= 0:
            yield ("low",), f"{self.low:g} has no logarithm"


Searched = Annotated[Choice | Range, Field(discriminator="type")]
"""What may be tried for one key."""


class Tune(Section):
    """How a better model is searched for (`jobs.tune`)."""

    trials: int = Field(24, ge=1, le=100_000, description="Trials of a search, the declared settings among them.")
    time_budget: PositiveDuration | None = Field(
        None, description="Time after which a search starts no more trials.", examples=["30m"]
    )
    space: dict[str, Searched] = Field(
        default_factory=dict,
        description="Keys of `model` and `train` to search, and between which values; left out: the keys that matter "
        "most to the declared kind, as far as the declaration leaves them open.",
        examples=[{"model.width": "choice", "train.learning_rate": "range"}],
    )
    sampler: Literal["tpe", "random"] = Field(
        "tpe", description="Who proposes the next trial: Optuna's tree of Parzen estimators, or chance."
    )
    stop_early: bool = Field(
        True, description="End trials early that lag behind the others at the same epoch (asynchronous halving)."
    )
    validation_days: float = Field(
        0.1,
        ge=0,
        lt=0.9,
        description="Fraction of the training rows, as whole days drawn at random, that judge trials beside the "
        "newest ones: a search that only looks at the newest days fits their weather.",
    )
    finalists: int = Field(
        4,
        ge=0,
        le=100,
        description="Best trials that meet the declared settings again, in a cross-validation over three stretches of "
        "days: what is proven better there is taken, else the declared settings stay. With 0 the best trial is taken, "
        "however lucky.",
    )
    cpus_per_trial: float = Field(1, gt=0, description="CPUs a trial reserves; as many trials run at once as fit.")
    gpus_per_trial: float = Field(0, ge=0, le=64, description="GPUs a trial reserves; .25 lets four share one.")
    baseline: bool = Field(
        True, description="Also search the settings of LightGBM, with as many trials and no more time."
    )
    seed: int = Field(0, ge=0, le=4_294_967_295, description="Seed of the sampler and of the days drawn.")


class Teacher(Section):
    """Who teaches: the members' average; the large network's shape."""

    members: list[Single] = Field(
        ["network", "lightgbm"], min_length=1, max_length=4, description="Models whose average teaches."
    )
    width: int = Field(1024, ge=4, le=8192, description="Units of each hidden layer of the large network.")
    depth: int = Field(3, ge=1, le=16, description="Hidden layers of the large network.")


class Student(Section):
    """The small network."""

    width: int = Field(64, ge=4, le=8192, description="Units of each hidden layer.")
    depth: int = Field(2, ge=1, le=16, description="Hidden layers.")
    number_embedding: int = Field(8, ge=1, le=256, description="Size of a number's periodic embedding.")
    frequencies: int = Field(8, ge=1, le=512, description="Frequencies of a number's periodic embedding.")
    category_embedding: int = Field(8, ge=1, le=1024, description="Largest size of a category's embedding.")
    epochs: int = Field(12, ge=1, le=1_000_000, description="Passes over the rows that the teacher answered.")
    learning_rate: float = Field(0.002, gt=0, description="Peak learning rate.")
    teaching: Literal["auto"] | Annotated[float, Field(ge=0, le=1)] = Field(
        "auto",
        description="Weight of the teacher's answer; the rest is the label's, where there is one. `auto` is 1, for "
        "teachers have heard the labels already; of a quantile it is .5.",
    )


Quantisation = Literal["int8_weights", "int8_dynamic", "int8_static", "float16"]


class Compress(Section):
    """How a smaller, faster model is made of a large one (`jobs.compress`)."""

    teacher: Teacher = Field(default_factory=Teacher, description="Who teaches.")
    student: Student = Field(default_factory=Student, description="The small network.")
    unlabelled: str | None = Field(
        None,
        min_length=1,
        description="More rows without labels for the teacher to answer: a path, URI or glob as `data.source`. Rows of "
        "the table that have no label are taken anyway.",
        examples=["unlabelled.parquet"],
    )
    prune: list[Annotated[float, Field(gt=0, lt=1)]] = Field(
        [0.5, 0.25], description="Fractions of the student's and the teacher's hidden units kept in pruned variants."
    )
    prune_epochs: int = Field(2, ge=1, le=1000, description="Passes that heal a pruned network.")
    quantise: list[Quantisation] = Field(
        ["int8_weights", "int8_dynamic", "int8_static"],
        description="Arithmetics tried for every network. `int8_weights` only stores them small; `int8_dynamic` measures each "
        "row's activations, `int8_static` knows them from training rows; `float16` is for GPUs.",
    )
    margin: float = Field(
        0.005,
        ge=0,
        description="Relative loss by which a smaller version may trail the large network, and the version that serves.",
    )
    max_size: float = Field(0.1, gt=0, le=1, description="Largest graph, as a fraction of the large network's.")
    max_latency: float = Field(
        0.2, gt=0, le=1, description="Largest median of one row's prediction, as a fraction of the large network's."
    )
