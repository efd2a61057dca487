"""How does a service learn anew? From its declared table and all it has answered since, up to a judged challenger.

The newest rows with a label do not train: on them the new version is judged against the champion, which has not
seen them either. So they are those of `gate.window`, but of no more than half the time since the champion learned.
"""

import datetime as dt
import logging
import resource
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from app.compression import compress
from app.data import prepare
from app.data.files import list_files
from app.data.moments import to_moments
from app.data.sources import Fragment, fragments_of, read, read_schema, with_floats
from app.decisions.retrain import Outcome, read_outcome, write_outcome
from app.declaration import Declaration
from app.journal.export import labelled_pieces
from app.journal.steps import Journal
from app.model.bundle import Bundle, open_bundle
from app.pipeline import make_version
from app.registry import Registry
from app.spec import CategoryFeature, NumberFeature, Spec, Value
from app.types import UserError
from app.workspace import Workspace, delete, delete_folder, exists, resolve, write_bytes

log = logging.getLogger(__name__)

Export: TypeAlias = Callable[[pa.Schema, int | None], pa.Table]
"""Gives the journal's labelled rows up to an event time (ms, UTC), in the schema of the declared table."""


def from_journal(workspace: Workspace, spec: Spec) -> Export:
    """Return what exports the rows that the service has answered and heard the truth of."""

    def export(schema: pa.Schema, until: int | None) -> pa.Table:
        plan = open_bundle(Registry.open(workspace, spec.name).chosen(None).bundle).plan
        end = None if until is None else until + 1
        found = [*labelled_pieces(Journal.open(workspace, spec.name), plan, schema, None, end, spec.data.timezone)]
        return pa.concat_tables(found) if found else schema.empty_table()

    return export


def retrain_version(
    declaration: Declaration,
    workspace: Workspace,
    decision: str,
    reason: str,
    until: int | None,
    export: Export,
    attempt: int = 1,
) -> Outcome:
    """Make a version of the declared table and the journal's labelled rows; what passes the gate becomes challenger.

    It is never promoted: that is up to the rollout. The same decision again goes on where it was stopped, and finds
    the outcome when it was not. Of one that ended well, rows, prepared table and checkpoints are deleted. Ray must be initialised. Raises UserError as `make_version`, and when there is no
    champion or no new row with a label; an outcome is written even then.
    """
    name = declaration.spec.name
    before = read_outcome(workspace, name, decision)
    if before is not None and before.error is None:
        _tidy(workspace, name, before)
        return before
    spent = 0.0 if before is None else before.cpu_seconds
    try:
        outcome = _retrain(declaration, workspace, decision, reason, until, export)
    except Exception as error:  # whoever waits for the outcome has to hear of it
        failed = Outcome(decision, spent + _cpu_seconds(), error=f"{type(error).__name__}: {error}", attempt=attempt)
        write_outcome(workspace, name, failed)
        raise
    outcome = replace(outcome, cpu_seconds=spent + _cpu_seconds(), attempt=attempt)
    write_outcome(workspace, name, outcome)
    _tidy(workspace, name, outcome)
    return outcome


def _tidy(workspace: Workspace, name: str, outcome: Outcome) -> None:
    """Delete what only another attempt would need: the journal has the rows, the bundle what was learned from them."""
    assert outcome.bundle is not None, "the retraining has ended well"
    delete(_rows_uri(workspace, name, outcome.decision))
    prepare.forget(workspace, name, open_bundle(outcome.bundle).data["fingerprint"])
    delete_folder(workspace.uri(name, "checkpoints", outcome.decision))  # its members' lie below


def _rows_uri(workspace: Workspace, name: str, decision: str) -> str:
    return workspace.uri(name, "retrain", decision, "rows.parquet")


def _retrain(
    declaration: Declaration, workspace: Workspace, decision: str, reason: str, until: int | None, export: Export
) -> Outcome:
    spec = declaration.spec
    versions = Registry.open(workspace, spec.name)
    champion = versions.champion()
    if champion is None:
        raise UserError(f"{spec.name!r} has no champion to retrain; train one with jobs.train")
    bundle = open_bundle(champion.bundle)
    uri = _rows_uri(workspace, spec.name, decision)
    if not exists(uri):  # an attempt that goes on needs the very rows of the one before
        _write(uri, _new_rows(declaration, bundle, until, export))
    extended = replace(declaration, spec=extend(spec, uri, _newest(spec, uri), bundle))
    if is_compressed(bundle):
        version = compress(extended, workspace, decision, reason, better=True).version
    else:
        start = bundle if spec.retrain.warm_start else None
        version = make_version(extended, workspace, decision, reason, start, still_open(spec, bundle))
    if version.verdict.passed:
        versions.challenge(version.number)
    return Outcome(
        decision=decision,
        cpu_seconds=0.0,
        version=version.number,
        bundle=version.bundle,
        passed=version.verdict.passed,
        reasons=version.verdict.reasons,
        figures=version.verdict.figures,
        trained_until=version.contents.origin.trained_until,
    )


def is_compressed(champion: Bundle) -> bool:
    """Say whether the champion is the smaller form of a larger network: then what follows it is one, too."""
    return champion.metrics.get("compression") is not None


def still_open(spec: Spec, champion: Bundle) -> dict[str, Value]:
    """Return the settings that a search found for the champion, as far as the declaration leaves them open."""
    found: dict[str, Value] = champion.data.get("tuned", {})
    fixed = {"train.epochs"} if spec.retrain.epochs else set()
    return {place: value for place, value in found.items() if spec.left_open(place) and place not in fixed}


def extend(spec: Spec, rows: str, newest: int, champion: Bundle) -> Spec:
    """Return what is to be trained: the declaration with the rows at address `rows`, the newest of event time `newest`.

    Features and task are the champion's where the declaration leaves them to be found out.
    """
    declared = [spec.data.source] if isinstance(spec.data.source, str) else spec.data.source
    plan, split = champion.plan, spec.data.split
    features = spec.features or {
        **{column.name: NumberFeature(type="number") for column in plan.number},
        **{column.name: CategoryFeature(type="category") for column in plan.category},
    }
    train_until = judged_from(spec, newest, champion.data["trained_until"])
    parts = {"train_until": train_until, "validation": spec.retrain.validation}
    return spec.model_copy(
        update={
            "task": spec.task.model_copy(update={"type": plan.target.task}),
            "data": spec.data.model_copy(
                update={"source": [*declared, rows], "split": split.model_copy(update=parts)}
            ),
            "features": features,
            # the champion is the opponent: trees would cost more than the network, and decide nothing
            "train": spec.train.model_copy(update={"epochs": _epochs(spec, champion), "baseline": False}),
        }
    )


def _epochs(spec: Spec, champion: Bundle) -> int:
    """Return the passes of a retraining; the teachers of a compressed one begin anew."""
    return spec.train.epochs if is_compressed(champion) else spec.retrain.epochs or spec.train.epochs


def judged_from(spec: Spec, newest: int, trained_until: int) -> dt.datetime:
    """Return the moment from which on rows judge: both models have learned from older ones alone."""
    window = min(round(spec.gate.window.total_seconds() * 1000), (newest - trained_until) // 2)
    return dt.datetime.fromtimestamp((newest - window) / 1000, dt.UTC)


def _new_rows(declaration: Declaration, champion: Bundle, until: int | None, export: Export) -> pa.Table:
    """Return the journal's labelled rows that are not in the declared table. Raises UserError when there are none."""
    spec = declaration.spec
    if spec.data.time is None:
        raise UserError("a retraining needs data.time: it is judged on the newest rows")
    fragments = fragments_of(list_files(spec.data, declaration.path.resolve().parent))
    schema = with_floats(read_schema(fragments), fragments, {column.name for column in champion.plan.number})
    found = export(schema, until)
    if spec.data.key is not None:
        found = _without_known(found, fragments, spec.data.key)
    if found.num_rows == 0:
        raise UserError("the journal has no labelled rows that are not in the declared table: nothing to learn anew")
    log.info("%s labelled rows from the journal", f"{found.num_rows:,}")
    return found


def _without_known(rows: pa.Table, fragments: list[Fragment], key: str) -> pa.Table:
    """Leave out the rows whose key is in the declared table, which may have grown since."""
    keys = rows.column(key)
    known = np.zeros(len(keys), np.bool_)
    for fragment in fragments:
        for _, table in read(fragment, [key]):
            known |= pc.is_in(keys, value_set=table.column(key).combine_chunks()).to_numpy()
    return rows.filter(pa.array(~known))


def _newest(spec: Spec, uri: str) -> int:
    """Return the event time (ms, UTC) of the newest row."""
    filesystem, path = resolve(uri)
    column = pq.read_table(path, columns=[spec.data.time], filesystem=filesystem).column(0)
    newest: int = pc.max(to_moments(column, spec.data.timezone)).cast(pa.int64()).as_py()
    return newest


def _write(uri: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(uri, sink.getvalue().to_pybytes())


def _cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its children that have ended."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in used)
