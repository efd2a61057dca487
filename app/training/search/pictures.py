"""Which settings mattered, and what did the good trials have in common? Drawn without pyplot, as in `app.model.plots`."""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances

from app.spec import Range, Searched, Value
from app.training.search.sampler import Sampler
from app.training.search.show import write_value
from app.training.search.space import Space
from app.training.search.trials import DECLARED, Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _PALE, _BLUE, _ORANGE = "#3f4750", "#c9ced6", "#1f6fb2", "#e08a2e"
_FEWEST = 4  # trials from which importance can be told


def draw(space: Space, trials: Sequence[Trial], best: Trial) -> dict[str, bytes]:
    """Return PNG files by name: `parallel`, and `importance` where there are trials enough."""
    searched = space.searched(best.settings)
    alike = [trial for trial in trials if trial.loss is not None and space.searched(trial.settings) == searched]
    if not searched or len(alike) < 2:
        return {}
    pictures = {"parallel": _parallel(space, searched, alike, best)}
    if mattered := importance(space, alike):
        pictures["importance"] = _importance(mattered)
    return pictures


def importance(space: Space, trials: Sequence[Trial]) -> dict[str, float]:
    """Return how much each key sets good trials apart, all keys together 1, the most first.

    PED-ANOVA (Watanabe, Bansal and Hutter 2023). Trials that were stopped count by the least loss they reached.
    Nothing where there are too few trials.
    """
    if len(trials) < _FEWEST:
        return {}
    sampler = Sampler(space, "random", 0)
    frozen = [sampler.frozen(trial, optuna.trial.TrialState.COMPLETE) for trial in trials]
    shared = [key for key in space.searched(trials[0].settings) if all(key in one.params for one in frozen)]
    varied = [key for key in shared if len({one.params[key] for one in frozen}) > 1]
    if not varied:
        return {}
    study = optuna.create_study()
    study.add_trials(frozen)
    found = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), params=varied)
    return {key: float(value) for key, value in found.items() if math.isfinite(value)}


class _Axis(NamedTuple):
    """A key's values, and where each of them lies from 0 to 1."""

    key: str
    places: list[float]
    ticks: dict[float, str]


def _parallel(space: Space, searched: dict[str, Searched], trials: Sequence[Trial], best: Trial) -> bytes:
    values = [space.complete(trial.settings) for trial in trials]
    axes = [_axis(key, what, [one[key] for one in values]) for key, what in searched.items()]
    losses = [trial.loss for trial in trials if trial.loss is not None]
    worst = float(np.quantile(losses, 0.9))  # what diverged would press all others together
    shown = [min(loss, worst) for loss in losses]
    axes.append(_scaled("loss", shown, min(shown), max(shown), log=False))
    figure, one = _figure(1.6 + 1.15 * len(axes), 4.6)
    rank = np.argsort(np.argsort(losses)) / max(1, len(losses) - 1)
    for i in np.argsort(losses)[::-1]:
        trial = trials[i]
        color = _ORANGE if trial == best else _INK if trial.number == DECLARED else _BLUE
        strong = trial == best or trial.number == DECLARED
        label = "best" if trial == best else "declared" if trial.number == DECLARED else None
        one.plot(
            range(len(axes)),
            [axis.places[i] for axis in axes],
            color=color,
            alpha=1.0 if strong else 0.75 - 0.6 * float(rank[i]),
            linewidth=2.2 if strong else 1.2,
            linestyle="-" if trial.state == "finished" else ":",
            label=label,
        )
    for place, axis in enumerate(axes):
        one.axvline(place, color=_PALE, linewidth=1, zorder=0)
        for height, text in axis.ticks.items():
            one.text(place + 0.04, height, text, fontsize=7, color=_INK, va="center")
    names = [f"{head}\n{name}" if head else name for head, _, name in (axis.key.rpartition(".") for axis in axes)]
    one.set_xticks(range(len(axes)), names, fontsize=7)
    one.set(yticks=[], xlim=(-0.2, len(axes) - 0.4), ylim=(-0.06, 1.06))
    one.spines[:].set_visible(False)
    one.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, fontsize=8)
    return _png(figure)


def _axis(key: str, searched: Searched, values: list[Value]) -> _Axis:
    """Place values on a key's axis; choices in their order, and what lies outside of the space at the nearest end."""
    if isinstance(searched, Range):
        numbers = [float(value) if isinstance(value, int | float) else searched.low for value in values]
        low, high = min(searched.low, *numbers), max(searched.high, *numbers)
        return _scaled(key, numbers, low, high, searched.log and low > 0)
    choices = list(dict.fromkeys([*searched.values, *values]))
    heights = {value: i / max(1, len(choices) - 1) for i, value in enumerate(choices)}
    return _Axis(key, [heights[value] for value in values], {at: str(value) for value, at in heights.items()})


def _scaled(key: str, values: list[float], low: float, high: float, log: bool) -> _Axis:
    def place(value: float) -> float:
        scaled = [math.log(one) if log else one for one in (value, low, high)]
        return (scaled[0] - scaled[1]) / ((scaled[2] - scaled[1]) or 1.0)

    def at(height: float) -> float:
        return low * (high / low) ** height if log else low + (high - low) * height

    ticks = {
        height: f"{at(height):.4f}" if key == "loss" else write_value(float(at(height))) for height in (0, 0.5, 1)
    }
    return _Axis(key, [place(value) for value in values], {float(height): text for height, text in ticks.items()})


def _importance(mattered: dict[str, float]) -> bytes:
    figure, axes = _figure(6.2, 1.1 + 0.3 * len(mattered))
    axes.barh(range(len(mattered)), list(mattered.values()), 0.7, color=_BLUE)
    axes.set_yticks(range(len(mattered)), list(mattered))
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("importance", size=9, color=_INK)
    axes.tick_params(colors=_INK, labelsize=8)
    return _png(figure)


def _figure(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _png(figure: "Figure") -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()
