"""What would a training at that moment have made? Real trainings, each made once and kept for the next backtest."""

import hashlib
import json
import resource
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from app.backtest.history import History
from app.data.encode import load
from app.data.features import FeaturePlan
from app.data.fit import fit_here
from app.data.prepare import Prepared
from app.model.runtime import Runtime
from app.monitor.profile import Reference
from app.spec import Model as Shape
from app.spec import Spec
from app.training.kinds import fit_model
from app.training.loader import Parts
from app.types import Scores
from app.workspace import Workspace, exists, join, name_of, read_bytes, write_bytes

if TYPE_CHECKING:
    from ray import ObjectRef

_FACTS = "model.json"  # written last: a folder with it is whole


@dataclass(frozen=True)
class Model:
    """A trained version: what it learned until `trained_until` (ms), and its scores of all rows from then on.

    `scores` (n,) or (n, K) go row by row with the history, NaN before. `loss` is that of its validation rows.
    """

    key: str
    trained_until: int
    plan: FeaturePlan
    spec: Spec
    reference: Reference
    loss: float
    cpu_seconds: float
    megabytes: float
    scores: Scores


class Models:
    """Trains on demand, several at a time over the cluster; the same model twice is one training."""

    def __init__(self, spec: Spec, history: History, workspace: Workspace) -> None:
        self._spec = spec
        self._history = history
        self._workspace = workspace
        self._folder = workspace.uri(spec.name, "backtest", history.prepared.fingerprint)
        self._under_way: dict[str, ObjectRef[None]] = {}
        self._lock = threading.Lock()  # policies are followed in threads

    def get(self, trained_until: int, before: Model | None) -> Model:
        """Return the model of all rows before a moment; `before` is the champion, whose weights a warm start takes."""
        import ray

        warm = before if before is not None and self._spec.retrain.warm_start else None
        spec, validation = self._spec, self._spec.data.split.validation
        if before is not None:
            epochs, validation = spec.retrain.epochs or spec.train.epochs, spec.retrain.validation
            spec = spec.model_copy(update={"train": spec.train.model_copy(update={"epochs": epochs})})
        key = _key(spec, trained_until, validation, warm)
        folder = join(self._folder, key)
        if not exists(join(folder, _FACTS)):
            with self._lock:
                if key not in self._under_way:
                    work = ray.remote(num_cpus=1)(make)
                    parent = None if warm is None else join(self._folder, warm.key)
                    prepared = replace(self._history.prepared, cut=self._history.cut(spec, trained_until, validation))
                    self._under_way[key] = work.remote(spec, prepared, parent, folder, self._workspace)
            ray.get(self._under_way[key])
        return read(folder, self._history, spec)


def make(spec: Spec, prepared: Prepared, parent: str | None, folder: str, workspace: Workspace) -> None:
    """Train on the rows before the test part, score those in it, and keep it all in `folder`."""
    before = _cpu_seconds()
    plan = fit_here(prepared, spec)
    parts = Parts(*(load(prepared, plan, part) for part in ("train", "validation")))
    start = None if parent is None else _Learned.read(parent, spec)
    run = f"backtest-{folder.rpartition('/')[2]}"
    fitted = fit_model(parts, plan, spec, workspace, run, start=start, threads=1)  # the task's one CPU
    spent = _cpu_seconds() - before
    runtime = Runtime(fitted.onnx, plan)
    judged = runtime.score(parts.validation.features)
    scores = runtime.score(load(prepared, plan, "test", unlabelled=True).features)
    files = {
        "model.onnx": fitted.onnx,
        **{f"learned/{name}": data for name, data in fitted.learned.items()},
        "features.json": json.dumps(plan.to_json()).encode(),
        "reference.arrow": Reference.of(plan, spec.drift, *parts, judged).to_bytes(),
        "scores.f32": np.ascontiguousarray(scores, np.float32).tobytes(),
    }
    for name, data in files.items():
        write_bytes(join(folder, name), data)
    facts = {
        "trained_until": prepared.cut.test_from,
        "loss": fitted.loss,
        "cpu_seconds": spent,
        "shape": scores.shape[1:],
        "model": fitted.model.model_dump(mode="json"),
        "learned": list(fitted.learned),
    }
    write_bytes(join(folder, _FACTS), json.dumps(facts).encode())


def read(folder: str, history: History, spec: Spec) -> Model:
    """Return a model that `make` has kept."""
    facts = json.loads(read_bytes(join(folder, _FACTS)))
    onnx = read_bytes(join(folder, "model.onnx"))
    learned = _Learned.read(folder, spec)
    kept = np.frombuffer(read_bytes(join(folder, "scores.f32")), np.float32).reshape(-1, *facts["shape"])
    at = history.place  # rows of the prepared table, in order of time
    by_place = np.full((len(at), *facts["shape"]), np.nan, np.float32)
    scored = np.empty(len(at), np.bool_)
    scored[at] = history.time >= facts["trained_until"]
    by_place[scored] = kept
    return Model(
        key=name_of(folder),
        trained_until=facts["trained_until"],
        plan=learned.plan,
        spec=learned.spec,
        reference=Reference.from_bytes(read_bytes(join(folder, "reference.arrow"))),
        loss=facts["loss"],
        cpu_seconds=facts["cpu_seconds"],
        megabytes=len(onnx) / 1e6,
        scores=by_place[at],
    )


@dataclass(frozen=True)
class _Learned:
    """What a warm start takes over."""

    learned: dict[str, bytes]
    plan: FeaturePlan
    spec: Spec

    @staticmethod
    def read(folder: str, spec: Spec) -> "_Learned":
        facts = json.loads(read_bytes(join(folder, _FACTS)))
        plan = FeaturePlan.from_json(json.loads(read_bytes(join(folder, "features.json"))))
        learned = {name: read_bytes(join(folder, "learned", name)) for name in facts["learned"]}
        return _Learned(learned, plan, spec.model_copy(update={"model": Shape.model_validate(facts["model"])}))


def _key(spec: Spec, trained_until: int, validation: float, parent: Model | None) -> str:
    """Name a training by all that decides its outcome."""
    whole = spec.dump()
    asked = {name: whole[name] for name in ("task", "model", "train", "drift")}
    before = parent.key if parent else None
    content = json.dumps([asked, whole["retrain"]["window"], trained_until, validation, before])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
