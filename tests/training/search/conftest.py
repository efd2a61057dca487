"""What the tests of the search share: declarations, trials, and rows that a small network learns in a moment."""

import numpy as np
import pytest

from app.data.encode import Examples
from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.spec import Spec
from app.training.loader import Parts
from app.training.search.trials import Trial
from app.types import Features

DAY = 86_400_000


@pytest.fixture
def spec_of():
    """Return a function from sections to a declaration."""

    def made(**sections):
        return Spec.model_validate({"name": "x", "task": {"target": "y"}, "data": {"source": "x"}, **sections})

    return made


@pytest.fixture
def ended():
    """Return a function from a number, settings and a loss to a trial that finished, a second each."""

    def made(number, settings, loss, **others):
        losses = () if loss is None else ((1, loss + 0.1), (2, loss))
        given = {"state": "finished", "losses": losses, "loss": loss, "began": float(number), "seconds": 1.0}
        return Trial(number, settings, **given | others)

    return made


@pytest.fixture
def plan():
    """Return the plan of three numbers and a category."""
    numbers = (NumberColumn(f"x{i}", nulls=0.1, quantiles=tuple(np.linspace(-3, 3, 257).tolist())) for i in range(3))
    return FeaturePlan(
        tuple(numbers),
        (CategoryColumn("c", "string", tuple("pqrs")),),
        TargetColumn("y", "binary", (False, True)),
        rows=900,
    )


@pytest.fixture
def parts():
    """Return 40 days of 20 rows that train, and 10 that validate."""

    def examples(first, days, seed):
        random = np.random.default_rng(seed)
        n = 20 * days
        number = random.normal(size=(n, 3)).astype(np.float32)
        category = random.integers(0, 6, (n, 1))
        target = (number[:, 0] + (category[:, 0] == 2) + random.normal(0, 0.5, n) > 0).astype(np.float32)
        return Examples(
            Features(number, category), target, (first + np.arange(n) // 20) * DAY + np.arange(n) % 20, np.arange(n)
        )

    return Parts(examples(0, 40, 1), examples(40, 10, 2))
