"""Which settings are tried? Those that `tune.space` names; else those that matter to the kind and are left open."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from app.spec import Choice, Kind, Range, Searched, Single, Spec, Value
from app.training.resources import worker_range
from app.types import UserError

KIND = "model.kind"

Settings = Mapping[str, Value]
"""Values by the key's place, such as `model.width`."""


@dataclass(frozen=True)
class Space:
    """What a search tries: keys with their values, by the kind of model that a trial trains.

    With `model.kind: auto` every member is a kind of its own, with its own keys; else there is one.
    """

    spec: Spec
    by_kind: dict[Kind, dict[str, Searched]]

    @staticmethod
    def of(spec: Spec, rows: int) -> "Space":
        """Return the space of a declaration whose training part has `rows` rows.

        Raises UserError where nothing is left to search.
        """
        kind = spec.model.kind
        if spec.tune.space:
            return Space(spec, {kind: dict(spec.tune.space)})
        if kind == "auto":
            by_kind: dict[Kind, dict[str, Searched]] = {
                member: _left_open(spec, [member], rows) for member in spec.model.members
            }
        else:
            members: list[Single] = spec.model.members if kind == "average" else [kind]
            by_kind = {kind: _left_open(spec, members, rows)}
        if kind != "auto" and not by_kind[kind]:
            raise UserError(
                f"there is nothing to search: the declaration names every key that matters to model.kind {kind}; "
                "leave some out, or name the keys in tune.space"
            )
        return Space(spec, by_kind)

    def searched(self, settings: Settings) -> dict[str, Searched]:
        """Return what is tried for every key that matters to a trial with these settings."""
        if len(self.by_kind) == 1:
            [only] = self.by_kind.values()
            return only
        kinds = Choice(type="choice", values=[*self.by_kind])
        chosen = settings.get(KIND, self.spec.model.kind)
        return {KIND: kinds} | next((keys for kind, keys in self.by_kind.items() if kind == chosen), {})

    def declare(self, settings: Settings) -> Spec:
        """Return the declaration with these settings. Raises UserError when it does not allow them."""
        try:
            return self.spec.with_settings(settings)
        except ValidationError as error:
            found = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
            raise UserError(f"the declaration does not allow these settings: {found}") from error

    def complete(self, settings: Settings) -> dict[str, Value]:
        """Return the value of every key that matters to a trial: as it was set, else as it is declared."""
        return {key: settings.get(key, value_of(self.spec, key)) for key in self.searched(settings)}


def value_of(spec: Spec, place: str) -> Value:
    """Return the value of a key by its place; a list or a section as text."""
    section: object = spec
    for part in place.split("."):
        section = getattr(section, part)
    return section if isinstance(section, str | int | float) else str(section)


def is_whole(spec: Spec, key: str, searched: Range) -> bool:
    """Say whether a range is one of whole numbers."""
    ends = isinstance(searched.low, int) and isinstance(searched.high, int)
    return ends and not isinstance(value_of(spec, key), float)


def _left_open(spec: Spec, kinds: list[Single], rows: int) -> dict[str, Searched]:
    found = {key: searched for kind in kinds for key, searched in _defaults(spec, kind, rows)}
    return {key: searched for key, searched in found.items() if spec.left_open(key)}


def _defaults(spec: Spec, kind: Single, rows: int) -> Iterator[tuple[str, Searched]]:
    """Yield the keys that matter most to a kind; ranges that also suit a table of some hundred rows."""
    if kind == "lightgbm":
        yield "model.trees.learning_rate", _range(0.01, 0.2, log=True)
        yield "model.trees.leaves", _range(7, 255, log=True)
        yield "model.trees.leaf_rows", _range(5, 200, log=True)
        yield "model.trees.feature_fraction", _range(0.4, 1.0)
        yield "model.trees.row_fraction", _range(0.5, 1.0)
        yield "model.trees.l2", _range(0.0, 10.0)
        return
    if kind == "linear":
        yield "train.learning_rate", _range(0.001, 0.05, log=True)
    else:
        yield "model.width", _range(32, 512 if kind == "network" else 256, log=True)
        yield "model.depth", _range(1, 3)
        yield "model.dropout", _range(0.0, 0.5)
        yield "model.number_embedding", _range(4, 24)
        yield "model.frequencies", _range(8, 48, log=True)
        yield "model.frequency_scale", _range(0.02, 1.0, log=True)
        yield "train.learning_rate", _range(0.0003, 0.005, log=True)
    if kind == "tabm":
        yield "model.ensemble", Choice(type="choice", values=[8, 16, 32])
    yield "train.weight_decay", _range(0.0001, 0.3, log=True)
    yield "train.batch_size", _batch_sizes(spec, rows)


def _range(low: float, high: float, log: bool = False) -> Range:
    return Range(type="range", low=low, high=high, log=log)


def _batch_sizes(spec: Spec, rows: int) -> Choice:
    """Return the size that suits the table, half of it and twice."""
    usual = spec.train.model_copy(update={"batch_size": "auto"}).rows_of_step(rows)
    fewest = max(2, worker_range(spec.train)[1])
    sizes: list[str | int | float | bool] = [size for size in (usual // 2, usual * 2) if size >= fewest]
    return Choice(type="choice", values=["auto", *sizes])
