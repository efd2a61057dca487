"""What is known of a version? Its bundle says it; the ledger or the registry says where that is."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.data.loss import mean_loss
from app.decisions.ledger import Entry
from app.model.bundle import Bundle, open_bundle
from app.monitor.findings import Subject
from app.registry import Registry
from app.types import UserError


@dataclass(frozen=True)
class Versions:
    """The versions of one declaration; the registry is opened when it is first needed, for it may be away."""

    registry: Callable[[], Registry]
    entries: Callable[[], Sequence[Entry]]

    def subject(self, version: str) -> Subject:
        """Return what the monitor has to know. Raises UserError for a version or a bundle that is not there."""
        bundle = open_bundle(self._bundle(version))
        return Subject(version, bundle.reference, bundle.plan, expected_loss(bundle))

    def known_until(self, uri: str) -> int | None:
        """Return the moment of the newest row a bundle learned from, in ms; None for a table without times."""
        moment: int | None = open_bundle(uri).data.get("trained_until")
        return moment

    def broken(self, uri: str) -> str | None:
        """Say what is wrong with a bundle, None for one that can be loaded."""
        try:
            open_bundle(uri).runtime()
        except UserError as error:
            return str(error)
        return None

    def _bundle(self, version: str) -> str:
        for entry in reversed(self.entries()):
            for role in ("champion", "trial", "other"):
                known = entry.evidence.get(role)
                if isinstance(known, dict) and known.get("version") == version:
                    return str(known["bundle"])
        if not version.isdecimal():
            raise UserError(f"version {version!r} is neither in the ledger nor a number of the registry's")
        return self.registry().version(int(version)).bundle


def expected_loss(bundle: Bundle) -> float | None:
    """Return the mean row loss that the version had on rows it did not learn from."""
    loss = mean_loss(bundle.plan.target, bundle.metrics["model"]["overall"])
    return loss if math.isfinite(loss) else None
