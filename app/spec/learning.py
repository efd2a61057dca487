"""What kind of model is trained, how it is shaped, and how it learns."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from app.spec.section import Conflict, Section
from app.spec.values import PositiveDuration

Single = Literal["network", "tabm", "linear", "lightgbm"]
Kind = Literal["network", "tabm", "linear", "lightgbm", "average", "auto"]


class Trees(Section):
    """Boosted trees, as the kind `lightgbm`, as a member of an average, and as the baseline."""

    rounds: int = Field(1000, ge=1, le=100_000, description="Most trees (of each class).")
    learning_rate: float = Field(0.05, gt=0, le=1, description="Weight of each tree.")
    leaves: int = Field(63, ge=2, le=65_536, description="Most leaves of a tree.")
    leaf_rows: int = Field(50, ge=1, le=1_000_000, description="Fewest training rows of a leaf.")
    feature_fraction: float = Field(0.7, gt=0, le=1, description="Fraction of the features that a tree may use.")
    row_fraction: float = Field(0.8, gt=0, le=1, description="Fraction of the rows that a tree learns from.")
    l2: float = Field(0.0, ge=0, description="L2 regularisation of the leaves.")
    patience: int = Field(50, ge=1, description="Trees without a better validation loss before boosting stops.")


class Model(Section):
    """The model: its kind and its shape."""

    kind: Kind = Field(
        "network",
        description="`network`: a multilayer perceptron over embeddings. `tabm`: an ensemble of such within one "
        "network. `linear`: logistic or linear regression. `lightgbm`: boosted trees. `average`: the mean of "
        "`members`. `auto`: the best of `members` and, where there are several, their average.",
    )
    members: list[Single] = Field(
        ["network", "lightgbm"],
        min_length=1,
        max_length=4,
        description="What `average` averages, and what competes under `auto`.",
    )
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
    ensemble: int = Field(16, ge=2, le=256, description="Members of a `tabm` network, which share most weights.")
    trees: Trees = Field(default_factory=Trees, description="Boosted trees.")

    def conflicts(self) -> Iterator[Conflict]:
        """Yield members given twice, and an average of one."""
        if len(set(self.members)) < len(self.members):
            yield ("members",), f"given more than once: {', '.join(self.members)}"
        elif self.kind == "average" and len(self.members) < 2:
            yield ("members",), "an average has at least two"


class Workers(Section):
    """An elastic range of training workers."""

    min: int = Field(ge=1, le=10_000, description="Fewest workers training goes on with.")
    max: int = Field(ge=1, le=10_000, description="Most workers used when the cluster has room.")

    def conflicts(self) -> Iterator[Conflict]:
        """Yield an empty range."""
        if self.min > self.max:
            yield ("min",), f"{self.min} is above max {self.max}"


class Train(Section):
    """How the model is trained."""

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
    class_weights: Literal["none", "balanced"] | dict[str, float] = Field(
        "none",
        description="How much a class's rows weigh in training: `balanced` makes all classes weigh the same; a mapping "
        "gives each class's weight (1 where left out). Scores stay probabilities: the weights are taken out of them.",
        examples=[{"yes": 5.0}],
    )
    time_budget: PositiveDuration | None = Field(
        None, description="With `model.kind: auto`: time after which no further kind is tried.", examples=["30m"]
    )
    baseline: bool = Field(
        True,
        description="Also train LightGBM (`model.trees`) on the same features, and report both; without effect where "
        "LightGBM is the model.",
    )

    def conflicts(self) -> Iterator[Conflict]:
        """Yield weights that are no weights."""
        if isinstance(self.class_weights, dict):
            for value, weight in self.class_weights.items():
                if not 0 < weight < float("inf"):
                    yield ("class_weights",), f"{value!r} has the weight {weight:g}; a weight is above 0 and finite"

    def rows_of_step(self, rows: int) -> int:
        """Return the rows of one step of a training on `rows` rows."""
        if self.batch_size != "auto":
            return self.batch_size
        return min(max(rows // 40, 32), 1024)
