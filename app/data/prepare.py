"""How does a declared table become checked rows? Every fragment by some worker, the result kept by its fingerprint."""

import datetime as dt
import hashlib
import json
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
from pydantic import TypeAdapter

from app.data.contract import Contract
from app.data.features import TaskType
from app.data.files import SourceFile, list_files
from app.data.sources import Fragment, fragments_of, read, read_schema, with_floats
from app.data.split import Cut, TimeSketch, cut_by_position, cut_by_time
from app.data.target import Labels, resolve_task
from app.data.units import Checker, Partial, Unit, divide, drop_repeated, repeated_keys
from app.declaration import Declaration
from app.spec import CategoryFeature, Feature, NumberFeature, Spec
from app.types import UserError
from app.workspace import Workspace, delete, delete_folder, exists, join, read_bytes, resolve, write_bytes

LAYOUT = 1  # of the folder; a change makes every table be prepared anew
SAMPLE_ROWS = 10_000  # rows that inferring features looks at, in the first, a middle and the last fragment each
BUCKET_KEYS = 2_000_000  # keys compared at once
TEXT_ROW_BYTES = 32  # a guess, and rather too small: a row of text is hardly shorter

Json: TypeAlias = dict[str, Any]
Work: TypeAlias = Callable[[Json], Json]
Runner: TypeAlias = Callable[[Work, Sequence[Json]], Iterator[Json]]
"""Does the same work on many items, somewhere, and yields the results in any order; items and results are JSON."""

_FEATURES: TypeAdapter[dict[str, NumberFeature | CategoryFeature]] = TypeAdapter(dict[str, Feature])


@dataclass(frozen=True)
class Prepared:
    """Checked rows of a declared table, ready to be fitted, encoded and split.

    `labelled` counts the rows with a label: only these train, validate and test. `quarantined` is rows by reason,
    `quarantine` where they lie, `notes` say which columns were left aside.
    """

    fragments: list[Fragment]
    schema: pa.Schema
    features: dict[str, NumberFeature | CategoryFeature]
    target: str
    task: TaskType
    rows: int
    labelled: int
    quarantined: dict[str, int]
    quarantine: str
    fingerprint: str
    cut: Cut
    notes: list[str]


def prepare(declaration: Declaration, workspace: Workspace, run: Runner | None = None) -> Prepared:
    """Read, check and write the declared table, or return what an earlier call wrote of the same files and sections.

    Work runs on Ray unless `run` says otherwise. Raises UserError for a source, column, rule or target that cannot
    be used, a part of the split that would be empty, and for more rejected rows than `quality.max_rejected`.
    """
    spec = declaration.spec
    run = on_ray if run is None else run
    base = declaration.path.resolve().parent
    files = list_files(spec.data, base)
    fingerprint = fingerprint_of(spec, files, base)
    folder = workspace.uri(spec.name, "data", fingerprint)
    if not exists(_manifest_uri(folder)):
        _prepare(spec, files, folder, run)
    return _load(folder, fingerprint)


def forget(workspace: Workspace, name: str, fingerprint: str) -> None:
    """Delete a service's prepared table, which is prepared anew should anybody ask for it again."""
    folder = workspace.uri(name, "data", fingerprint)
    delete(_manifest_uri(folder))  # first, so that nobody finds half of it
    delete_folder(folder)


def fingerprint_of(spec: Spec, files: Sequence[SourceFile], base: Path) -> str:
    """Return a name (20 hexadecimal digits of a SHA-256) for the files as they are and what is asked of them."""
    whole = spec.dump()
    asked = {name: whole[name] for name in ("task", "data", "features", "quality")}
    asked["data"].pop("source")
    found = [(file.uri.removeprefix(f"{base}/"), file.size, file.modified_ns) for file in files]
    content = json.dumps([LAYOUT, asked, spec.gate.slices, whole["retrain"]["window"], found], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:20]


def on_ray(work: Work, items: Sequence[Json]) -> Iterator[Json]:
    """Run on Ray Data, one task an item. Raises UserError of the first item that failed with one."""
    import ray.data  # the rest of this file does without Ray, and it takes seconds to import

    rows = [{"item": json.dumps(item)} for item in items]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(partial(_guarded, work))
    for row in dataset.iter_rows():
        result = json.loads(row["result"])
        if "error" in result:
            raise UserError(result["error"])
        yield result


def in_process(work: Work, items: Sequence[Json]) -> Iterator[Json]:
    """Run here, one item after the other: for small tables and tests."""
    return map(work, items)


def _guarded(work: Work, row: dict[str, str]) -> dict[str, str]:
    """Do one item's work; a user's mistake travels back as data, for Ray would bury it in tracebacks."""
    try:
        result = work(json.loads(row["item"]))
    except UserError as error:
        result = {"error": str(error)}
    return {"result": json.dumps(result)}


def _prepare(spec: Spec, files: Sequence[SourceFile], folder: str, run: Runner) -> None:
    fragments = fragments_of(files)
    contract = _contract(spec, fragments)
    units = divide(fragments)
    keys = join(folder, f"keys-{uuid.uuid4().hex}")
    buckets = 1 + _most_rows(fragments, files) // BUCKET_KEYS
    checker = Checker(contract, folder, keys, buckets, dt.datetime.now(dt.UTC))
    try:
        results = run(partial(_check, checker), [asdict(unit) for unit in units])
        parts = sorted(map(Partial.from_json, results), key=lambda part: part.number)
        if contract.key is not None:
            parts = _drop_repeated(checker, parts, run)
    finally:
        _remove(keys)
    rejected: dict[str, int] = {}
    for part in parts:
        for reason, count in part.rejected.items():
            rejected[reason] = rejected.get(reason, 0) + count
    _keep_budget(spec.quality.max_rejected, sum(part.read for part in parts), rejected, join(folder, "quarantine"))
    labels = Labels.merge([part.labels for part in parts])
    task = resolve_task(spec.task, labels)
    kept = _fragments(parts)
    rows = sum(fragment.rows or 0 for fragment in kept)
    if contract.time is None:
        cut = cut_by_position(spec, rows)
    else:
        cut = cut_by_time(spec, TimeSketch.merge([part.sketch for part in parts]))
    manifest = {
        "fragments": [asdict(fragment) for fragment in kept],
        "features": _FEATURES.dump_python(contract.features, mode="json"),
        "target": contract.target,
        "task": task,
        "rows": rows,
        "labelled": labels.rows,
        "quarantined": dict(sorted(rejected.items(), key=lambda item: -item[1])),
        "cut": asdict(cut),
        "notes": list(contract.notes),
    }
    write_bytes(_manifest_uri(folder), json.dumps(manifest, indent=1).encode())


def _load(folder: str, fingerprint: str) -> Prepared:
    manifest = json.loads(read_bytes(_manifest_uri(folder)))
    fragments = [Fragment(**fragment | {"uri": join(folder, fragment["uri"])}) for fragment in manifest["fragments"]]
    return Prepared(
        fragments=fragments,
        schema=read_schema(fragments[:1]),
        features=_FEATURES.validate_python(manifest["features"]),
        target=manifest["target"],
        task=manifest["task"],
        rows=manifest["rows"],
        labelled=manifest["labelled"],
        quarantined=manifest["quarantined"],
        quarantine=join(folder, "quarantine"),
        fingerprint=fingerprint,
        cut=Cut(**manifest["cut"]),
        notes=manifest["notes"],
    )


def _manifest_uri(folder: str) -> str:
    return join(folder, "prepared.json")


def _contract(spec: Spec, fragments: Sequence[Fragment]) -> Contract:
    """Return the contract with the table, looking at some of its rows where features are to be inferred."""
    schema = read_schema(fragments)
    sample = None
    if spec.features is None:
        chosen = [fragments[number] for number in sorted({0, len(fragments) // 2, len(fragments) - 1})]
        pieces = [next(read(fragment, schema=schema), None) for fragment in chosen]
        found = [piece[1].slice(0, SAMPLE_ROWS) for piece in pieces if piece is not None]
        # a file without rows proves nothing about its columns; that all are so is told when they have been read
        sample = pa.concat_tables(found) if any(piece.num_rows for piece in found) else None
    contract = Contract.of(spec, schema, sample)
    numbers = {name for name, feature in contract.features.items() if feature.type == "number"}
    return Contract.of(spec, with_floats(schema, fragments, numbers), sample)


def _most_rows(fragments: Sequence[Fragment], files: Sequence[SourceFile]) -> int:
    """Return a number of rows that the table hardly exceeds."""
    counted = sum(fragment.rows or 0 for fragment in fragments)
    return counted + sum(file.size for file in files if file.format != "parquet") // TEXT_ROW_BYTES


def _check(checker: Checker, unit: Json) -> Json:
    return checker.check(Unit(unit["number"], tuple(Fragment(**item) for item in unit["fragments"]))).to_json()


def _find_repeated(checker: Checker, units: list[int], item: Json) -> Json:
    return {"rows": repeated_keys(checker.keys, units, item["bucket"], checker.buckets)}


def _drop_rows(checker: Checker, item: Json) -> Json:
    return drop_repeated(checker.contract, checker.folder, Partial.from_json(item["partial"]), item["rows"]).to_json()


def _drop_repeated(checker: Checker, parts: list[Partial], run: Runner) -> list[Partial]:
    """Set aside every row whose key stood earlier in the table."""
    units = [part.number for part in parts if part.read]
    repeated: dict[int, list[int]] = {}
    buckets = [{"bucket": bucket} for bucket in range(checker.buckets)]
    for result in run(partial(_find_repeated, checker, units), buckets):
        for unit, rows in result["rows"].items():
            repeated.setdefault(int(unit), []).extend(rows)
    if not repeated:
        return parts
    items = [{"partial": part.to_json(), "rows": repeated[part.number]} for part in parts if part.number in repeated]
    changed = {result["number"]: Partial.from_json(result) for result in run(partial(_drop_rows, checker), items)}
    return [changed.get(part.number, part) for part in parts]


def _keep_budget(most: float, rows: int, rejected: dict[str, int], quarantine: str) -> None:
    """Raise UserError with a table of the reasons when too many rows, or all, were rejected."""
    bad = sum(rejected.values())
    if rows == 0:
        raise UserError("the table is empty: its files hold no rows")
    if bad <= most * rows and bad < rows:
        return
    lines = [f"{count:>12,}  {reason}" for reason, count in sorted(rejected.items(), key=lambda item: -item[1])]
    raise UserError(
        f"{bad:,} of {rows:,} rows ({bad / rows:.1%}) break the contract; quality.max_rejected allows {most:.1%}\n"
        + "\n".join([f"{'rows':>12}  reason", *lines])
        + f"\nthey lie in {quarantine}"
    )


def _fragments(parts: Sequence[Partial]) -> list[Fragment]:
    """Return the kept files as fragments, addresses relative to the folder; files left without rows are none."""
    fragments: list[Fragment] = []
    start = 0
    for part in parts:
        for name, rows in part.files:
            if rows:
                fragments.append(Fragment(name, "parquet", 0, start, rows))
                start += rows
    return fragments


def _remove(uri: str) -> None:
    filesystem, path = resolve(uri)
    if exists(uri):
        filesystem.delete_dir(path)
