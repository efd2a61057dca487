"""What maps features to a score? A multilayer perceptron behind embeddings of every number and category.

number (n, N)   -> standardised, clipped -> periodic embedding -+
                -> is it missing?  ------------------------------+-> hidden layers -> logits (n, outputs)
category (n, C) -> embedding  -----------------------------------+

Periodic embeddings: Gorishniy et al., "On Embeddings for Numerical Features in Tabular Deep Learning",
NeurIPS 2022. Everything between raw numbers and scores is in here, and so in the exported graph.

The kind `tabm` has k members in place of each layer, which share its large matrix and differ by vectors: Gorishniy,
Kotelnikov and Babenko, "TabM: Advancing Tabular Deep Learning with Parameter-Efficient Ensembling", ICLR 2025. The kind
`linear` has neither periodic embeddings nor hidden layers.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from rtdl_num_embeddings import PeriodicEmbeddings
from tabm import EnsembleView, LinearBatchEnsemble, LinearEnsemble
from torch import Tensor, nn
from torch.nn import functional

from app import spec
from app.data.features import FeaturePlan, NumberColumn
from app.types import MISSING_ID, UNSEEN_ID, Scores

_HIDDEN = 0.02
_REACH = 2.0
_ROWS_AT_ONCE = 4096


class Normalisation(NamedTuple):
    """Per number, float32 (N,): the network sees clip((x - center) * scale, lower, upper), and 0 for missing."""

    center: npt.NDArray[np.float32]
    scale: npt.NDArray[np.float32]
    lower: npt.NDArray[np.float32]
    upper: npt.NDArray[np.float32]

    @staticmethod
    def of(columns: tuple[NumberColumn, ...]) -> "Normalisation":
        """Read the statistics of the training rows."""
        parts = np.array([_normalise(column) for column in columns], np.float32).reshape(-1, 4)
        return Normalisation(*np.ascontiguousarray(parts.T))


def _normalise(column: NumberColumn) -> tuple[float, float, float, float]:
    """Return center, scale, lower and upper of one number.

    Moments are those of the middle 99 %, so that a few wild values cannot flatten the others; a number that
    is constant there falls back on all its values, and one that is constant everywhere becomes 0. The limits
    keep the network from guessing far outside what it was trained on (summer's heat after a winter).
    """
    if not column.quantiles:
        return 0.0, 0.0, 0.0, 0.0
    quantiles = np.array(column.quantiles)
    middle = np.clip(quantiles, quantiles[1], quantiles[-2])
    center, deviation = middle.mean(), middle.std()
    if deviation <= 1e-6 * max(1.0, abs(center)):
        center, deviation = column.mean, column.std
    if not deviation > 1 / float(np.finfo(np.float32).max):  # so small that float32 has no factor that makes it 1
        return center, 0.0, 0.0, 0.0
    return center, 1 / deviation, -_REACH, _REACH


class Network(nn.Module):
    """The network of a feature plan.

    While training, each value is hidden at a small rate: a number becomes missing, a category missing or
    unseen. So these mean something even where the training rows had none. `model.dropout: 0` switches this
    off too, and the forward pass is a pure function.
    """

    center: Tensor
    scale: Tensor
    lower: Tensor
    upper: Tensor
    offset: Tensor
    temperature: Tensor

    def __init__(self, plan: FeaturePlan, model: spec.Model) -> None:
        super().__init__()
        assert plan.names, "a plan has features"
        assert model.kind in ("network", "tabm", "linear"), f"{model.kind} is no network"
        linear = model.kind == "linear"
        self.plan = plan
        self.hidden_rate = _HIDDEN if model.dropout and not linear else 0.0
        # Kept with the weights, which mean nothing in other units: a training that goes on keeps its units.
        for name, values in Normalisation.of(plan.number)._asdict().items():
            self.register_buffer(name, torch.from_numpy(values))
        self.register_buffer("temperature", torch.ones(()))
        sizes_of_inputs = [1] * 2 * len(plan.number)
        self.number: PeriodicEmbeddings | None = None
        if plan.number and not linear:
            self.number = PeriodicEmbeddings(
                len(plan.number),
                model.number_embedding,
                n_frequencies=model.frequencies,
                frequency_init_scale=model.frequency_scale,
                lite=True,
            )
            sizes_of_inputs = [model.number_embedding] * len(plan.number) + sizes_of_inputs
        if plan.category:
            # One table for all: a category's ids begin at its offset, and one lookup finds every embedding.
            sizes = [column.size for column in plan.category]
            # A linear model's embedding is no more than a weight for each value and output.
            width = plan.target.outputs if linear else _embedding_width(max(sizes), model.category_embedding)
            # What the plan tells is no state: whoever loads weights has the plan.
            self.register_buffer("offset", torch.tensor(np.cumsum([0, *sizes[:-1]])), persistent=False)
            self.category = nn.Embedding(sum(sizes), width)
            sizes_of_inputs += [width] * len(sizes)
        self.hidden = nn.Sequential(*([] if linear else _hidden_layers(model, sizes_of_inputs)))
        inputs, outputs = sum(sizes_of_inputs) if linear else model.width, plan.target.outputs
        self.head: nn.Linear | LinearEnsemble = (
            LinearEnsemble(inputs, outputs, k=model.ensemble) if model.kind == "tabm" else nn.Linear(inputs, outputs)
        )
        if linear:
            self._begin_as_constant()

    @torch.no_grad()
    def _begin_as_constant(self) -> None:
        """Let features weigh nothing: a linear model hides none while it learns, so what no row shows stays so.

        Of the two factors of a category's weight only the embeddings are 0, or neither would ever learn.
        """
        outputs = self.plan.target.outputs
        numbers = torch.zeros(outputs, 2 * len(self.plan.number))
        self.head.weight.copy_(torch.cat([numbers, torch.eye(outputs).repeat(1, len(self.plan.category))], dim=1))
        self.head.bias.zero_()
        if self.plan.category:
            self.category.weight.zero_()

    @property
    def layers(self) -> list[nn.Linear | LinearBatchEnsemble | LinearEnsemble]:
        """The layers with weights, from input to output; of an ensemble, each holds all members."""
        return [layer for layer in self.hidden if isinstance(layer, (nn.Linear, LinearBatchEnsemble))] + [self.head]

    def forward(self, number: Tensor, category: Tensor) -> Tensor:
        """Return logits (n, outputs) of numbers float32 (n, N), NaN for missing, and ids int64 (n, C).

        A regression's single output is in units of the standardised target. While training, an ensemble's members
        speak for themselves, (n, k, outputs): each has to learn. Otherwise this is their mean.
        """
        if self.training and self.hidden_rate:
            number, category = self._hide(number, category)
        parts: list[Tensor] = []
        if self.plan.number:
            missing = number.isnan()
            standard = ((number - self.center) * self.scale).clamp(self.lower, self.upper).masked_fill(missing, 0.0)
            if self.number is not None:
                parts.append(self.number(standard).flatten(1))
            parts += [standard, missing.to(standard.dtype)]
        if self.plan.category:
            parts.append(self.category(category + self.offset).flatten(1))
        logits: Tensor = self.head(self.hidden(torch.cat(parts, dim=1)))
        return logits if logits.ndim == 2 or self.training else logits.mean(dim=1)

    def _hide(self, number: Tensor, category: Tensor) -> tuple[Tensor, Tensor]:
        number = number.masked_fill(torch.rand_like(number) < self.hidden_rate, torch.nan)
        chance = torch.rand(category.shape, device=category.device)
        category = category.masked_fill(chance < self.hidden_rate / 2, MISSING_ID)
        return number, category.masked_fill(chance > 1 - self.hidden_rate / 2, UNSEEN_ID)

    def loss(self, logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Return the mean loss: log-loss, or a regression's declared one in units of the standardised target.

        `target` (n,) is 0/1, a class index or a value, as `app.types.Targets`, or what a teacher thinks: a probability
        (n,), or those of all classes (n, K). None may be NaN. `logits` of members (n, k, outputs) count alike.
        `weights` (K,) are those of the classes, a binary target's being two.
        """
        column = self.plan.target
        if logits.ndim == 3:
            target = target.repeat_interleave(logits.shape[1], dim=0)
            logits = logits.flatten(0, 1)
        if column.task == "multiclass":
            labels = target if target.ndim == 2 else target.long()
            return functional.cross_entropy(logits, labels, weights, reduction="sum") / len(logits)
        if column.task == "binary":
            logit = logits.squeeze(1)
            if weights is None:
                return functional.binary_cross_entropy_with_logits(logit, target)
            ratio = weights[1] / weights[0]
            return weights[0] * functional.binary_cross_entropy_with_logits(logit, target, pos_weight=ratio)
        error = (target - column.mean) / column.std - logits.squeeze(1)
        if column.loss == "squared":
            return error.square().mean()
        if column.loss == "absolute":
            return error.abs().mean()
        return torch.maximum(column.quantile * error, (column.quantile - 1) * error).mean()

    def to_scores(self, logits: Tensor) -> Scores:
        """Return calibrated probabilities (n,) or (n, K), or values in the target's own units (n,)."""
        column, logits = self.plan.target, logits.detach().float()
        if column.task == "multiclass":
            found = functional.softmax(logits / self.temperature, dim=1)
        elif column.task == "binary":
            found = torch.sigmoid(logits.squeeze(1) / self.temperature)
        else:
            found = logits.squeeze(1) * column.std + column.mean
        return found.cpu().numpy()

    @torch.no_grad()
    def score(self, number: Tensor, category: Tensor) -> Scores:
        """Return the scores of features, as the exported graph does. Leaves the network in evaluation mode."""
        self.eval()
        starts = range(0, max(1, len(number)), _ROWS_AT_ONCE)
        pieces = (slice(start, start + _ROWS_AT_ONCE) for start in starts)
        return np.concatenate([self.to_scores(self(number[piece], category[piece])) for piece in pieces])

    @torch.no_grad()
    def shift(self, by: Tensor) -> None:
        """Add to the logits (outputs,) of every row from now on."""
        self.head.bias += by.to(self.head.bias)

    @torch.no_grad()
    def calibrate(self, logits: Tensor, target: Tensor) -> None:
        """Set the temperature that minimises the log-loss of `logits`; a regression has none.

        Rows of one class alone say nothing of it: the surer, the better, without end. It stays as it is then.
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017. The loss is convex in the inverse
        temperature, so a golden-section search over its logarithm finds the minimum.
        """
        if self.plan.target.task == "regression" or len(target) == 0:
            return
        if target.ndim == 1 and (target == target[0].round()).all():
            return
        ratio = (5**0.5 - 1) / 2
        low, high = np.log(0.05), np.log(20.0)

        def loss(logarithm: float) -> float:
            return self.loss(logits.double() / np.exp(logarithm), target.double()).item()

        inner, outer = high - ratio * (high - low), low + ratio * (high - low)
        at_inner, at_outer = loss(inner), loss(outer)
        while high - low > 1e-4:
            if at_inner < at_outer:
                high, outer, at_outer = outer, inner, at_inner
                inner = high - ratio * (high - low)
                at_inner = loss(inner)
            else:
                low, inner, at_inner = inner, outer, at_outer
                outer = low + ratio * (high - low)
                at_outer = loss(outer)
        self.temperature.fill_(float(np.exp((low + high) / 2)))

    def to_safetensors(self) -> bytes:
        """Return the weights, temperature among them."""
        data: bytes = safetensors.torch.save({k: v.cpu().contiguous() for k, v in self.state_dict().items()})
        return data

    @staticmethod
    def from_safetensors(data: bytes, plan: FeaturePlan, model: spec.Model) -> "Network":
        """Build the network whose weights `to_safetensors` wrote."""
        network = Network(plan, model)
        network.load_state_dict(safetensors.torch.load(data))
        return network.eval()


def _hidden_layers(model: spec.Model, sizes_of_inputs: list[int]) -> list[nn.Module]:
    """Return the layers between the inputs, of which each feature's part has its size, and the head."""
    inputs, layers = sum(sizes_of_inputs), list[nn.Module]()
    if model.kind == "tabm":
        layers.append(EnsembleView(k=model.ensemble))
    for i in range(model.depth):
        layer: nn.Module = nn.Linear(inputs, model.width)
        if model.kind == "tabm":  # members begin apart by the first layer's scales alone, one draw a feature
            apart = {"scaling_init": ("normal", "ones"), "first_scaling_init_chunks": sizes_of_inputs}
            same = {"scaling_init": "ones"}
            layer = LinearBatchEnsemble(inputs, model.width, k=model.ensemble, **(same if i else apart))
        layers += [layer, nn.ReLU(), nn.Dropout(model.dropout)]
        inputs = model.width
    return layers


def _embedding_width(size: int, largest: int) -> int:
    """Return the width for a vocabulary of `size` ids: fastai's rule 1.6 n^0.56, at most `largest`."""
    return min(largest, max(2, int(1.6 * math.pow(size, 0.56))))
