"""What is known of a search's trials? One JSON file a trial, written when it starts and, whole, when it ends."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Literal

from app.spec import Value
from app.types import UserError
from app.workspace import exists, join, list_files, read_bytes, write_bytes

State = Literal["running", "finished", "stopped early", "failed"]

DECLARED = 1
"""The trial of the declared settings as they are."""


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    `settings` are the values that differ from the declaration, by their place; none are those of trial 1. `losses` are
    pairs of epoch and loss. `loss` judges it: the graph's when it finished, the least seen when it was stopped.
    `began` is in seconds since 1970.
    """

    number: int
    settings: dict[str, Value]
    state: State = "running"
    losses: tuple[tuple[int, float], ...] = ()
    loss: float | None = None
    reason: str = ""
    began: float = 0.0
    seconds: float = 0.0

    @property
    def ended(self) -> bool:
        """Whether it is over, however it ended."""
        return self.state != "running"

    def heard(self, epoch: int, loss: float) -> "Trial":
        """Return it with one more epoch; a trial that began anew replaces what it told before."""
        earlier = tuple(pair for pair in self.losses if pair[0] < epoch)
        return replace(self, losses=(*earlier, (epoch, loss)))

    def to_json(self) -> bytes:
        """Write it as JSON."""
        return json.dumps(asdict(self), indent=1).encode()

    @staticmethod
    def from_json(data: bytes) -> "Trial":
        """Read what `to_json` wrote."""
        plain = json.loads(data)
        return Trial(**plain | {"losses": tuple((int(epoch), float(loss)) for epoch, loss in plain["losses"])})


@dataclass(frozen=True)
class Record:
    """The trials of one search in the folder `uri`; `identity` says what was searched."""

    uri: str
    identity: str

    def open(self) -> list[Trial]:
        """Return the trials known, in order. Raises UserError when they are of another search."""
        about = join(self.uri, "search.json")
        if not exists(about):
            write_bytes(about, json.dumps({"identity": self.identity}).encode())
        elif json.loads(read_bytes(about))["identity"] != self.identity:
            raise UserError(
                f"{self.uri} holds a search of another declaration or other data; "
                "name another one by --run, or remove that folder to start anew"
            )
        names = [listed.name for listed in list_files(self.uri) if listed.name.startswith("trial-")]
        return [Trial.from_json(read_bytes(join(self.uri, name))) for name in sorted(names)]

    def write(self, trial: Trial) -> None:
        """Write a trial in the place of what was known of it."""
        write_bytes(join(self.uri, f"trial-{trial.number:06d}.json"), trial.to_json())


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """Return the finished trial with the least loss, the earliest of equals; None where none finished."""
    finished = [trial for trial in trials if trial.state == "finished"]
    return min(finished, key=lambda trial: (trial.loss, trial.number), default=None)


def busy_seconds(trials: Iterable[Trial]) -> float:
    """Return the seconds in which at least one of the ended trials ran, over all interruptions."""
    busy, until = 0.0, 0.0
    for trial in sorted(trials, key=lambda one: one.began):
        if trial.ended:
            end = trial.began + trial.seconds
            busy += max(0.0, end - max(until, trial.began))
            until = max(until, end)
    return busy
