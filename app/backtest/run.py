"""From a declaration to the comparison of its policies: prepare, train what is asked for, follow each, contrast."""

import logging
from collections.abc import Sequence

from app.backtest.compare import Comparison, contrast, follow, policies
from app.backtest.course import Course, Simulation
from app.backtest.history import History
from app.backtest.models import Models
from app.backtest.probing import Probes
from app.data.prepare import prepare
from app.declaration import Declaration
from app.spec import Retrain
from app.types import UserError
from app.workspace import Workspace

log = logging.getLogger(__name__)


def backtest(
    declaration: Declaration, workspace: Workspace, start: int | None, delay: int, names: Sequence[str] | None = None
) -> tuple[Comparison, list[Course]]:
    """Compare the policies `names`, or all, on the declared table; Ray must be initialised.

    The first version answers from `start` (ms since 1970; None: after a fifth of the time), labels come `delay` ms
    after their row. Trainings are kept in the workspace, so that a second run is quick. Raises UserError for a table
    that cannot be prepared, has no times or too few days, and for a policy that is not there.
    """
    spec, chosen = declaration.spec, policies(declaration.spec)
    if names is not None:
        if unknown := [name for name in names if name not in chosen]:
            raise UserError(f"found policies {', '.join(unknown)}; allowed are {', '.join(chosen)}")
        chosen = {name: chosen[name] for name in names}
    history = History.of(prepare(declaration, workspace), spec, start, delay)
    models, probes = Models(spec, history, workspace), Probes(spec, history)

    def simulate(name: str, retrain: Retrain) -> Course:
        variant = spec.model_copy(update={"retrain": retrain})
        course = Simulation(name, variant, history, models.get, probes).run()
        made, passed = len(course.retrains), sum(one["passed"] for one in course.retrains)
        log.info("%-20s loss %.4f, %d retrainings, %d promoted", name, course.mean, made, passed)
        return course

    courses = follow(chosen, simulate)
    return contrast(spec, history, courses), courses
