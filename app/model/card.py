"""What should one know about a version? Its model card: facts and pictures, a pure function of the contents."""

from collections.abc import Iterator, Sequence

from app.model import plots
from app.model.contents import Contents, Evaluation, Figures, kinds, title

_TITLES = {
    "log_loss": "log-loss",
    "auc": "AUC",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "rmse": "RMSE",
    "mae": "MAE",
    "pinball": "pinball loss",
    "coverage": "share below the prediction",
    "r2": "R²",
}
_MOST_VALUES = 20


def render(contents: Contents) -> dict[str, bytes]:
    """Return the card's files by their paths in the bundle: card.md and plots/*.png."""
    pictures = plots.draw(contents)
    paragraphs = [
        *_head(contents),
        *_gate(contents),
        *_figures(contents),
        *_pictures(pictures),
        *_months(contents),
        *_slices(contents),
        *_features(contents),
        *_limits(contents),
        *_data(contents),
        *_considered(contents),
        *_compression(contents),
        *_making(contents),
    ]
    text = "\n\n".join(paragraphs) + "\n"
    return {"card.md": text.encode(), **{f"plots/{name}.png": picture.png for name, picture in pictures.items()}}


def _head(contents: Contents) -> Iterator[str]:
    plan, target = contents.plan, contents.plan.target
    yield f"# {contents.spec.name}"
    if target.task == "binary":
        what = f"the probability that {_code(target.name)} is {_code(target.classes[1])}"
    elif target.task == "multiclass":
        what = f"the probabilities of the {len(target.classes)} classes of {_code(target.name)}"
    else:
        what = f"the value of {_code(target.name)}"
    inputs = f"{len(plan.number)} number and {len(plan.category)} category features"
    kind = title(contents.spec.model)
    yield f"{'An' if kind[0] in 'aeiou' else 'A'} {kind} that predicts {what} from {inputs}."


def _gate(contents: Contents) -> Iterator[str]:
    if contents.judged:
        yield "## Gate"
        yield "Passed." if contents.judged.passed else "Not passed."
        yield "\n".join(f"- {reason}" for reason in contents.judged.reasons)


def _figures(contents: Contents) -> Iterator[str]:
    yield "## Figures"
    sides = _sides(contents)
    rows = [
        [title, *(_figure(side.overall.get(name)) for side in sides.values())]
        for name, title in _TITLES.items()
        if name in contents.evaluation.overall
    ]
    means = [side.mean_of_months() for side in sides.values()]
    rows += [
        [f"{title}, mean over months", *(_figure(mean.get(name)) for mean in means)]
        for name, title in _TITLES.items()
        if name in means[0]
    ]
    yield _table(["", *sides], rows)
    count = f"{contents.evaluation.overall.get('rows', 0):,.0f}"
    if contents.origin.rows.get("test"):
        yield f"Measured on {count} labelled test rows."
    else:
        yield f"Measured on {count} labelled validation rows, which also stopped the training: a little too good."


def _pictures(pictures: dict[str, plots.Picture]) -> Iterator[str]:
    for name, picture in pictures.items():
        yield f"![{name}](plots/{name}.png)"
        yield f"*{picture.caption}*"


def _months(contents: Contents) -> Iterator[str]:
    if contents.evaluation.by_month:
        yield "## By month"
        others = contents.baseline.by_month if contents.baseline else None
        yield _comparison("month", contents.evaluation.by_month, others, contents.evaluation.by_month)


def _slices(contents: Contents) -> Iterator[str]:
    for column, values in contents.evaluation.by_slice.items():
        yield f"## By {_code(column)}"
        others = contents.baseline.by_slice.get(column) if contents.baseline else None
        largest = sorted(values, key=lambda value: -values[value]["rows"])[:_MOST_VALUES]
        yield _comparison(column, values, others, largest)
        if len(largest) < len(values):
            yield f"The {len(largest)} most common of {len(values)} values; metrics.json has all of them."


def _features(contents: Contents) -> Iterator[str]:
    yield "## Features"
    plan, quantile = contents.plan, "{:.6g}".format
    if plan.number:
        rows = []
        for number in plan.number:
            spread = (
                [quantile(number.quantiles[place]) for place in (0, 64, 128, 192, 256)]
                if number.quantiles
                else [""] * 5
            )
            rows.append([_code(number.name), f"{number.nulls:.1%}", *spread])
        yield _table(["number", "null", "lowest", "25 %", "median", "75 %", "highest"], rows)
    if plan.category:
        unseen = contents.reference.unseen
        rows = []
        for column, rate in zip(plan.category, unseen, strict=True):
            common = ", ".join(_code(value) for value in column.vocabulary[:5])
            rows.append(
                [_code(column.name), f"{column.nulls:.1%}", f"{len(column.vocabulary):,}", f"{rate:.2%}", common]
            )
        yield _table(["category", "null", "values", "unseen in validation", "most common"], rows)


def _limits(contents: Contents) -> Iterator[str]:
    yield "## Limits"
    lines = [
        "A category value that the training rows did not have, or had too rarely, is scored as unseen.",
    ]
    if kinds(contents.spec.model) != ["lightgbm"]:
        lines.insert(
            0,
            "Numbers count at most two standard deviations from the mean of the middle 99 % of training rows: beyond, "
            "a network sees no difference.",
        )
    if contents.plan.target.task == "binary":
        lines.append(f"The answer's label is the positive one from a score of {contents.spec.task.threshold:g} on.")
    if contents.origin.time:
        lines.append(f"The newest row it learned from is of {contents.origin.time[1]}.")
    yield "\n".join(f"- {line}" for line in lines)


def _data(contents: Contents) -> Iterator[str]:
    yield "## Data"
    origin = contents.origin
    lines = [f"{part} rows: {count:,}" for part, count in origin.rows.items()]
    lines += [f"quarantined, {reason}: {count:,}" for reason, count in origin.quarantined.items()]
    if origin.time:
        lines.append(f"training and validation from {origin.time[0]} to {origin.time[1]}")
    lines.append(f"fingerprint: {_code(origin.fingerprint)}")
    yield "\n".join(f"- {line}" for line in lines)


def _considered(contents: Contents) -> Iterator[str]:
    if contents.considered:
        yield "## Kinds that competed"
        ranked = sorted(contents.considered.items(), key=lambda item: item[1])
        yield _table(["kind", "validation loss"], [[kind, _figure(loss)] for kind, loss in ranked])


def _compression(contents: Contents) -> Iterator[str]:
    if contents.compression:
        yield "## Compression"
        yield f"Chosen: {contents.compression.chosen}."
        rows = [
            [one.name, _figure(one.loss), f"{one.size / 1e3:,.0f}", f"{one.latency * 1e6:.1f}", one.refused or ""]
            for one in contents.compression.variants
        ]
        yield _table(["variant", "loss", "kB", "µs a row", "refused, because"], rows)


def _making(contents: Contents) -> Iterator[str]:
    yield "## Making"
    model, train, origin = contents.spec.model, contents.spec.train, contents.origin
    lines = []
    if {"network", "tabm"} & set(kinds(model)):
        lines.append(
            f"{model.depth} hidden layers of {model.width}, dropout {model.dropout:g}; embeddings of size "
            f"{model.number_embedding} for numbers, at most {model.category_embedding} for categories"
        )
    if set(kinds(model)) - {"lightgbm"}:
        lines.append(
            f"{len(contents.history)} epochs of batches of {train.rows_of_step(contents.plan.rows):,}, learning rate "
            f"{train.learning_rate:g}, weight decay {train.weight_decay:g}, seed {train.seed}"
        )
    if "lightgbm" in kinds(model):
        boosted = model.trees
        lines.append(
            f"trees of up to {boosted.leaves} leaves of {boosted.leaf_rows} rows or more, learning rate "
            f"{boosted.learning_rate:g}, seed {train.seed}"
        )
    lines += [f"found by a search: {key} {value}" for key, value in origin.tuned.items()]
    lines += [
        f"graph {len(contents.onnx) / 1e6:.2f} MB, to train on from {sum(map(len, contents.learned.values())) / 1e6:.2f} MB",
        ", ".join(f"{name} {version}" for name, version in origin.libraries.items()),
    ]
    if origin.commit:
        lines.append(f"commit {_code(origin.commit)}")
    yield "\n".join(f"- {line}" for line in lines)


def _sides(contents: Contents) -> dict[str, Evaluation]:
    sides = {title(contents.spec.model): contents.evaluation}
    return sides | {"LightGBM": contents.baseline} if contents.baseline else sides


def _comparison(
    title: str,
    model: dict[str, Figures],
    baseline: dict[str, Figures] | None,
    groups: Sequence[str] | dict[str, Figures],
) -> str:
    """Return a table of groups by the first two figures of the task, the model's beside the baseline's."""
    names = [name for name in _TITLES if any(name in figures for figures in model.values())][:2]
    header = [_escape(title), "rows"]
    for name in names:
        header += [f"{_TITLES[name]}", f"{_TITLES[name]}, LightGBM"] if baseline is not None else [_TITLES[name]]
    rows = []
    for group in groups:
        row = [_escape(group), f"{model[group]['rows']:,.0f}"]
        for name in names:
            row.append(_figure(model[group].get(name)))
            if baseline is not None:
                row.append(_figure(baseline.get(group, {}).get(name)))
        rows.append(row)
    return _table(header, rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}" if abs(value) >= 1 else f"{value:.4f}"


def _escape(text: object) -> str:
    """Return text that cannot break out of a table's cell."""
    return " ".join(str(text).replace("|", "\\|").split())


def _code(text: object) -> str:
    return f"`{_escape(text).replace('`', chr(39))}`"
