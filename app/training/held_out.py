"""How good is a model on rows no training has seen? In all, by month, and on every declared slice."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from app.data.encode import Examples, load, read_columns
from app.data.features import FeaturePlan, TargetColumn
from app.data.loss import row_loss
from app.data.prepare import Prepared
from app.model.contents import Evaluation
from app.model.importance import permutation_importance
from app.training.metrics import by_month, by_slice, evaluate
from app.types import Features, Scores, Targets

Score = Callable[[Features], Scores]


@dataclass(frozen=True)
class HeldOut:
    """The newest labelled rows: those that test, or validate where none test. `slices` goes row by row with them."""

    part: str
    target: TargetColumn
    examples: Examples
    slices: pa.Table

    @staticmethod
    def of(prepared: Prepared, plan: FeaturePlan, columns: list[str]) -> "HeldOut":
        """Load the rows, and the `columns` that are judged apart."""
        for part in ("test", "validation"):
            examples = load(prepared, plan, part)
            if len(examples.target):
                break
        return HeldOut(part, plan.target, examples, read_columns(prepared, part, columns))

    def evaluate(self, scores: Scores) -> Evaluation:
        """Measure the scores of these rows."""
        labels, time = self.examples.target, self.examples.time
        return Evaluation(
            evaluate(self.target, scores, labels),
            by_month(self.target, scores, labels, time) if len(time) else {},
            {name: by_slice(self.target, scores, labels, self.slices[name]) for name in self.slices.column_names},
        )

    def importance(self, score: Score, plan: FeaturePlan) -> dict[str, float]:
        """Return how much the mean loss rises when one feature is shuffled."""

        def loss(scores: Scores, labels: Targets) -> float:
            return float(np.mean(row_loss(self.target, scores, labels)))

        return permutation_importance(score, loss, plan, self.examples.features, self.examples.target)
