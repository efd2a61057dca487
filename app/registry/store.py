"""Where are runs and versions kept? A database in the workspace, or what $MLFLOW_TRACKING_URI names; opened quietly."""

import logging
import os
import shutil
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from app.types import UserError
from app.workspace import Workspace
from app.workspace.address import without_secrets

if TYPE_CHECKING:  # importing MLflow takes a second
    from mlflow.entities import Experiment
    from mlflow.tracking import MlflowClient

TRACKING_URI = "MLFLOW_TRACKING_URI"


def open_store(workspace: Workspace, name: str, tracking_uri: str | None) -> tuple["MlflowClient", str, bool]:
    """Return a client, the id of `name`'s experiment (made when missing), and whether the client holds a database.

    Raises UserError when it cannot be opened, and for a server's address that holds a password: MLflow says it whole in
    every fault.
    """
    _quiet()
    address = tracking_uri or os.environ.get(TRACKING_URI) or _database_in(workspace)
    shown = without_secrets(address)
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SQLAlchemyError

    database = not address.startswith(("http://", "https://"))
    if not database and "@" in address.split("/")[2]:
        raise UserError(
            "the registry's address holds a credential, which would be logged; allowed: $MLFLOW_TRACKING_USERNAME and "
            "$MLFLOW_TRACKING_PASSWORD, or $MLFLOW_TRACKING_TOKEN"
        )
    try:
        client = MlflowClient(tracking_uri=address, registry_uri=address)
        folder = workspace.uri("mlflow-artifacts", name) if database else None
        experiment = _experiment(client, name, folder)
    except (MlflowException, SQLAlchemyError, ImportError) as error:  # or no driver of that database
        raise UserError(f"the registry {shown!r} cannot be opened: {str(error).replace(address, shown)}") from None
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"the experiment {name!r} was deleted in {shown!r}; restore it: "
            f"mlflow experiments restore --experiment-id {experiment.experiment_id}"
        )
    return client, experiment.experiment_id, database


def _database_in(workspace: Workspace) -> str:
    """Return the address of the workspace's own database, made when missing."""
    if "://" in workspace.root:
        raise UserError(
            f"the workspace {workspace.root!r} is on an object store, where MLflow cannot keep its database; "
            f"name a server or database by ${TRACKING_URI}, such as http://host:5000 or postgresql://..."
        )
    path = Path(workspace.uri("mlflow.db"))
    if "?" in str(path) or unquote(str(path)) != str(path):
        raise UserError(
            f"the workspace {workspace.root!r} has a '?' or an escape such as %20 in its name, below which MLflow cannot "
            f"keep its database; name another workspace, or a server or database by ${TRACKING_URI}"
        )
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
