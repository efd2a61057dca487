"""What every peer does with a request: the types that check a row, rows to arrays, score, ids, answer.

It imports neither torch nor Ray nor any server, so that each peer's own environment can load it; ours shares
nothing with it but the bundle. The peers encode rows the quick way a good engineer would by hand (one pass,
a dictionary per category), and `benchmarks.serve.verify` holds their scores against the plan's own encoding.
"""

import os
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
import numpy as np
import pydantic

from app.data.features import CategoryColumn, FeaturePlan, Kind, NumberColumn
from app.model.bundle import open_bundle
from app.model.runtime import Runtime
from app.types import UNSEEN_ID, Features, UserError

BUNDLE = "EVERTRUE_BENCH_BUNDLE"
MAX_ROWS = 100_000
MAX_BATCH_ROWS = 64
THRESHOLD = 0.5

_TYPES: dict[Kind, type] = {"string": str, "integer": int, "boolean": bool}
RowValues: TypeAlias = tuple[Any, ...]  # one row's values in the plan's order: numbers, then categories


@dataclass(frozen=True)
class Work:
    """The model behind a peer."""

    name: str
    plan: FeaturePlan
    runtime: Runtime

    @staticmethod
    def open(uri: str | None = None) -> "Work":
        """Load the bundle at `uri`, or at $EVERTRUE_BENCH_BUNDLE.

        Raises UserError for a task that is not binary: labels and limits here are those of one.
        """
        bundle = open_bundle(uri or os.environ[BUNDLE])
        if bundle.plan.target.task != "binary":
            raise UserError(f"the serving benchmark needs a binary bundle, found {bundle.plan.target.task}")
        return Work(f"bench/{bundle.version_id}", bundle.plan, bundle.runtime())

    def encode(self, rows: Sequence[RowValues]) -> Features:
        """Return the features of rows whose values lie in the plan's order."""
        numbers = len(self.plan.number)
        number = np.array([row[:numbers] for row in rows], np.float32)
        category = np.empty((len(rows), len(self.plan.category)), np.int64)
        for i, column in enumerate(self.plan.category):
            ids = column.ids
            category[:, i] = [ids.get(row[numbers + i], UNSEEN_ID) for row in rows]
        return Features(number, category)

    def predict(self, rows: Sequence[RowValues]) -> list[float]:
        """Return the scores of rows whose values lie in the plan's order."""
        scores: list[float] = self.runtime.score(self.encode(rows)).tolist()
        return scores


def label(score: float) -> int:
    """Return the class a score stands for."""
    return int(score >= THRESHOLD)


def make_id() -> str:
    """Return a new UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random ones."""
    value = (time.time_ns() // 1_000_000 << 80) | random.getrandbits(80)
    value = value & ~(0xF << 76) & ~(0x3 << 62) | (0x7 << 76) | (0x2 << 62)
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def pydantic_row(plan: FeaturePlan, module: str = __name__) -> type[pydantic.BaseModel]:
    """Return a model `Row` of one row: every field there, of its type, within its limits, and no other field."""
    fields: dict[str, Any] = {}
    for column in plan.number:
        limited = Annotated[float, pydantic.Field(ge=column.min, le=column.max, allow_inf_nan=False)]
        fields[column.name] = limited if column.required else limited | None
    for category in plan.category:
        kind = Literal[category.values] if category.values else _TYPES[category.kind]
        fields[category.name] = kind if category.required else kind | None
    config = pydantic.ConfigDict(extra="forbid", strict=True)
    made: type[pydantic.BaseModel] = pydantic.create_model("Row", __config__=config, __module__=module, **fields)
    return made


def msgspec_row(plan: FeaturePlan) -> type[msgspec.Struct]:
    """Return the same promise as `pydantic_row`, as a struct."""
    fields: list[tuple[str, Any]] = [(column.name, _msgspec_number(column)) for column in plan.number]
    fields += [(column.name, _msgspec_category(column)) for column in plan.category]
    return msgspec.defstruct("Row", fields, forbid_unknown_fields=True, gc=False, frozen=True)


def _msgspec_number(column: NumberColumn) -> Any:
    kind = Annotated[float, msgspec.Meta(ge=column.min, le=column.max)]
    return kind if column.required else kind | None


def _msgspec_category(column: CategoryColumn) -> Any:
    kind = _TYPES[column.kind]
    if column.values and column.kind != "boolean":
        kind = Literal[column.values]
    return kind if column.required else kind | None
