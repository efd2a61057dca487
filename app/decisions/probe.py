"""What would a retraining gain? Two small models tell for a few seconds of one CPU what a network's training would cost.

Both are boosted trees with the champion's features: one learns from what the champion knew, one from all that is known
now but for the newest rows, which judge them. Their difference is what age alone costs, apart from any difference
between trees and network. It is compared day by day, with the gate's confidence.
"""

import time
from dataclasses import dataclass, replace

import lightgbm
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from app.data.encode import Examples, load
from app.data.features import FeaturePlan
from app.data.loss import row_loss
from app.data.prepare import in_process, prepare
from app.data.split import Cut
from app.declaration import Declaration
from app.journal.export import labelled_pieces
from app.journal.steps import Journal
from app.model.bundle import open_bundle
from app.spec import Spec
from app.training.baseline import matrix, objective
from app.training.bootstrap import FEWEST_BLOCKS, blocks_of_days
from app.training.evidence import compare, everything
from app.types import Features, Scores, UserError
from app.workspace import Workspace

MOST_ROWS = 100_000
"""Rows each model learns from, evenly drawn in time, and rows that judge."""
ROUNDS = 120
_EVER = 2**62
_SETTINGS = {
    "learning_rate": 0.08,
    "num_leaves": 31,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.7,
    "verbosity": -1,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
}


@dataclass(frozen=True)
class Gain:
    """What fresh rows gain, relative to the loss of the model without them, with the ends of its interval.

    Judged on `rows` rows of `days` days, at the cost of `seconds` of CPU.
    """

    relative: float
    low: float
    high: float
    rows: int
    days: int
    seconds: float


def probe(declaration: Declaration, workspace: Workspace, champion: str, until: int) -> Gain:
    """Probe a champion, by its bundle's address, with the table and the journal's labelled rows up to `until` (ms).

    Raises UserError for a table without times and where there are too few rows to tell.
    """
    bundle = open_bundle(champion)
    plan, trained_until = bundle.plan, bundle.data["trained_until"]
    if plan.time is None or trained_until is None:
        raise UserError("a probe needs data.time: it compares what was known before with what is known now")
    return gain(declaration.spec, plan, _examples(declaration, workspace, plan, until), trained_until)


def gain(spec: Spec, plan: FeaturePlan, examples: Examples, trained_until: int) -> Gain:
    """Compare a model of the rows up to `trained_until` (ms) with one of all but the newest; the newest judge both.

    The newest are those of `gate.window`, but of no more than half the time since `trained_until`. Raises UserError
    where they are too few.
    """
    begin = time.process_time()
    moments = examples.time
    newest = int(moments.max(initial=0))
    window = min(round(spec.gate.window.total_seconds() * 1000), (newest - trained_until) // 2)
    judging = np.flatnonzero(moments > newest - window)
    blocks = blocks_of_days(moments[judging])
    if len(judging) < spec.gate.min_rows or blocks.number < FEWEST_BLOCKS:
        raise UserError(
            f"{len(judging):,} labelled rows of {blocks.days} days are too few to judge by; at least "
            f"{spec.gate.min_rows:,} of {FEWEST_BLOCKS} days are needed"
        )
    judging = _drawn(judging)
    blocks = blocks_of_days(moments[judging])
    target, features = examples.target[judging], examples.features.rows(judging)
    stale, fresh = (
        row_loss(plan.target, _learn(plan, examples, _drawn(rows), spec.train.seed, features), target)
        for rows in (np.flatnonzero(moments <= trained_until), np.flatnonzero(moments <= newest - window))
    )
    [found] = compare(spec.gate, spec.train.seed, blocks, [everything(len(judging))], fresh, stale)
    return Gain(
        relative=-found.difference / found.opponent,
        low=-found.high / found.opponent,
        high=-found.low / found.opponent,
        rows=found.rows,
        days=blocks.days or 0,
        seconds=time.process_time() - begin,
    )


def _examples(declaration: Declaration, workspace: Workspace, plan: FeaturePlan, until: int) -> Examples:
    """Return the labelled rows of the declared table, which a training has prepared, and of the journal."""
    prepared = prepare(declaration, workspace, in_process)
    everything = replace(prepared, cut=Cut(plan.time, validation_from=_EVER))
    journal = Journal.open(workspace, declaration.spec.name)
    timezone = declaration.spec.data.timezone
    found = [load(everything, plan, "train")]
    for table in labelled_pieces(journal, plan, prepared.schema, None, until + 1, timezone):
        moments = table.column(plan.time).cast(pa.int64()).to_numpy()
        target = plan.target.encode(table.column(plan.target.name))
        found.append(Examples(plan.encode(table), target, moments, np.arange(table.num_rows)))
    return Examples(
        Features(
            np.concatenate([piece.features.number for piece in found]),
            np.concatenate([piece.features.category for piece in found]),
        ),
        *(np.concatenate([getattr(piece, name) for piece in found]) for name in ("target", "time", "position")),
    )


def _drawn(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return at most MOST_ROWS of the rows, evenly."""
    every = -(-len(rows) // MOST_ROWS)
    return rows[::every] if every > 1 else rows


def _learn(plan: FeaturePlan, examples: Examples, rows: npt.NDArray[np.int64], seed: int, judged: Features) -> Scores:
    """Boost trees on some rows and return their scores of the judged ones."""
    settings = _SETTINGS | objective(plan.target) | {"seed": seed}
    known = rows[~np.isnan(examples.target[rows])]
    categories = list(range(len(plan.number), len(plan.names)))
    data = lightgbm.Dataset(
        matrix(examples.features.rows(known)), examples.target[known], categorical_feature=categories
    )
    booster = lightgbm.train(settings, data, num_boost_round=ROUNDS)
    return np.asarray(booster.predict(matrix(judged), num_threads=1), np.float32)
