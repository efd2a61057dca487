"""Which version serves, which came before, and where did each come from?

A version is one bundle, with its lineage; `champion` is the version that serves and `challenger` the one on trial.
"""

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.registry.runs import Run, tracked
from app.registry.store import open_store
from app.spec import Spec
from app.types import UserError
from app.workspace import Workspace

if TYPE_CHECKING:  # importing MLflow takes a second
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.tracking import MlflowClient

CHAMPION = "champion"
CHALLENGER = "challenger"

_BUNDLE = "evertrue.bundle"
_CHAMPIONS = "evertrue.champions"
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
        client, experiment, database = open_store(workspace, name, tracking_uri)
        return Registry(name, client, experiment, database)

    def run(
        self, spec: Spec, fingerprint: str, commit: str | None = None, job: str | None = None
    ) -> AbstractContextManager[Run]:
        """Write down a training: finished when the block ends, failed when it raises.

        `fingerprint` names the data, `commit` the code, `job` the Ray job.
        """
        return tracked(self.client, self.experiment, spec, fingerprint, commit, job)

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
