"""Which version serves, which came before, and where did each come from? Runs and versions, kept by MLflow.

A run is one training: its declaration, curves, figures and card. A version is one bundle, with its lineage;
`champion` is the version that serves and `challenger` the one on trial. Everything is in `mlflow.db` and
`mlflow-artifacts/` in the workspace, or on the server that $MLFLOW_TRACKING_URI names. MLflow is told to send
no telemetry; replicas never import it, they get a bundle's address.
"""

import datetime as dt
import json
import logging
import math
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from app.spec import Spec
from app.types import UserError
from app.workspace import Workspace

if TYPE_CHECKING:  # importing MLflow takes a second
    from mlflow.entities import Experiment
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

TRACKING_URI = "MLFLOW_TRACKING_URI"
CHAMPION = "champion"
CHALLENGER = "challenger"

_BUNDLE = "evertrue.bundle"
_CHAMPIONS = "evertrue.champions"
_MOST_PARAMETERS = 100  # MLflow takes no more at once
_MOST_CHAMPIONS = 1000


@dataclass(frozen=True)
class Version:
    """A registered bundle; `parent` is the champion when it was registered, `run` the training it came from."""

    name: str
    number: int
    bundle: str
    run: str
    fingerprint: str
    reason: str
    parent: int | None
    gate: str | None
    created: dt.datetime
    aliases: tuple[str, ...]


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


@dataclass(frozen=True)
class Registry:
    """Runs and versions of one declaration; made by `Registry.open`."""

    name: str
    client: "MlflowClient"
    experiment: str
    keeps_paths: bool

    @staticmethod
    def open(workspace: Workspace, name: str, tracking_uri: str | None = None) -> "Registry":
        """Open the registry of declaration `name` at `tracking_uri`, $MLFLOW_TRACKING_URI or the workspace.

        Raises UserError when the workspace is on an object store and no address is given (SQLite needs a
        file system), and when the store cannot be opened.
        """
        _quiet()
        address = tracking_uri or os.environ.get(TRACKING_URI) or _database_in(workspace)
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient
        from sqlalchemy.exc import SQLAlchemyError

        database = not address.startswith(("http://", "https://"))
        try:
            client = MlflowClient(tracking_uri=address, registry_uri=address)
            folder = workspace.uri("mlflow-artifacts", name) if database else None
            experiment = _experiment(client, name, folder)
        except (MlflowException, SQLAlchemyError) as error:
            raise UserError(f"the registry {address!r} cannot be opened: {error}") from error
        if experiment.lifecycle_stage != "active":
            raise UserError(
                f"the experiment {name!r} was deleted in {address!r}; restore it: "
                f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
            )
        return Registry(name, client, experiment.experiment_id, database)

    @contextmanager
    def run(self, spec: Spec, fingerprint: str, commit: str | None = None, job: str | None = None) -> Iterator[Run]:
        """Write down a training: finished when the block ends, failed when it raises.

        `fingerprint` names the data, `commit` the code, `job` the Ray job.
        """
        from mlflow.entities import Param, RunTag

        tags = {
            "mlflow.source.name": "evertrue",
            "mlflow.source.type": "JOB",
            "mlflow.source.git.commit": commit,
            "evertrue.fingerprint": fingerprint,
            "evertrue.job": job,
        }
        made = self.client.create_run(self.experiment, run_name=job).info.run_id
        self.client.log_batch(made, tags=[RunTag(key, value) for key, value in tags.items() if value])
        parameters = [Param(_key(key), value) for key, value in _flatten(spec.dump())]
        for start in range(0, len(parameters), _MOST_PARAMETERS):
            self.client.log_batch(made, params=parameters[start : start + _MOST_PARAMETERS])
        status = "FAILED"
        try:
            yield Run(self.client, made)
            status = "FINISHED"
        finally:
            self.client.set_terminated(made, status)

    def register(self, bundle: str, run: str, fingerprint: str, reason: str) -> Version:
        """Make the bundle at address `bundle` a version; the same bundle twice gives the same version.

        The address is what makes a bundle the same. Its parent is the champion of this moment.
        """
        known = self._of(bundle)
        if known:
            return known[0]
        self._make_model()
        champion = self.champion()
        tags = {
            _BUNDLE: bundle,
            "evertrue.fingerprint": fingerprint,
            "evertrue.reason": reason,
            "evertrue.parent": str(champion.number) if champion else "",
        }
        # A tracking server refuses paths of another machine; the tag tells where the bundle is.
        source = bundle if self.keeps_paths or "://" in bundle else f"runs:/{run}/bundle"
        made = self.client.create_model_version(self.name, source, run, tags=tags)
        first = self._of(bundle)[0]
        if first.number != int(made.version):  # another process was quicker
            self.client.delete_model_version(self.name, made.version)
        return first

    def versions(self) -> list[Version]:
        """Return every version, oldest first."""
        aliases = self._aliases()
        found, token = [], None
        while True:
            page = self.client.search_model_versions(f"name='{self.name}'", page_token=token)
            found += page
            token = page.token
            if not token:
                return sorted((_version(one, aliases) for one in found), key=lambda one: one.number)

    def version(self, number: int) -> Version:
        """Return one version. Raises UserError when there is none of this number."""
        versions = {one.number: one for one in self.versions()}
        if number not in versions:
            raise UserError(f"{self.name!r} has no version {number}; there are {sorted(versions) or 'none yet'}")
        return versions[number]

    def champion(self) -> Version | None:
        """Return the version that serves, None before the first promotion."""
        return self._by_alias(CHAMPION)

    def chosen(self, number: int | None) -> Version:
        """Return the version of this number, or the champion. Raises UserError when there is none."""
        version = self.champion() if number is None else self.version(number)
        if version is None:
            raise UserError(f"{self.name!r} has no champion yet; train one with jobs.train, or name a version")
        return version

    def challenger(self) -> Version | None:
        """Return the version on trial, if there is one."""
        return self._by_alias(CHALLENGER)

    def challenge(self, number: int) -> None:
        """Put a version on trial."""
        self.version(number)
        self.client.set_registered_model_alias(self.name, CHALLENGER, str(number))

    def record_verdict(self, number: int, passed: bool, reasons: Sequence[str]) -> None:
        """Write the gate's verdict on the version's page."""
        self.version(number)
        text = "\n".join(f"- {reason}" for reason in reasons)
        verdict = "passed" if passed else "refused"
        self.client.set_model_version_tag(self.name, str(number), "evertrue.gate", verdict)
        self.client.update_model_version(self.name, str(number), f"Gate: {verdict}.\n\n{text}")

    def promote(self, number: int) -> None:
        """Make a version champion. Doing it again changes nothing."""
        self.version(number)
        champion = self.champion()
        if champion is None or champion.number != number:
            # Written before the alias: a crash in between leaves a line above the champion, which nobody reads.
            self._set_line([*self._line(champion), number])
            self.client.set_registered_model_alias(self.name, CHAMPION, str(number))
        challenger = self.challenger()
        if challenger and challenger.number == number:
            self.client.delete_registered_model_alias(self.name, CHALLENGER)

    def before(self) -> Version:
        """Return the champion before this one. Raises UserError when there is none."""
        line = self._line(self.champion())[:-1]
        if not line:
            raise UserError(f"{self.name!r} has no champion before this one to go back to")
        return self.version(line[-1])

    def rollback(self) -> Version:
        """Make the champion before this one champion again, and return it.

        Called again, it goes back one more. Raises UserError when there is none before.
        """
        restored, line = self.before(), self._line(self.champion())[:-1]
        self.client.set_registered_model_alias(self.name, CHAMPION, str(restored.number))
        self._set_line(line)
        return restored

    def _line(self, champion: Version | None) -> list[int]:
        """Return the line of champions up to the present one."""
        if champion is None:
            return []
        tags = self.client.get_registered_model(self.name).tags
        line: list[int] = json.loads(tags.get(_CHAMPIONS, "[]"))
        if champion.number not in line:
            return [champion.number]
        return line[: len(line) - line[::-1].index(champion.number)]

    def _set_line(self, line: list[int]) -> None:
        self.client.set_registered_model_tag(self.name, _CHAMPIONS, json.dumps(line[-_MOST_CHAMPIONS:]))

    def _of(self, bundle: str) -> list[Version]:
        return [version for version in self.versions() if version.bundle == bundle]

    def _by_alias(self, alias: str) -> Version | None:
        number = self._aliases().get(alias)
        if number is None:
            return None
        return _version(self.client.get_model_version(self.name, str(number)), self._aliases())

    def _aliases(self) -> dict[str, int]:
        from mlflow.exceptions import MlflowException

        try:
            model = self.client.get_registered_model(self.name)
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return {}
            raise
        return {alias: int(number) for alias, number in model.aliases.items()}

    def _make_model(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _version(found: "ModelVersion", aliases: Mapping[str, int]) -> Version:
    number = int(found.version)
    parent = found.tags.get("evertrue.parent")
    return Version(
        name=found.name,
        number=number,
        bundle=found.tags.get(_BUNDLE, found.source),
        run=found.run_id,
        fingerprint=found.tags.get("evertrue.fingerprint", ""),
        reason=found.tags.get("evertrue.reason", ""),
        parent=int(parent) if parent else None,
        gate=found.tags.get("evertrue.gate"),
        created=dt.datetime.fromtimestamp(found.creation_timestamp / 1000, dt.UTC),
        aliases=tuple(sorted(alias for alias, to in aliases.items() if to == number)),
    )


def _database_in(workspace: Workspace) -> str:
    """Return the address of the workspace's own database, made when missing."""
    if "://" in workspace.root:
        raise UserError(
            f"the workspace {workspace.root!r} is on an object store, where MLflow cannot keep its database; "
            f"name a server or database by ${TRACKING_URI}, such as http://host:5000 or postgresql://..."
        )
    path = Path(workspace.uri("mlflow.db"))
    if not path.exists():
        _make_database(path)
    return f"sqlite:///{path}"


def _make_database(path: Path) -> None:
    """Make an empty database, whole or not at all: two processes, or a kill, would leave MLflow's own half made."""
    from mlflow.tracking import MlflowClient

    memory = "/dev/shm"  # noqa: S108  (some 60 migrations, each synced to disk, take three times as long there)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        made = Path(folder, path.name)
        MlflowClient(tracking_uri=f"sqlite:///{made}").search_experiments(max_results=1)
        try:
            shutil.copyfile(made, draft)
            with suppress(FileExistsError):  # another process was quicker
                path.hardlink_to(draft)
        finally:
            draft.unlink(missing_ok=True)


def _quiet() -> None:
    """Tell MLflow, before it is imported, to send nothing, print little, and give up soon."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
    logging.getLogger("mlflow").setLevel(logging.WARNING)


def _experiment(client: "MlflowClient", name: str, folder: str | None) -> "Experiment":
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            client.create_experiment(name, folder, {"mlflow.experimentKind": "custom_model_development"})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # unless another process was quicker
                raise
        found = client.get_experiment_by_name(name)
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
