"""How does a network become narrower? Whole hidden units go, and those that stay say what they said.

Layer by layer, on real rows. Units are chosen one after the other: the next one is that whose activation, as far as
those before it do not tell it already, moves the next layer most (a pivoted Cholesky decomposition of the activations'
covariance, each unit weighted by the norm of its outgoing weights). Then the next layer hears, instead of every unit
that goes, its activation's regression on those that stay, by least squares (as Luo, Wu and Lin do with filters,
"ThiNet", ICCV 2017).

So a unit that is constant, that nobody listens to, or that repeats another goes without a trace. What is left is an
ordinary network of a smaller `model.width`, which any training can go on from: `heal` does, briefly.
"""

import copy
import itertools

import torch
from torch import Tensor, nn

from app.data.features import FeaturePlan
from app.model.network import Network
from app.spec import Model, Spec
from app.training.distil import Answer, teaching, with_answers
from app.training.loader import Parts
from app.training.loop import OnEpoch
from app.training.trainer import Trained, train
from app.types import Features
from app.workspace import Workspace

_ROWS = 8192
"""Rows on which activations are looked at, evenly drawn."""
_NOTHING = 1e-6
"""Fraction of the units' mean variance that counts as none, and keeps least squares solvable."""


@torch.no_grad()
def prune(network: Network, model: Model, width: int, features: Features) -> Network:
    """Return `network`, of the shape `model`, with the `width` units of each hidden layer that matter on `features`.

    What comes is of `model.width = width`, on the CPU, in evaluation mode; `network` itself is left as it is. There is
    at least one row, and `width` is at most the network's.
    """
    assert model.kind == "network", f"{model.kind} has no hidden units of its own"
    assert 0 < width <= model.width, f"{model.width} units cannot become {width}"
    smaller = copy.deepcopy(network).cpu().eval()
    number, category = (torch.from_numpy(part[:: -(-len(part) // _ROWS)].copy()) for part in features)
    layers = [layer for layer in [*smaller.hidden, smaller.head] if isinstance(layer, nn.Linear)]
    for layer, following in itertools.pairwise(layers):
        said: list[Tensor] = []
        hook = following.register_forward_pre_hook(lambda _, inputs, said=said: said.append(inputs[0].double()))
        smaller(number, category)
        hook.remove()
        _narrow(layer, following, said[0], width)
    return Network.from_safetensors(smaller.to_safetensors(), network.plan, model.model_copy(update={"width": width}))


def _narrow(layer: nn.Linear, following: nn.Linear, said: Tensor, width: int) -> None:
    """Take all but `width` units out of `layer`, whose activations `said` (rows, units) `following` hears."""
    heard = following.weight.double()
    stays = torch.zeros(layer.out_features, dtype=torch.bool)
    stays[_most_telling(said * heard.norm(dim=0), width)] = True
    kept, gone = stays.nonzero().squeeze(1), (~stays).nonzero().squeeze(1)
    repeated = _regression(said[:, kept], said[:, gone])
    constant = said[:, gone].mean(dim=0) - said[:, kept].mean(dim=0) @ repeated
    layer.weight, layer.bias = nn.Parameter(layer.weight[kept]), nn.Parameter(layer.bias[kept])
    following.bias = nn.Parameter((following.bias + heard[:, gone] @ constant).float())
    following.weight = nn.Parameter((heard[:, kept] + heard[:, gone] @ repeated.T).float())


def _most_telling(said: Tensor, count: int) -> list[int]:
    """Return the `count` columns of (rows, units), each of which tells most of what those before it do not."""
    centred = said - said.mean(dim=0)
    products = centred.T @ centred
    untold = products.diagonal().clone()
    nothing = _NOTHING * untold.mean()
    told = torch.zeros(len(products), count, dtype=products.dtype)  # the decomposition's columns
    chosen: list[int] = []
    for step in range(count):
        unit = int(untold.argmax())
        if untold[unit] > nothing:
            rest = products[:, unit] - told[:, :step] @ told[unit, :step]
            told[:, step] = rest / untold[unit].sqrt()
            untold -= told[:, step].square()
        untold[unit] = -torch.inf
        chosen.append(unit)
    return chosen


def _regression(known: Tensor, wanted: Tensor) -> Tensor:
    """Return the weights (k, w) of the columns known (n, k) that come closest to the columns wanted (n, w)."""
    known, wanted = known - known.mean(dim=0), wanted - wanted.mean(dim=0)
    products = known.T @ known
    diagonal = products.diagonal()
    diagonal += _NOTHING * diagonal.mean() + torch.finfo(products.dtype).tiny
    found: Tensor = torch.linalg.solve(products, known.T @ wanted)
    return found


def heal(
    network: Network,
    parts: Parts,
    plan: FeaturePlan,
    spec: Spec,
    answer: Answer,
    workspace: Workspace,
    run: str,
    on_epoch: OnEpoch | None = None,
    threads: int = 0,
) -> Trained:
    """Train a pruned network, of the shape `spec.model`, on the teacher's answers for `compress.prune_epochs` passes.

    Raises UserError as `app.training.trainer.train`.
    """
    epochs = spec.compress.prune_epochs
    healing = spec.with_settings({"train.epochs": epochs, "train.patience": epochs, "train.class_weights": "none"})
    taught = with_answers(parts, plan.target, answer, teaching(spec, plan.target))
    weights = _uncalibrated(network).to_safetensors()
    return train(taught, plan, healing, workspace, run, on_epoch, weights, threads)


@torch.no_grad()
def _uncalibrated(network: Network) -> Network:
    """Return the same function with a temperature of 1, as training knows it: the last layer takes it in."""
    same = copy.deepcopy(network)
    same.head.weight.div_(network.temperature)
    same.head.bias.div_(network.temperature)
    same.temperature.fill_(1.0)
    return same
