"""Score a whole table into a table, distributed: the same feature function and the same graph as the endpoint."""

import datetime as dt
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from app.data.contract import Contract
from app.data.files import list_files
from app.data.sources import Fragment, fragments_of, read, read_schema
from app.data.unlabelled import declared_features
from app.model.bundle import open_bundle
from app.serving.arrow_codec import predictions
from app.spec import Data
from app.telemetry import JobMetrics
from app.types import UserError
from app.workspace import exists, join, read_bytes, write_bytes

_MANIFEST = "manifest.json"


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
    """
    import ray.data

    files = list_files(Data(source=source), base)
    asked = {
        "model": model,
        "bundle": bundle_uri,
        "source": source,
        "files": [[file.uri, file.size, file.modified_ns] for file in files],
    }
    manifest = join(out, _MANIFEST)
    if exists(manifest):
        found = json.loads(read_bytes(manifest))
        if {name: found.get(name) for name in asked} != asked:
            raise UserError(
                f"{out} holds predictions of {found['model']} for {found['source']} as it was then; name another folder"
            )
        return Predicted(found["rows"], found["rejected"])
    fragments = fragments_of(files)
    scorer = _Scorer(bundle_uri, read_schema(fragments), out, use_gpu)  # what is wrong with the table is wrong here
    items = [{"number": i, "fragment": json.dumps(asdict(fragment))} for i, fragment in enumerate(fragments)]
    workers = min(len(items), max(1, int(ray.cluster_resources().get("CPU", 1))))  # type: ignore[no-untyped-call]
    counted = ray.data.from_items(items, override_num_blocks=len(items)).map(
        _Scorer,  # type: ignore[arg-type]  # a class is made once an actor
        fn_constructor_args=(bundle_uri, scorer.schema, out, use_gpu),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=workers),
        num_cpus=1,
        num_gpus=1 if use_gpu else 0,
    )
    rows, rejected = 0, Counter[str]()
    for result in counted.iter_rows():
        rows += result["rows"]
        rejected.update(json.loads(result["rejected"]))
    write_bytes(manifest, json.dumps(asked | {"rows": rows, "rejected": rejected}).encode())
    JobMetrics(model.partition("/")[0]).scored(rows, rejected.total())
    return Predicted(rows, dict(rejected))


class _Scorer:
    """One worker: a bundle in memory; fragment in, two Parquet files out, counts returned."""

    def __init__(self, bundle_uri: str, schema: pa.Schema, out: str, use_gpu: bool) -> None:
        bundle = open_bundle(bundle_uri)
        self.schema = schema
        self._out = out
        self._plan = bundle.plan
        self._threshold = bundle.spec.task.threshold
        self._runtime = bundle.runtime(use_gpu)
        self._key = self._plan.key if self._plan.key in schema.names else None
        if self._key is None:  # rows without a name are named by their place in the table
            self._place = next(name for name in ("row", "row_number", "evertrue_row") if name not in schema.names)
            schema = schema.append(pa.field(self._place, pa.int64()))
        self._contract = Contract.of_features(declared_features(bundle.plan), schema, self._key or self._place)

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        fragment = Fragment(**json.loads(item["fragment"]))
        columns = [name for name in self._contract.columns if name in self.schema.names]
        scored, rejected, reasons = [], [], Counter[str]()
        for start, table in read(fragment, columns, self._contract.dictionary):
            if self._key is None:
                table = table.append_column(self._place, pa.array(np.arange(start, start + table.num_rows)))
            checked = self._contract.check(table, dt.datetime.now(dt.UTC))
            scores = self._runtime.score(self._plan.encode(checked.kept))
            name = self._key or self._place
            answers = predictions(self._plan.target, scores, self._threshold)
            scored.append(pa.table({name: checked.kept[name], **answers}))
            rejected.append(checked.rejected)
            reasons.update(checked.counts)
        number = f"{item['number']:05d}"
        _write(join(self._out, f"part-{number}.parquet"), pa.concat_tables(scored))
        if reasons:
            _write(join(self._out, f"rejected-{number}.parquet"), pa.concat_tables(rejected))
        return {"rows": sum(table.num_rows for table in scored), "rejected": json.dumps(reasons)}


def _write(uri: str, table: pa.Table) -> None:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_bytes(uri, sink.getvalue().to_pybytes())
