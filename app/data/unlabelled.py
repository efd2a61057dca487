"""Rows without labels: what a table of features alone has to tell."""

import datetime as dt
from pathlib import Path

import numpy as np

from app.data.contract import Contract
from app.data.features import FeaturePlan
from app.data.files import list_files
from app.data.sources import fragments_of, read, read_schema, with_floats
from app.spec import CategoryFeature, Data, NumberFeature
from app.types import Features


def declared_features(plan: FeaturePlan) -> dict[str, NumberFeature | CategoryFeature]:
    """Return the plan's columns as they were declared."""
    features: dict[str, NumberFeature | CategoryFeature] = {}
    for number in plan.number:
        features[number.name] = NumberFeature(type="number", required=number.required, min=number.min, max=number.max)
    for category in plan.category:
        declared = {"required": category.required, "values": category.values and list(category.values)}
        features[category.name] = CategoryFeature.model_validate({"type": "category", **declared})
    return features


def read_features(plan: FeaturePlan, source: str, base: Path) -> Features:
    """Return the features of the rows at `source` (a path, URI or glob, relative to `base`) that keep the contract.

    Raises UserError for a table that cannot be read or lacks a feature.
    """
    fragments = fragments_of(list_files(Data(source=source), base))
    schema = with_floats(read_schema(fragments), fragments, {column.name for column in plan.number})
    contract = Contract.of_features(declared_features(plan), schema)
    now = dt.datetime.now(dt.UTC)
    found = [plan.encode(contract.schema.empty_table())]
    found += [
        plan.encode(contract.check(table, now).kept)
        for fragment in fragments
        for _, table in read(fragment, contract.columns, contract.dictionary, schema)
    ]
    return Features(
        np.concatenate([piece.number for piece in found]), np.concatenate([piece.category for piece in found])
    )
