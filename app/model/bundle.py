"""How does a model travel? As a folder of plain files, named by a digest of its contents; opening it runs no code.

<root>/<version id>/
    model.onnx          graph: raw features in, calibrated scores out
    weights.safetensors a network's weights, trees.txt boosted trees: to train on from; an average's in folders
    features.json       feature plan
    reference.arrow     histograms that drift is held against
    metrics.json        figures overall, by month and by slice, beside the baseline's
    spec.json           declaration, every default written out
    data.json           origin: fingerprint, rows, time range, commit, library versions
    card.md, plots/     model card
    manifest.json       format, and every file's SHA-256; written last, so it commits the bundle
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.data.features import FeaturePlan
from app.model.admission import check_graph
from app.model.contents import Contents
from app.model.runtime import Runtime
from app.monitor.profile import Reference
from app.spec import Spec
from app.types import UserError
from app.workspace import delete, exists, join, list_files, name_of, read_bytes, write_bytes

FORMAT = 1

_MANIFEST = "manifest.json"
_REQUIRED = (
    "model.onnx",
    "features.json",
    "reference.arrow",
    "metrics.json",
    "spec.json",
    "data.json",
    "card.md",
)
_LEARNED = ("weights.safetensors", "trees.txt")
_PATH = r"([a-z0-9_]+/)*[a-z0-9_]+\.[a-z0-9]+"  # no parent folders, no absolute paths, no hidden files
_DIGEST = r"^[0-9a-f]{64}$"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    sha256: str = Field(pattern=_DIGEST)
    bytes: int = Field(ge=0)


class _Manifest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    format: int
    name: str
    files: dict[str, _File]

    @property
    def version_id(self) -> str:
        """Digest of all there is: equal contents have equal ids, and nothing can be changed under an id."""
        return hashlib.sha256(_json(self.model_dump())).hexdigest()[:16]


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: every byte has been checked against the manifest."""

    uri: str
    name: str
    version_id: str
    size_bytes: int
    paths: tuple[str, ...]
    onnx: bytes
    learned: dict[str, bytes]
    plan: FeaturePlan
    spec: Spec
    reference: Reference
    metrics: dict[str, Any]
    data: dict[str, Any]
    card: str

    def runtime(self, use_gpu: bool = False, threads: int = 1) -> Runtime:
        """Return the graph, ready to score."""
        return Runtime(self.onnx, self.plan, use_gpu, threads)


def write(root_uri: str, contents: Contents) -> str:
    """Write a bundle into the folder `root_uri` and return its address; equal contents are written once."""
    files = _render(contents)
    check_graph(contents.onnx, contents.plan, "model.onnx")
    described = {
        path: _File(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data)) for path, data in files.items()
    }
    manifest = _Manifest(format=FORMAT, name=contents.spec.name, files=described)
    uri = join(root_uri, manifest.version_id)
    if exists(join(uri, _MANIFEST)):
        return open_bundle(uri).uri
    for leftover in list_files(uri, recursive=True):
        if leftover.name not in files:  # a draft of a writer that died; files may be of one that is at work
            delete(join(uri, leftover.name))
    for path, data in files.items():
        write_bytes(join(uri, path), data)
    write_bytes(join(uri, _MANIFEST), _json(manifest.model_dump()))
    return uri


def open_bundle(uri: str) -> Bundle:
    """Read a bundle and check all of it.

    Raises UserError for a folder that is no bundle or only half of one, for a format that is not ours, and for
    every file that is changed, missing, too many, or not where a bundle's files may be.
    """
    manifest = _read_manifest(uri)
    found = {file.name for file in list_files(uri, recursive=True)} - {_MANIFEST}
    if missing := sorted(manifest.files.keys() - found):
        raise UserError(f"bundle {uri}: {', '.join(missing)} is in the manifest, but not in the folder")
    if extra := sorted(found - manifest.files.keys()):
        raise UserError(f"bundle {uri}: {', '.join(extra)} is in the folder, but not in the manifest")
    files = {path: _read(uri, path, expected) for path, expected in manifest.files.items()}
    plan = FeaturePlan.from_json(json.loads(files["features.json"]))
    check_graph(files["model.onnx"], plan, f"bundle {uri}: model.onnx")
    return Bundle(
        uri=uri,
        name=manifest.name,
        version_id=manifest.version_id,
        size_bytes=sum(len(data) for data in files.values()),
        paths=tuple(sorted(files)),
        onnx=files["model.onnx"],
        learned={path: data for path, data in files.items() if path.rpartition("/")[2] in _LEARNED},
        plan=plan,
        spec=Spec.model_validate(json.loads(files["spec.json"])),
        reference=Reference.from_bytes(files["reference.arrow"]),
        metrics=json.loads(files["metrics.json"]),
        data=json.loads(files["data.json"]),
        card=files["card.md"].decode(),
    )


def _render(contents: Contents) -> dict[str, bytes]:
    from app.model.card import render  # drawing libraries are for those who write bundles, not for replicas

    return {
        "model.onnx": contents.onnx,
        **contents.learned,
        "features.json": _json(contents.plan.to_json()),
        "reference.arrow": contents.reference.to_bytes(),
        "metrics.json": _json(contents.metrics()),
        "spec.json": _json(contents.spec.dump()),
        "data.json": _json(asdict(contents.origin)),
        **render(contents),
    }


def _read_manifest(uri: str) -> _Manifest:
    try:
        text = read_bytes(join(uri, _MANIFEST))
    except FileNotFoundError:
        found = "was never finished: it has no manifest" if exists(uri) else "is not there"
        raise UserError(f"bundle {uri} {found}") from None
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise UserError(f"bundle {uri}: {_MANIFEST} is not JSON: {error}") from error
    version = raw.get("format") if isinstance(raw, dict) else None
    if version != FORMAT:
        raise UserError(f"bundle {uri}: found format {version!r}, this version of evertrue reads {FORMAT}")
    try:
        manifest = _Manifest.model_validate(raw)
    except ValidationError as error:
        [first, *_] = error.errors()
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"bundle {uri}: {_MANIFEST}: {place}: {first['msg']}") from error
    for path in manifest.files:
        if not re.fullmatch(_PATH, path):
            raise UserError(f"bundle {uri}: {_MANIFEST} names {path!r}, which is no place within a bundle")
    if absent := [path for path in _REQUIRED if path not in manifest.files]:
        raise UserError(f"bundle {uri}: {_MANIFEST} does not name {', '.join(absent)}")
    if name_of(uri) != manifest.version_id:
        raise UserError(f"bundle {uri}: the manifest is that of {manifest.version_id}; one of the two was changed")
    return manifest


def _read(uri: str, path: str, expected: _File) -> bytes:
    data = read_bytes(join(uri, path))
    if hashlib.sha256(data).hexdigest() != expected.sha256:
        raise UserError(f"bundle {uri}: {path} is not what was written: its SHA-256 is not the manifest's")
    return data


def _json(value: object) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
