"""Which rows of the prepared table belong to a part, and who reads them: pieces here, tasks over the cluster."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from app.data.sources import Fragment, read
from app.data.split import PARTS
from app.data.statistics import Positions
from app.types import UserError

if TYPE_CHECKING:
    import ray.data

    from app.data.prepare import Prepared

TASKS_PER_CPU = 2
"""Tasks a CPU gets, so that all end at about the same time."""

MOST_FRAGMENTS = 32
"""Fragments of one task: about four million rows, so that a lost worker costs seconds."""


def pieces(
    prepared: "Prepared",
    fragments: Iterable[Fragment],
    part: str,
    columns: Sequence[str],
    dictionary: Sequence[str] = (),
    unlabelled: bool = False,
) -> Iterator[tuple[Positions, pa.Table]]:
    """Yield (positions (n,) ascending, columns) of the rows in a part, in pieces of bounded size, none empty.

    Rows without a label (null or NaN) are in no part unless `unlabelled`. `dictionary` names text columns to read
    dictionary-encoded. A fragment of which no row is in the part costs the reading of its time alone.
    """
    if part not in PARTS:
        raise UserError(f"part: found {part!r}, allowed {', '.join(PARTS)}")
    decisive = [] if prepared.cut.time is None else [prepared.cut.time]
    needed = list(dict.fromkeys([*columns, prepared.target, *decisive]))
    for fragment in fragments:
        if decisive and not _touches(prepared, fragment, part, decisive):
            continue
        for start, table in read(fragment, needed, dictionary):
            chosen = prepared.cut.assign(table, start) == PARTS[part]
            if not unlabelled:
                chosen &= labelled(table.column(prepared.target))
            index = np.flatnonzero(chosen)
            if len(index) == 0:
                continue
            table = table.select(columns)
            yield start + index, table if len(index) == table.num_rows else table.take(pa.array(index))


def labelled(target: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Return which rows (n,) have a label: neither null nor NaN."""
    if target.null_count == 0 and not pa.types.is_floating(target.type):
        return np.ones(len(target), np.bool_)
    present: npt.NDArray[np.bool_] = pc.invert(pc.is_null(target, nan_is_null=True)).to_numpy()
    return present


def _touches(prepared: "Prepared", fragment: Fragment, part: str, decisive: list[str]) -> bool:
    found = read(fragment, decisive)
    return any(bool((prepared.cut.assign(table, start) == PARTS[part]).any()) for start, table in found)


def tasks(prepared: "Prepared") -> "ray.data.Dataset":
    """Return a dataset whose blocks are one task's fragments each; `fragments_of_task` reads a block."""
    import ray  # only where a cluster is at hand

    cpus = max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]
    fragments = prepared.fragments
    size = min(MOST_FRAGMENTS, -(-len(fragments) // (TASKS_PER_CPU * cpus)))
    rows = [asdict(fragment) for fragment in fragments]
    return ray.data.from_arrow([pa.Table.from_pylist(rows[i : i + size]) for i in range(0, len(rows), size)])


def fragments_of_task(block: pa.Table) -> list[Fragment]:
    """Return the fragments of a block of `tasks`."""
    return [Fragment(**row) for row in block.to_pylist()]


def without_fragments(prepared: "Prepared") -> "Prepared":
    """Return what every task has to know; its fragments come by themselves."""
    return replace(prepared, fragments=[])
