"""Which policy should the declaration name? Quality against cost of each, on the same rows, with how sure that is."""

import datetime as dt
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from app.backtest.course import Course
from app.backtest.history import History
from app.spec import Budget, Retrain, Spec, write_duration
from app.training.bootstrap import blocks_of_days
from app.training.evidence import compare, everything

WEEKS = (2, 4, 8, 12)
AT_ONCE = 4
"""Policies followed at once; their trainings run over the cluster."""


@dataclass(frozen=True)
class Line:
    """One policy's result; `behind` is its loss minus the best one's, with the ends of the interval."""

    name: str
    loss: float
    behind: float
    low: float
    high: float
    retrains: int
    promoted: int
    probes: int
    alarms: int
    cpu_seconds: float


@dataclass(frozen=True)
class Comparison:
    """All policies, the best first, and the one to take: the cheapest that is not proven worse than the best."""

    lines: list[Line]
    recommended: str
    retrain: Retrain
    rows: int
    days: int


def policies(spec: Spec) -> dict[str, Retrain]:
    """Return what is compared: never, calendars, the triggers, each as the declaration sets them, and itself."""
    declared = spec.retrain
    free = Budget(retrains=10_000)
    found = {"never": declared.model_copy(update={"policy": "never"})}
    for weeks in WEEKS:
        settings = {
            "policy": "calendar",
            "every": dt.timedelta(weeks=weeks),
            "cooldown": dt.timedelta(0),
            "min_labels": 1,
            "budget": free,
        }
        found[f"calendar, {weeks} weeks"] = declared.model_copy(update=settings)
    for policy in ("loss", "drift", "probe"):
        found[policy] = declared.model_copy(update={"policy": policy})
    if declared not in found.values():
        found["as declared"] = declared
    return found


def follow(chosen: dict[str, Retrain], simulate: Callable[[str, Retrain], Course]) -> list[Course]:
    """Follow all policies, several at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(simulate, chosen, chosen.values()))


def contrast(spec: Spec, history: History, courses: Sequence[Course]) -> Comparison:
    """Hold every policy against the best one, day by day on the same rows."""
    best = min(courses, key=lambda course: course.mean)
    rows = np.flatnonzero(~np.isnan(best.loss))
    blocks, whole = blocks_of_days(history.time[rows]), [everything(len(rows))]
    lines = []
    for course in sorted(courses, key=lambda course: course.mean):
        [found] = compare(spec.gate, spec.train.seed, blocks, whole, course.loss[rows], best.loss[rows])
        lines.append(
            Line(
                name=course.name,
                loss=course.mean,
                behind=found.difference,
                low=found.low,
                high=found.high,
                retrains=len(course.retrains),
                promoted=sum(one["passed"] for one in course.retrains),
                probes=course.probes,
                alarms=course.alarms,
                cpu_seconds=course.cpu_seconds,
            )
        )
    equal = [line.name for line in lines if line.low <= 0]
    taken = min((course for course in courses if course.name in equal), key=lambda course: course.cpu_seconds)
    return Comparison(lines, taken.name, taken.retrain, len(rows), blocks.days or 0)


def snippet(retrain: Retrain) -> str:
    """Write the section `retrain` as the declaration takes it, without what is default."""
    chosen = retrain.model_dump(mode="json", exclude_defaults=True) | {"policy": retrain.policy}
    if retrain.policy in ("calendar", "probe"):
        chosen["every"] = write_duration(retrain.every)
    return f"retrain: {json.dumps(chosen)}"


def table(found: Comparison) -> str:
    """Write the comparison in Markdown."""
    head = "| policy | loss | behind the best | retrainings | promoted | probes | alarms | CPU s |"
    lines = [head, "|" + " --- |" * 8]
    for line in found.lines:
        behind = "-" if line.behind == 0 else f"{line.behind:.4f} ({line.low:.4f} to {line.high:.4f})"
        name = f"**{line.name}**" if line.name == found.recommended else line.name
        counts = f"{line.retrains} | {line.promoted} | {line.probes} | {line.alarms}"
        lines.append(f"| {name} | {line.loss:.4f} | {behind} | {counts} | {line.cpu_seconds:.0f} |")
    return "\n".join(lines)


def plot(found: Comparison) -> bytes:
    """Draw loss against CPU seconds, as a PNG file."""
    import io

    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots()
    for line in found.lines:
        chosen = line.name == found.recommended
        axes.plot(line.cpu_seconds, line.loss, "o", color="tab:orange" if chosen else "tab:blue")
        axes.annotate(line.name, (line.cpu_seconds, line.loss), xytext=(5, 4), textcoords="offset points", fontsize=8)
    axes.set_xlabel("CPU seconds of trainings and probes")
    axes.set_ylabel("mean loss of what was served")
    axes.grid(alpha=0.3)
    axes.margins(x=0.2)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()


def to_json(found: Comparison, courses: Sequence[Course]) -> dict[str, Any]:
    """Return plain JSON values: the comparison, and what each policy did when."""
    return {
        "rows": found.rows,
        "days": found.days,
        "recommended": found.recommended,
        "declaration": snippet(found.retrain),
        "policies": [vars(line) for line in found.lines],
        "retrains": {course.name: course.retrains for course in courses},
    }
