"""The rows that everybody learns from: the flights example, by the package's own way from table to arrays."""

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from app.data.encode import Examples, load
from app.data.features import FeaturePlan
from app.data.fit import fit
from app.data.prepare import prepare
from app.declaration import read
from app.spec import Spec
from app.training.loader import Parts
from app.types import Features
from app.workspace import Workspace

_EXAMPLE = Path(__file__).parents[2] / "examples" / "flights" / "flights.yaml"


@dataclass(frozen=True)
class Rows:
    """January and February in two parts (the newest 15 % validate), and March to December; `spec` asks for a network."""

    spec: Spec
    plan: FeaturePlan
    parts: Parts
    test: Examples


def flights() -> Rows:
    """Prepare, fit and encode the example; Ray must be initialised."""
    settings = ["data.source=data/flights.parquet", "data.split.train_until=2013-03-01", "model.kind=network"]
    declaration = read(_EXAMPLE, settings)
    with TemporaryDirectory() as folder:
        prepared = prepare(declaration, Workspace.open(folder))
        plan = fit(prepared, declaration.spec)
        train, validation, test = (load(prepared, plan, part) for part in ("train", "validation", "test"))
    return Rows(declaration.spec, plan, Parts(train, validation), test)


def repeat(examples: Examples, times: int) -> Examples:
    """Return the rows over and over: as many as a larger table has, and as hard."""
    number, category = (np.tile(matrix, (times, 1)) for matrix in examples.features)
    target, time, position = (np.tile(column, times) for column in examples[1:])
    return Examples(Features(number, category), target, time, position)
