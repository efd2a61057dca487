"""How is a better model found? What the declaration leaves open is searched; the best is trained, judged and compared.

Trials see the training part alone, in it also days drawn to judge them (`app.training.search.days`); the best of them
have to be proven better than the declared settings (`app.training.search.finals`). LightGBM's settings are searched
likewise, with as many trials and no more time. What is chosen of both makes a version like any other: LightGBM's are
its baseline's. The declared settings and the luckiest ones are trained beside it, and all are measured on rows that no
trial has seen, where there are such.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from app import registry
from app.data.prepare import Prepared
from app.declaration import Declaration
from app.model.bundle import open_bundle
from app.model.contents import Evaluation
from app.model.runtime import Runtime
from app.pipeline import Rows, Stopwatch, TrainedVersion, commit_of, later_rows, train_version
from app.spec import Spec, Value
from app.training.kinds import fit_model
from app.training.resources import cpu_count
from app.training.search.days import with_drawn_days
from app.training.search.pictures import draw
from app.training.search.show import Show
from app.training.search.trials import Record, Trial
from app.workspace import Workspace, join, write_bytes

if TYPE_CHECKING:
    from app.training.search.driver import Found

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tuned:
    """What a search came to: the version of the settings it chose, and how it stands beside others.

    `settings` are those that differ from the declaration, LightGBM's among them. `judged` says which rows judged the
    `sides`: by name, what was chosen, the declared settings and the trial of least loss where they were not, and
    LightGBM likewise. All of it is kept at the address `report`, pictures beside it.
    """

    version: TrainedVersion
    settings: dict[str, Value]
    found: "Found"
    trees: "Found | None"
    judged: str
    sides: dict[str, Evaluation]
    report: str


def tune(declaration: Declaration, workspace: Workspace, run: str | None = None, later: str | None = None) -> Tuned:
    """Search, train what is chosen, and compare it on the table at `later`, rows of later times; else on the held-out part.

    Ray must be initialised. `run` names the search: the same name again goes on where it was stopped, and repeats no
    trial that ended. Raises UserError for whatever the declaration or the data make impossible.
    """
    from app.training.search.driver import search  # it imports Ray, which reads its environment then

    spec, watch = declaration.spec, Stopwatch()
    rows = Rows.of(declaration, workspace, watch)
    held_out = rows.held_out if later is None else later_rows(declaration, workspace, later, rows.plan)
    identity = _identity(rows.prepared, spec)
    run = run or f"tune-{identity[:16]}"
    folder = workspace.uri(spec.name, "tune", run)
    parts = with_drawn_days(rows.parts, spec.tune.validation_days, spec.tune.seed)

    def searched(spec: Spec, name: str, place: str, seconds: float | None) -> "Found":
        record = Record(place, identity)
        show = Show.on_stdout(name, spec.tune.trials, [trial for trial in record.open() if trial.ended])
        with watch(name), closing(show):
            return search(parts, rows.plan, spec, workspace, f"{run}-{spec.model.kind}", record, show, seconds)

    found, trees = searched(spec, "search", folder, None), None
    if spec.tune.baseline and spec.model.kind != "lightgbm":
        trees = searched(_of_trees(spec), "search of LightGBM", join(folder, "lightgbm"), found.seconds)
    settings = found.chosen.settings | (trees.chosen.settings if trees else {})
    version = train_version(declaration, workspace, _named(run, "chosen", settings), _reason(found), settings, rows)
    with watch("compare"):
        models = {"chosen": open_bundle(version.bundle).runtime(threads=cpu_count()).score}
        for name, trial in _others(found).items():
            given = spec.with_settings(trial.settings)
            fitted = fit_model(rows.parts, rows.plan, given, workspace, _named(run, name, trial.settings))
            models[name] = Runtime(fitted.onnx, rows.plan, threads=cpu_count()).score
        if trees is not None:
            for name, trial in {"chosen": trees.chosen, **_others(trees)}.items():
                models[f"LightGBM, {name}"] = rows.baseline(spec.with_settings(trial.settings)).score
    sides = {name: held_out.evaluate(score(held_out.examples.features)) for name, score in models.items()}
    judged = f"{later or f'the {held_out.part} part'}, {_known_to_trials(later, held_out.part)}"
    pictures = {f"{name}.png": png for name, png in draw(found.space, found.trials, found.best).items()}
    report = _report(version, settings, found, trees, judged, sides)
    for name, data in {**pictures, "report.json": json.dumps(report, indent=1).encode()}.items():
        write_bytes(join(folder, name), data)
    _track(declaration, workspace, run, rows, found, pictures)
    return Tuned(version, settings, found, trees, judged, sides, join(folder, "report.json"))


def _of_trees(spec: Spec) -> Spec:
    return spec.model_copy(
        update={
            "model": spec.model.model_copy(update={"kind": "lightgbm"}),
            "tune": spec.tune.model_copy(update={"space": {}}),
        }
    )


def _others(found: "Found") -> dict[str, Trial]:
    """Return what was not chosen: the declared settings, and the trial with the least loss."""
    others = {"declared": found.declared, "best trial": found.best}
    return {name: trial for name, trial in others.items() if trial != found.chosen}


def _named(run: str, what: str, settings: Mapping[str, Value]) -> str:
    """Name a training of what a search found: when the search goes on, another trial may take the place."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    return f"{run}-{what}-{digest[:8]}"


def _known_to_trials(later: str | None, part: str) -> str:
    """Say whether the rows that compare are news: where no part tests, they are those that judged the trials."""
    if later is None and part == "validation":
        return "which has judged the trials, too: rows that have not come by --later or data.split.test"
    return "which no trial has seen"


def _reason(found: "Found") -> str:
    if found.chosen == found.declared:
        return f"as declared: none of {len(found.trials)} trials is proven better"
    return f"trial {found.chosen.number} of {len(found.trials)}"


def _identity(prepared: Prepared, spec: Spec) -> str:
    """Name a search by what decides its trials, but not by how many there may be, nor by what becomes of them."""
    whole = spec.dump()
    asked = {name: whole[name] for name in ("task", "model", "train", "tune")}
    for how_many in ("trials", "time_budget", "finalists"):
        asked["tune"].pop(how_many)
    content = json.dumps([prepared.fingerprint, asked], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _report(
    version: TrainedVersion,
    settings: dict[str, Value],
    found: "Found",
    trees: "Found | None",
    judged: str,
    sides: dict[str, Evaluation],
) -> dict[str, object]:
    """Return the whole report as plain JSON."""

    def of(one: "Found") -> dict[str, object]:
        return {
            "declared": one.declared.loss,
            "best": one.best.loss,
            "chosen": one.chosen.number,
            "finals": [asdict(standing) for standing in one.standings],
            "seconds": one.seconds,
            "trials": [asdict(trial) for trial in one.trials],
        }

    return {
        "version": version.number,
        "gate": {"passed": version.verdict.passed, "reasons": version.verdict.reasons},
        "settings": settings,
        "search": of(found),
        "lightgbm": of(trees) if trees else None,
        "judged": judged,
        "sides": {name: asdict(side) | {"mean_of_months": side.mean_of_months()} for name, side in sides.items()},
    }


def _track(
    declaration: Declaration, workspace: Workspace, run: str, rows: Rows, found: "Found", pictures: dict[str, bytes]
) -> None:
    """Show the search among the runs: one for all of it, and below it one a trial."""
    spec = declaration.spec
    versions = registry.Registry.open(workspace, spec.name)
    with versions.run(spec, rows.prepared.fingerprint, commit_of(declaration.path), run) as tracked:
        tracked.log_files(pictures)
        tracked.log_metrics({"best_loss": found.best.loss or 0.0, "declared_loss": found.declared.loss or 0.0})
        for trial in found.trials:
            name = f"trial {trial.number}"
            tracked.log_trial(name, found.space.complete(trial.settings), trial.losses, trial.loss, trial.state)
