"""How the network is shaped, trained and searched for."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from app.spec.section import Conflict, Section
from app.spec.values import PositiveDuration


class Model(Section):
    """The network."""

    width: int = Field(256, ge=4, le=8192, description="Units of each hidden layer.")
    depth: int = Field(2, ge=1, le=16, description="Hidden layers.")
    dropout: float = Field(0.2, ge=0, lt=1, description="Fraction of hidden units dropped in training.")
    number_embedding: int = Field(12, ge=1, le=256, description="Size of a number's periodic embedding.")
    frequencies: int = Field(16, ge=1, le=512, description="Frequencies of a number's periodic embedding.")
    frequency_scale: float = Field(
        0.1, gt=0, le=100, description="Standard deviation of the frequencies when training starts."
    )
    category_embedding: int = Field(
        16, ge=1, le=1024, description="Largest size of a category's embedding; less where every vocabulary is small."
    )


class Workers(Section):
    """An elastic range of training workers."""

    min: int = Field(ge=1, le=10_000, description="Fewest workers training goes on with.")
    max: int = Field(ge=1, le=10_000, description="Most workers used when the cluster has room.")

    def conflicts(self) -> Iterator[Conflict]:
        """Yield an empty range."""
        if self.min > self.max:
            yield ("min",), f"{self.min} is above max {self.max}"


class Train(Section):
    """How the network is trained."""

    epochs: int = Field(20, ge=1, le=1_000_000, description="Most passes over the training rows.")
    batch_size: Literal["auto"] | Annotated[int, Field(ge=2, le=16_777_216)] = Field(
        "auto",
        description="Rows of one step, over all workers together; `auto` is a fortieth of the training rows, "
        "from 32 to 1024, so that a small table takes steps enough to learn from.",
    )
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

    def rows_of_step(self, rows: int) -> int:
        """Return the rows of one step of a training on `rows` rows."""
        if self.batch_size != "auto":
            return self.batch_size
        return min(max(rows // 40, 32), 1024)


class Tune(Section):
    """How a better network is searched for: checked today, read by the search that is to come."""

    trials: int = Field(24, ge=1, le=100_000, description="Trials of a search.")
    time_budget: PositiveDuration | None = Field(
        None, description="Time after which a search starts no more trials.", examples=["30m"]
    )
