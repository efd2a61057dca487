"""How the rows of a part become examples: streamed over the cluster, or all in memory."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.data.features import FeaturePlan
from app.data.rows import fragments_of_task, pieces, tasks, without_fragments
from app.data.sources import Fragment
from app.data.statistics import Positions
from app.types import Features, Targets

if TYPE_CHECKING:
    import ray.data

    from app.data.prepare import Prepared

_THREADS = 2
_BLOCK_BYTES = 32 << 20
_BLOCKS_AHEAD = 8
"""Blocks of encoded rows that may wait for whoever takes them: else a slow taker lets them fill the object store."""


class Examples(NamedTuple):
    """n labelled rows, ready to learn from."""

    features: Features
    target: Targets
    time: npt.NDArray[np.int64]
    """Milliseconds since 1970 UTC (n,); (0,) where no time is declared."""
    position: npt.NDArray[np.int64]
    """The row's place in the prepared table (n,)."""

    def chosen(self, which: npt.NDArray[np.bool_]) -> "Examples":
        """Return the rows that `which` (n,) holds true."""
        time = self.time[which] if len(self.time) else self.time
        return Examples(self.features.rows(which), self.target[which], time, self.position[which])


def joined(one: Examples, other: Examples) -> Examples:
    """Return the rows of one, then those of the other."""
    return Examples(
        Features(
            np.concatenate([one.features.number, other.features.number]),
            np.concatenate([one.features.category, other.features.category]),
        ),
        np.concatenate([one.target, other.target]),
        np.concatenate([one.time, other.time]),
        np.concatenate([one.position, other.position]),
    )


def dataset(prepared: "Prepared", plan: FeaturePlan, part: str, unlabelled: bool = False) -> "ray.data.Dataset":
    """Return the examples of a part as a lazy stream over the cluster, whatever their number.

    Columns: number (n, N) float32, category (n, C) int64, target float32, time int64 (where declared), position
    int64. Rows without a label are left out, unless `unlabelled`: then their target is NaN.
    """
    encode = partial(_encode_block, prepared=without_fragments(prepared), plan=plan, part=part, unlabelled=unlabelled)
    found = tasks(prepared).map_batches(encode, batch_size=None, batch_format="pyarrow", zero_copy_batch=True)
    found.context.target_max_block_size = _BLOCK_BYTES
    limits = found.context.execution_options.resource_limits
    found.context.execution_options.resource_limits = limits.copy(object_store_memory=_BLOCKS_AHEAD * _BLOCK_BYTES)
    return found


def load(prepared: "Prepared", plan: FeaturePlan, part: str, unlabelled: bool = False) -> Examples:
    """Return the examples of a part in memory, in order of position; no cluster is needed."""

    def encode(fragment: Fragment) -> list[Examples]:
        return list(_examples(prepared, [fragment], plan, part, unlabelled))

    with ThreadPoolExecutor(_THREADS) as pool:
        found = [piece for some in pool.map(encode, prepared.fragments) for piece in some]
    if not found:
        found = [_nothing(plan)]
    return Examples(
        Features(
            np.concatenate([piece.features.number for piece in found]),
            np.concatenate([piece.features.category for piece in found]),
        ),
        np.concatenate([piece.target for piece in found]),
        np.concatenate([piece.time for piece in found]),
        np.concatenate([piece.position for piece in found]),
    )


def read_columns(prepared: "Prepared", part: str, columns: Sequence[str], unlabelled: bool = False) -> pa.Table:
    """Return raw columns of a part, row for row those of `load`."""
    found = [table for _, table in pieces(prepared, prepared.fragments, part, columns, (), unlabelled)]
    schema = pa.schema([prepared.schema.field(name) for name in columns])
    return pa.concat_tables(found) if found else schema.empty_table()


def _encode_block(
    block: pa.Table, prepared: "Prepared", plan: FeaturePlan, part: str, unlabelled: bool
) -> Iterator[pa.Table]:
    found = False
    for piece in _examples(prepared, fragments_of_task(block), plan, part, unlabelled):
        found = True
        yield _table(piece, plan)
    if not found:  # a block without rows still tells its columns
        yield _table(_nothing(plan), plan)


def _table(piece: Examples, plan: FeaturePlan) -> pa.Table:
    """Return examples as Arrow, without a copy; Ray itself would guess types from Python objects, at twice the cost."""
    from ray.data.extensions import ArrowTensorArray  # tensors as Ray's iterators know them

    columns = {
        "number": ArrowTensorArray.from_numpy(piece.features.number),
        "category": ArrowTensorArray.from_numpy(piece.features.category),
        "target": pa.array(piece.target),
        "position": pa.array(piece.position),
    }
    return pa.table(columns if plan.time is None else {**columns, "time": pa.array(piece.time)})


def _examples(
    prepared: "Prepared", fragments: Sequence[Fragment], plan: FeaturePlan, part: str, unlabelled: bool
) -> Iterator[Examples]:
    time = [] if plan.time is None else [plan.time]
    columns = [*plan.names, plan.target.name, *time]
    text = [column.name for column in plan.category if column.kind == "string"]
    for positions, table in pieces(prepared, fragments, part, columns, text, unlabelled):
        yield _example(plan, positions, table)


def _example(plan: FeaturePlan, positions: Positions, table: pa.Table) -> Examples:
    target = plan.target.encode(table.column(plan.target.name))
    time = np.empty(0, np.int64)
    if plan.time is not None:
        time = table.column(plan.time).cast(pa.int64()).to_numpy()
    return Examples(plan.encode(table), target, time, positions)


def _nothing(plan: FeaturePlan) -> Examples:
    features = Features(np.empty((0, len(plan.number)), np.float32), np.empty((0, len(plan.category)), np.int64))
    return Examples(features, np.empty(0, np.float32), np.empty(0, np.int64), np.empty(0, np.int64))
