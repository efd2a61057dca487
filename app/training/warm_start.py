"""How does a training begin where another one ended? The champion's weights, put where a new plan expects them.

A plan is fitted anew for every training: numbers get other statistics, vocabularies other values in another order.
So what was learned is carried over by name and by value, such that the new network begins as the same function:

- A number keeps the units it was learned in; its limits are those of the new rows, in these units, so that it may
  now reach where it was clipped before. One whose rows have moved too far for these units is learned anew.
- A category's embeddings follow their values; a value that is new begins as the unseen did.
- A feature that is new begins without influence. One that is gone is forgotten.
- The last layer follows the classes, or the units of a regression, and takes in the calibration.
"""

from typing import Protocol

import torch
from tabm import LinearBatchEnsemble, LinearEnsemble
from torch import Tensor

from app.data.features import CategoryColumn, FeaturePlan
from app.model.network import Network
from app.spec import Spec
from app.training.loop import new_network
from app.types import FIRST_ID, UNSEEN_ID

_FARTHEST = 8.0
"""Deviations of the old rows at which the new rows' limits may lie: farther out, periodic embeddings are noise."""


class Learned(Protocol):
    """What a bundle holds of a network: its weights (safetensors), and what they were learned with."""

    @property
    def weights(self) -> bytes: ...
    @property
    def plan(self) -> FeaturePlan: ...
    @property
    def spec(self) -> Spec: ...


@torch.no_grad()
def warm_start(plan: FeaturePlan, spec: Spec, learned: Learned) -> bytes | None:
    """Return weights (safetensors) for the declared network of `plan`, so that it begins as the one that has learned.

    None where the networks differ in shape, or do not tell the same classes apart: then nothing can be carried over.
    """
    old = Network.from_safetensors(learned.weights, learned.plan, learned.spec.model)
    fresh = new_network(plan, spec)
    if not _comparable(old, fresh):
        return None
    same = _take_numbers(old, fresh)
    _take_categories(old, fresh)
    _take_hidden(old, fresh, same)
    _take_head(old, fresh)
    return fresh.to_safetensors()


def _comparable(old: Network, fresh: Network) -> bool:
    def shapes(network: Network) -> list[tuple[int, ...]]:
        # An ensemble's last layer has its members' number for an axis.
        inner = [tuple(layer.weight.shape) for layer in network.layers[1:]]
        number = [] if network.number is None else [tuple(network.number.linear.weight.shape)]
        return [(len(network.layers), network.layers[0].out_features), *inner, *number]

    before, now = old.plan.target, fresh.plan.target
    same_classes = (
        set(before.classes) == set(now.classes) if now.task == "multiclass" else before.classes == now.classes
    )
    return before.task == now.task and same_classes and shapes(old) == shapes(fresh)


def _take_numbers(old: Network, fresh: Network) -> list[tuple[int, int]]:
    """Carry over units and embeddings; return (place before, place now) of the numbers that kept them."""
    if not (old.plan.number and fresh.plan.number):
        return []
    before = {column.name: place for place, column in enumerate(old.plan.number)}
    same = [(before[column.name], place) for place, column in enumerate(fresh.plan.number) if column.name in before]
    kept = [(i, j) for i, j in same if _move_limits(old, i, fresh, j)]
    if old.number is not None and fresh.number is not None:
        source, target = _index(kept)
        fresh.number.periodic.weight[target] = old.number.periodic.weight[source]
        fresh.number.linear.load_state_dict(old.number.linear.state_dict())
    return kept


def _move_limits(old: Network, i: int, fresh: Network, j: int) -> bool:
    """Express a number's new limits in its old units; say no where they do not fit."""
    if not (old.scale[i] > 0 and fresh.scale[j] > 0):
        return False
    limits = torch.stack([fresh.lower[j], fresh.upper[j]]) / fresh.scale[j] + fresh.center[j]
    limits = (limits - old.center[i]) * old.scale[i]
    if limits.abs().max() > _FARTHEST or limits[1] - limits[0] < 1 / _FARTHEST:
        return False
    fresh.lower[j], fresh.upper[j] = limits
    fresh.center[j], fresh.scale[j] = old.center[i], old.scale[i]
    return True


def _take_categories(old: Network, fresh: Network) -> None:
    before = {column.name: (column, int(old.offset[i])) for i, column in enumerate(old.plan.category)}
    for j, column in enumerate(fresh.plan.category):
        if column.name in before:
            known, start = before[column.name]
            rows = torch.tensor([start + id_ for id_ in _ids_before(known, column)])
            begin, width = int(fresh.offset[j]), min(old.category.embedding_dim, fresh.category.embedding_dim)
            fresh.category.weight[begin : begin + column.size, :width] = old.category.weight[rows, :width]


def _ids_before(known: CategoryColumn, column: CategoryColumn) -> list[int]:
    """Return for each of the column's ids the one that its value had before."""
    return [*range(FIRST_ID), *(known.ids.get(value, UNSEEN_ID) for value in column.vocabulary)]


def _take_hidden(old: Network, fresh: Network, same: list[tuple[int, int]]) -> None:
    """Carry over the first layer's inputs and the hidden layers; what is heard of new features weighs nothing."""
    for before, now in zip(old.layers[1:-1], fresh.layers[1:-1], strict=True):
        now.load_state_dict(before.state_dict())
    first, begin = old.layers[0], fresh.layers[0]
    begin.bias.copy_(first.bias)
    if len(fresh.layers) > 1:  # a linear model begins without influence of anything
        begin.weight.zero_()
    pairs = [pair for i, j in same for pair in zip(_number_inputs(old, i), _number_inputs(fresh, j), strict=True)]
    before_at = {column.name: i for i, column in enumerate(old.plan.category)}
    for j, column in enumerate(fresh.plan.category):
        if column.name in before_at:
            inputs = zip(_category_inputs(old, before_at[column.name]), _category_inputs(fresh, j), strict=False)
            pairs += inputs
    source, target = _index(pairs)
    begin.weight[:, target] = first.weight[:, source]
    if isinstance(begin, LinearBatchEnsemble) and isinstance(first, LinearBatchEnsemble):
        begin.r[:, target] = first.r[:, source]
        begin.s.copy_(first.s)


def _take_head(old: Network, fresh: Network) -> None:
    """Carry over the last layer; its weights' last axis but one are the outputs, also those of each member."""
    head, before, now = fresh.layers[-1], old.plan.target, fresh.plan.target
    last = fresh if len(fresh.layers) == 1 else old  # without hidden layers the inputs have been carried over already
    members = isinstance(head, LinearEnsemble)
    weight, bias = last.head.weight / old.temperature, old.head.bias / old.temperature
    weight = weight.transpose(-1, -2) if members else weight
    if now.task == "multiclass":
        order = [before.classes.index(value) for value in now.classes]
        weight, bias = weight[..., order, :], bias[..., order]
    elif now.task == "regression":
        weight, bias = weight * (before.std / now.std), (bias * before.std + before.mean - now.mean) / now.std
    head.weight.copy_(weight.transpose(-1, -2) if members else weight)
    head.bias.copy_(bias)


def _number_inputs(network: Network, place: int) -> list[int]:
    """Return where a number enters the first layer: its embedding, its value, whether it is missing."""
    width, count = _embedded(network), len(network.plan.number)
    plain = count * width + place
    return [*range(place * width, (place + 1) * width), plain, plain + count]


def _category_inputs(network: Network, place: int) -> list[int]:
    """Return where a category's embedding enters the first layer."""
    count, width = len(network.plan.number), network.category.embedding_dim
    numbers = count * (_embedded(network) + 2)
    return list(range(numbers + place * width, numbers + (place + 1) * width))


def _embedded(network: Network) -> int:
    """Return the size of a number's embedding."""
    return 0 if network.number is None else int(network.number.linear.out_features)


def _index(pairs: list[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    source, target = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2).T
    return source, target
