"""What is written down of a training: its curves, figures, files, and the trials of its search."""

import json
import math
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.spec import Spec

if TYPE_CHECKING:  # importing MLflow takes a second
    from mlflow.tracking import MlflowClient

_MOST_PARAMETERS = 100  # MLflow takes no more at once
_LONGEST_KEY = 200  # nor more than 250 letters


@dataclass(frozen=True)
class Run:
    """A training that is being written down."""

    client: "MlflowClient"
    id: str

    def log_epoch(self, epoch: int, figures: Mapping[str, float]) -> None:
        """Add one point to each figure's curve."""
        self._log(figures, epoch)

    def log_metrics(self, figures: Mapping[str, float]) -> None:
        """Set final figures."""
        self._log(figures, 0)

    def log_files(self, files: Mapping[str, bytes]) -> None:
        """Keep files by their relative path, such as the card and its plots."""
        with tempfile.TemporaryDirectory() as folder:
            for name, data in files.items():
                path = Path(folder, name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            self.client.log_artifacts(self.id, folder)

    def describe(self, markdown: str) -> None:
        """Show a text on the run's page, without its pictures, which MLflow cannot find there."""
        self.client.set_tag(self.id, "mlflow.note.content", re.sub(r"!\[[^]]*\]\([^)]*\)\n*", "", markdown))

    def log_trial(
        self,
        name: str,
        settings: Mapping[str, str | int | float],
        losses: Sequence[tuple[int, float]],
        loss: float | None,
        state: str,
    ) -> None:
        """Write a trial of a search below its run: its settings, its loss by epoch, the loss that judged it."""
        from mlflow.entities import Metric, Param

        experiment = self.client.get_run(self.id).info.experiment_id
        made = self.client.create_run(
            experiment, run_name=name, tags={"mlflow.parentRunId": self.id, "evertrue.state": state}
        ).info.run_id
        now = int(time.time() * 1000)
        metrics = [Metric("epoch_loss", value, now, epoch) for epoch, value in losses if math.isfinite(value)]
        metrics += [] if loss is None else [Metric("loss", loss, now, 0)]
        params = [Param(_key(key), str(value)) for key, value in settings.items()]
        self.client.log_batch(made, metrics=metrics, params=params)
        self.client.set_terminated(made, "FAILED" if state == "failed" else "FINISHED")

    def _log(self, figures: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(_key(name), float(value), now, step) for name, value in figures.items()]
        self.client.log_batch(self.id, metrics=metrics)


@contextmanager
def tracked(
    client: "MlflowClient", experiment: str, spec: Spec, fingerprint: str, commit: str | None, job: str | None
) -> Iterator[Run]:
    """Write down a training: finished when the block ends, failed when it raises."""
    from mlflow.entities import Param, RunTag

    tags = {
        "mlflow.source.name": "evertrue",
        "mlflow.source.type": "JOB",
        "mlflow.source.git.commit": commit,
        "evertrue.fingerprint": fingerprint,
        "evertrue.job": job,
    }
    made = client.create_run(experiment, run_name=job).info.run_id
    client.log_batch(made, tags=[RunTag(key, value) for key, value in tags.items() if value])
    parameters = [Param(key, value) for key, value in _parameters(spec).items()]
    for start in range(0, len(parameters), _MOST_PARAMETERS):
        client.log_batch(made, params=parameters[start : start + _MOST_PARAMETERS])
    status = "FAILED"
    try:
        yield Run(client, made)
        status = "FINISHED"
    finally:
        client.set_terminated(made, status)


def _parameters(spec: Spec) -> dict[str, str]:
    """Return a declaration's settings by names that MLflow takes, each another, whatever its columns are called."""
    found: dict[str, str] = {}
    for key, value in _flatten(spec.dump()):
        name = _key(key).replace("/", "_")[:_LONGEST_KEY]
        while name in found:
            name += "_"
        found[name] = value
    return found


def _flatten(section: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        elif value is not None:
            yield prefix + key, value if isinstance(value, str) else json.dumps(value)


def _key(name: str) -> str:
    """Return a name MLflow takes."""
    return re.sub(r"[^\w\-. /:]", "_", name)
