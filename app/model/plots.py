"""Which pictures show how good a version is? Drawn without pyplot, so that nothing is global and nothing pops up."""

import io
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from app.data.features import TargetColumn
from app.model.contents import Compression, Contents, Side
from app.types import Scores, Targets

_BINS = 15
_MOST_FEATURES = 20
_MOST_CLASSES = 20
_MOST_POINTS = 5000
_LONGEST_NAME = 26
_INK, _PALE = "#3f4750", "#c9ced6"
_COLORS: dict[Side, str] = {"model": "#1f6fb2", "baseline": "#e08a2e"}
_FAMILIES = {"teacher": "#7a5ea8", "large": "#e08a2e", "student": "#1f6fb2"}
_LABELS: dict[Side, str] = {"model": "model", "baseline": "LightGBM"}


class Picture(NamedTuple):
    """A drawn PNG, and what it shows."""

    png: bytes
    caption: str


def draw(contents: Contents) -> dict[str, Picture]:
    """Return the pictures of a version by name; what there is no data for is left out."""
    known = ~np.isnan(contents.target)
    target = contents.target[known]
    scores: dict[Side, Scores] = {"model": contents.scores[known]}
    if contents.baseline_scores is not None:
        scores["baseline"] = contents.baseline_scores[known]
    pictures = _scored(contents.plan.target, scores, target) if len(target) else {}
    if contents.importance:
        pictures["importance"] = _importance(contents.importance)
    if contents.history:
        pictures["training"] = _training(contents.history)
    if contents.compression:
        pictures["pareto"] = pareto(contents.compression)
    return pictures


def pareto(found: Compression) -> Picture:
    """Draw the loss of every variant against the time of one row's prediction, and mark the front and the choice."""
    figure, (axes,) = _figure(7.2, 4.8)
    best = np.inf
    front = []
    for one in sorted(found.variants, key=lambda one: (one.latency, one.loss)):
        if one.loss < best:
            best = one.loss
            front.append(one)
    axes.plot(
        [one.latency * 1e6 for one in front], [one.loss for one in front], color=_PALE, linewidth=1.4, label="front"
    )
    for family, color in _FAMILIES.items():
        some = [one for one in found.variants if one.family == family]
        for allowed, marker in ((True, "o"), (False, "x")):
            shown = [one for one in some if (one.refused is None) is allowed]
            axes.scatter(
                [one.latency * 1e6 for one in shown],
                [one.loss for one in shown],
                s=[18 + 90 * one.size / max(v.size for v in found.variants) for one in shown],
                marker=marker,
                color=color,
                alpha=0.8,
                label=f"{family}{'' if allowed else ', refused'}" if shown else None,
            )
    for one in found.variants:
        if one.name == found.chosen:
            axes.scatter([one.latency * 1e6], [one.loss], s=260, facecolors="none", edgecolors=_INK, label="chosen")
            axes.annotate(
                one.name, (one.latency * 1e6, one.loss), (6, -16), textcoords="offset points", fontsize=8, color=_INK
            )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.xaxis.set_minor_formatter(ScalarFormatter())
    axes.tick_params(which="minor", labelsize=7, colors=_INK)
    axes.set(xlabel="one row's prediction, µs (median)", ylabel="loss")
    axes.legend(frameon=False, fontsize=8)
    return _picture(
        figure, "Quality against latency; the larger a point, the larger the graph; a cross may not serve."
    )


def _scored(column: TargetColumn, scores: dict[Side, Scores], target: Targets) -> dict[str, Picture]:
    """Return what is drawn from scores and targets."""
    if column.task == "regression":
        return {"residuals": _residuals(scores["model"], target, column.name)}
    if column.task == "binary":
        caption = "What share of the rows with a score was positive? Bins of equal size over the score."
        pictures = {"calibration": _calibration({k: (v, target) for k, v in scores.items()}, caption)}
        return pictures | {"roc": _roc(scores, target)} if 0 < target.mean() < 1 else pictures
    sure = {k: (v.max(axis=1), (v.argmax(axis=1) == target).astype(np.float32)) for k, v in scores.items()}
    caption = "How often was the likeliest class right? Bins of equal size over its probability."
    names = [str(value) for value in column.classes]
    return {"calibration": _calibration(sure, caption), "confusion": _confusion(scores["model"], target, names)}


def _calibration(sides: dict[Side, tuple[Scores, Targets]], caption: str) -> Picture:
    figure, (axes, below) = _figure(5.2, 5.2, rows=(4, 1))
    axes.plot([0, 1], [0, 1], color=_PALE, linestyle="--", linewidth=1)
    top = 0.0
    for side, (score, truth) in sides.items():
        order = np.argsort(score, kind="stable")
        parts = [part for part in np.array_split(order, _BINS) if len(part)]
        mean, share = (np.array([values[part].mean() for part in parts]) for values in (score, truth))
        axes.plot(mean, share, "o-", color=_COLORS[side], label=_LABELS[side], markersize=4, linewidth=1.4)
        below.hist(score, bins=40, range=(0, 1), histtype="step", color=_COLORS[side], linewidth=1.2)
        top = max(top, mean.max(), share.max())
    limit = min(1.0, top * 1.05)
    axes.set(xlim=(0, limit), ylim=(0, limit), ylabel="observed share")
    below.set(xlim=(0, limit), xlabel="score", ylabel="rows")
    axes.tick_params(labelbottom=False)
    axes.legend(frameon=False, loc="upper left")
    return _picture(figure, caption)


def _roc(scores: dict[Side, Scores], target: Targets) -> Picture:
    figure, (axes,) = _figure(5.2, 4.8)
    axes.plot([0, 1], [0, 1], color=_PALE, linestyle="--", linewidth=1)
    for side, score in scores.items():
        false, true = _roc_curve(score, target)
        area = float(np.trapezoid(true, false))
        axes.plot(false, true, color=_COLORS[side], linewidth=1.4, label=f"{_LABELS[side]}, AUC {area:.3f}")
    axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="false positive rate", ylabel="true positive rate")
    axes.legend(frameon=False, loc="lower right")
    return _picture(figure, "Receiver operating characteristic of all rows together.")


def _roc_curve(score: Scores, target: Targets) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return false and true positive rates at every distinct threshold, thinned to at most 1,000."""
    order = np.argsort(-score, kind="stable")
    positive = np.cumsum(target[order] == 1)
    last = np.flatnonzero(np.append(np.diff(score[order]) != 0, True))
    last = last[np.unique(np.linspace(0, len(last) - 1, 1000).astype(np.int64))]
    negative = last + 1 - positive[last]
    true = np.concatenate([[0], positive[last] / positive[-1]])
    return np.concatenate([[0], negative / negative[-1]]), true


def _confusion(score: Scores, target: Targets, names: list[str]) -> Picture:
    shown = min(len(names), _MOST_CLASSES)
    counts = np.zeros((len(names), len(names)))
    np.add.at(counts, (target.astype(np.int64), score.argmax(axis=1)), 1)
    counts = counts[:shown, :shown] / np.maximum(counts.sum(axis=1, keepdims=True)[:shown], 1)
    side = 3.2 + 0.34 * shown
    figure, (axes,) = _figure(side, side)
    axes.imshow(counts, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(*counts.shape):
        if counts[row, column] >= 0.005:
            color = "white" if counts[row, column] > 0.5 else _INK
            text = f"{counts[row, column]:.2f}".removeprefix("0")
            axes.text(column, row, text, ha="center", va="center", color=color, fontsize=7)
    labels = [_drawable(name) for name in names[:shown]]
    axes.set_xticks(range(shown), labels, rotation=90 if max(map(len, labels)) > 3 else 0, parse_math=False)
    axes.set_yticks(range(shown), labels, parse_math=False)
    axes.set(xlabel="predicted", ylabel="actual")
    axes.spines[:].set_visible(False)
    rest = f" Only the first {shown} of {len(names)} classes are shown." if shown < len(names) else ""
    return _picture(figure, f"Where each class's rows went, as shares of the class.{rest}")


def _residuals(score: Scores, target: Targets, name: str) -> Picture:
    figure, (axes,) = _figure(6.2, 4.4)
    order = np.argsort(score, kind="stable")
    error = target - score
    thin = order[np.unique(np.linspace(0, len(order) - 1, _MOST_POINTS).astype(np.int64))]
    axes.axhline(0, color=_INK, linewidth=0.8)
    axes.scatter(score[thin], error[thin], s=4, color=_COLORS["model"], alpha=0.25, linewidths=0)
    parts = [part for part in np.array_split(order, 20) if len(part)]
    middle = [np.median(score[part]) for part in parts]
    for quantile, style in {0.1: ":", 0.5: "-", 0.9: ":"}.items():
        axes.plot(middle, [np.quantile(error[part], quantile) for part in parts], style, color=_COLORS["baseline"])
    reach = float(np.quantile(np.abs(error), 0.995)) * 1.1 or 1.0
    axes.set(ylim=(-reach, reach), xlabel="prediction")
    axes.set_ylabel(f"actual {_drawable(name)} - prediction", parse_math=False)
    return _picture(figure, "Residuals with their median and their 10 % and 90 % quantiles.")


def _importance(importance: dict[Side, dict[str, float]]) -> Picture:
    first = next(iter(importance.values()))
    names = sorted(first, key=lambda name: -first[name])[:_MOST_FEATURES]
    figure, (axes,) = _figure(6.2, 1.1 + 0.3 * len(names))
    place, thick = np.arange(len(names)), 0.8 / len(importance)
    for i, (side, rises) in enumerate(importance.items()):
        values = [rises[name] for name in names]
        axes.barh(place + (i + 0.5) * thick - 0.4, values, thick * 0.9, color=_COLORS[side], label=_LABELS[side])
    axes.axvline(0, color=_INK, linewidth=0.8)
    axes.set_yticks(place, [_drawable(name) for name in names], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("rise in loss")
    axes.legend(frameon=False, loc="lower right")
    rest = f" The first {len(names)} of {len(first)} features." if len(names) < len(first) else ""
    return _picture(figure, f"How much the loss rises when a feature is shuffled between rows.{rest}")


def _training(history: list[dict[str, float]]) -> Picture:
    figure, (axes,) = _figure(6.2, 3.6)
    unit = "rounds" if "rounds" in history[0] else "epoch"
    epochs = [line[unit] for line in history]
    if "train_loss" in history[0]:
        training = [line["train_loss"] for line in history]
        axes.plot(epochs, training, "o-", color=_PALE, markersize=3, label="training")
    validation = [line["validation_loss"] for line in history]
    axes.plot(epochs, validation, "o-", color=_COLORS["model"], markersize=3, label="validation")
    best = int(np.argmin(validation))
    axes.plot(epochs[best], validation[best], "o", color=_COLORS["baseline"], markersize=7, label="kept")
    axes.set(xlabel=unit, ylabel="loss")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)
    return _picture(figure, f"Loss by {unit}; a network's in training includes dropout. What validates best is kept.")


def _figure(width: float, height: float, rows: tuple[int, ...] = (1,)) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(rows), 1, height_ratios=rows, squeeze=False)
    axes: list[Axes] = list(grid[:, 0])
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.spines[:].set_color(_INK)
        one.tick_params(colors=_INK, labelsize=8)
        one.xaxis.label.set(size=9, color=_INK)
        one.yaxis.label.set(size=9, color=_INK)
    return figure, axes


def _picture(figure: Figure, caption: str) -> Picture:
    stream = io.BytesIO()
    # Without the library's name and version in it, equal contents give equal bytes.
    figure.savefig(stream, format="png", metadata={"Software": None})
    return Picture(stream.getvalue(), caption)


def _drawable(name: str) -> str:
    """Shorten a name, and replace what the font cannot draw."""
    font = get_font(findfont("DejaVu Sans"))
    short = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
    return "".join(sign if font.get_char_index(ord(sign)) else "�" for sign in short)
