"""Score a whole table into a table, distributed: the same feature function and the same graph as the endpoint."""

import datetime as dt
import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.data.contract import Contract
from app.data.files import list_files
from app.data.sources import Fragment, fragments_of, read, read_schema, with_floats
from app.data.unlabelled import declared_features
from app.model.bundle import open_bundle
from app.serving.arrow_codec import predictions
from app.spec import Data
from app.telemetry import JobMetrics
from app.types import UserError
from app.workspace import delete, exists, join, read_bytes, resolve, write_bytes
from app.workspace import list_files as list_folder

_MANIFEST = "manifest.json"
_FILE = re.compile(r"(part|rejected)-\d{5,}\.parquet")


@dataclass(frozen=True)
class Predicted:
    """Numbers of scored rows, and of those that broke the contract by reason."""

    rows: int
    rejected: dict[str, int]


def predict_table(bundle_uri: str, model: str, source: str, base: Path, out: str, use_gpu: bool = False) -> Predicted:
    """Score the table at `source` into the folder or URI `out`; Ray must be initialised.

    `out/part-*.parquet` hold the key (or `row`, the row's place in the table), score, label and, for multiclass,
    scores; `out/rejected-*.parquet` the rows that broke the contract, with the reason. The manifest comes last: a
    second call with the same bundle and source finds it and does nothing. Raises UserError for tables that cannot
    be read or lack a feature, and when `out` holds other predictions, such as those of a table that has changed since.
    What a call that was killed left in `out` is replaced; no file of the table may be there.
    """
    import ray.data

    files = list_files(Data(source=source), base)
    if resolve(out)[1] in {resolve(file.uri)[1].rpartition("/")[0] for file in files}:
        raise UserError(f"{out} holds the table itself; name another folder for its predictions")
    asked = {
        "model": model,
        "bundle": bundle_uri,
        "source": source,
        "files": [[file.uri, file.size, file.modified_ns] for file in files],
    }
    manifest = join(out, _MANIFEST)
    if exists(manifest):
        found = _read_manifest(manifest)
        if {name: found.get(name) for name in asked} != asked:
            raise UserError(
                f"{out} holds predictions of {found['model']} for {found['source']} as it was then; name another folder"
            )
        return Predicted(found["rows"], found["rejected"])
    fragments = fragments_of(files)
    # What is wrong with the table is wrong here; a head without a GPU is not.
    scorer = _Scorer(bundle_uri, read_schema(fragments), out, use_gpu=False)
    items = [{"number": i, "fragment": json.dumps(asdict(fragment))} for i, fragment in enumerate(fragments)]
    workers = min(len(items), max(1, int(ray.cluster_resources().get("CPU", 1))))  # type: ignore[no-untyped-call]
    counted = ray.data.from_items(items, override_num_blocks=len(items)).map(
        _Scorer,  # type: ignore[arg-type]  # a class is made once an actor
        fn_constructor_args=(bundle_uri, scorer.schema, out, use_gpu),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        num_cpus=1,
        num_gpus=1 if use_gpu else 0,
    )
    rows, rejected, written = 0, Counter[str](), set[str]()
    for result in counted.iter_rows():
        if result["error"]:
            raise UserError(result["error"])
        rows += result["rows"]
        rejected.update(json.loads(result["rejected"]))
        written.update(json.loads(result["files"]))
    _delete_others(out, written)
    write_bytes(manifest, json.dumps(asked | {"rows": rows, "rejected": rejected}).encode())
    JobMetrics(model.partition("/")[0]).scored(rows, rejected.total())
    return Predicted(rows, dict(rejected))


class _Scorer:
    """One worker: a bundle in memory; fragment in, two Parquet files out, counts returned."""

    def __init__(self, bundle_uri: str, schema: pa.Schema, out: str, use_gpu: bool) -> None:
        bundle = open_bundle(bundle_uri)
        self._out = out
        self._plan = bundle.plan
        self.schema = schema
        self._threshold = bundle.spec.task.threshold
        self._runtime = bundle.runtime(use_gpu)
        self._key = self._plan.key if self._plan.key in schema.names else None
        if self._key is None:  # rows without a name are named by their place in the table
            self._place = next(name for name in ("row", "row_number", "evertrue_row") if name not in schema.names)
            schema = schema.append(pa.field(self._place, pa.int64()))
        self._contract = Contract.of_features(declared_features(bundle.plan), schema, self._key or self._place)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        """Score a fragment; a user's mistake travels back as data, for Ray would bury it in tracebacks."""
        try:
            return self._score(item) | {"error": ""}
        except UserError as error:
            return {"rows": 0, "rejected": "{}", "files": "[]", "error": str(error)}

    def _score(self, item: dict[str, Any]) -> dict[str, Any]:
        fragment = Fragment(**json.loads(item["fragment"]))
        schema = with_floats(self.schema, [fragment], {column.name for column in self._plan.number})
        columns = [name for name in self._contract.columns if name in self.schema.names]
        scored, rejected, reasons = [], [], Counter[str]()
        for start, table in read(fragment, columns, self._contract.dictionary, schema):
            if self._key is None:
                table = table.append_column(self._place, pa.array(np.arange(start, start + table.num_rows)))
            checked = self._contract.check(table, dt.datetime.now(dt.UTC))
            scores = self._runtime.score(self._plan.encode(checked.kept))
            name = self._key or self._place
            answers = predictions(self._plan.target, scores, self._threshold)
            scored.append(pa.table({name: checked.kept[name], **answers}))
            rejected.append(checked.rejected)
            reasons.update(checked.counts)
        tables = {"part": scored, "rejected": rejected if reasons else []}
        files = {f"{name}-{item['number']:05d}.parquet": found for name, found in tables.items() if found}
        for name, found in files.items():
            _write(join(self._out, name), pa.concat_tables(found))
        rows = sum(table.num_rows for table in scored)
        return {"rows": rows, "rejected": json.dumps(reasons), "files": json.dumps(list(files))}


def _read_manifest(uri: str) -> dict[str, Any]:
    try:
        found = json.loads(read_bytes(uri))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"model", "source", "rows", "rejected"} <= found.keys():
        raise UserError(f"{uri} is no manifest of predictions; name another folder")
    return found


def _delete_others(out: str, written: set[str]) -> None:
    """Delete what a call that was killed left there: of another version, or of the table as it was."""
    for file in list_folder(out):
        if _FILE.fullmatch(file.name) and file.name not in written:
            delete(join(out, file.name))


def _write(uri: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(uri, sink.getvalue().to_pybytes())
