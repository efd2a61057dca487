"""From alarms to rates, delays, a table, a plot, and who is behind."""

import json
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from matplotlib.figure import Figure
from scipy.stats import chi2

from benchmarks.drift import ours, peers
from benchmarks.drift.cases import FOLLOWED, SCENARIOS, Case
from benchmarks.drift.streams import DAY, HOUR

NEVER = float("inf")
_EPISODE = 7 * DAY  # alarms closer together than this tell of one event
_ALL = "ours"


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    machine: dict[str, str]
    cases: list[Case]
    alarms: dict[str, list[ours.Alarm]]  # ours, by case
    watched: list[peers.Watched]
    costs: dict[str, dict[str, float]]
    missing: dict[str, str]  # peers that could not be asked, and why


@dataclass(frozen=True)
class Delay:
    """Hours from change to alarm of every seed, `NEVER` after a month; a peer's `early` alarms end its stream before."""

    hours: list[float]
    early: int = 0

    @property
    def median(self) -> float:
        """Return the median, `NEVER` when most were not found."""
        return median(self.hours) if self.hours else NEVER

    @property
    def found(self) -> int:
        """Return how many were found."""
        return sum(hours < NEVER for hours in self.hours)

    def __str__(self) -> str:
        when = (
            "never"
            if self.median == NEVER
            else f"{self.median:.1f} h"
            if self.median < 48
            else f"{self.median / 24:.1f} d"
        )
        before = f", {self.early} false before" if self.early else ""
        return f"{when} ({self.found}/{len(self.hours)}{before})" if self.hours else f"- ({self.early} false before)"


def write(findings: Findings, folder: Path) -> None:
    """Write drift.json, drift.md and drift.png."""
    folder.mkdir(parents=True, exist_ok=True)
    delays = all_delays(findings)
    plain = {
        "machine": findings.machine,
        "false_alarms": {name: [asdict(alarm) for alarm in findings.alarms[name]] for name in _quiet(findings)},
        "hours": {method: {name: delay.hours for name, delay in of.items()} for method, of in delays.items()},
        "cost": findings.costs,
    }
    (folder / "drift.json").write_text(json.dumps(plain, indent=1).replace("Infinity", "null") + "\n")
    (folder / "drift.md").write_text(markdown(findings, delays))
    _plot(delays).savefig(folder / "drift.png", dpi=120)


def episodes(moments: list[int]) -> int:
    """Return how many events alarms at these moments (ms, ascending) tell of."""
    last, found = -_EPISODE, 0
    for at in moments:
        found += at - last >= _EPISODE
        last = at
    return found


def interval(events: int, years: float) -> tuple[float, float]:
    """Return the exact 95 % interval of a Poisson rate a year."""
    low = chi2.ppf(0.025, 2 * events) / 2 if events else 0.0
    return float(low / years), float(chi2.ppf(0.975, 2 * events + 2) / 2 / years)


def all_delays(findings: Findings) -> dict[str, dict[str, Delay]]:
    """Return the delays by method and scenario: ours together, each of our detectors, and the peers."""
    hours: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    early: dict[tuple[str, str], int] = defaultdict(int)
    moving = {case.name: case for case in findings.cases if case.process.change.onset}
    for name, case in moving.items():
        for detector in (_ALL, *ours.DETECTORS):
            moments = [a.at for a in findings.alarms[name] if detector in (_ALL, a.detector)]
            after = (at for at in moments if at > case.process.change.onset)
            hours[detector][_scenario(name)].append(_hours(next(after, None), case))
    thresholds = peers.thresholds(findings.cases, findings.watched)
    for item in findings.watched:
        if item.method == peers.DEFAULT:
            continue
        if item.case in moving and (key := (item.method, moving[item.case].family, item.column)) in thresholds:
            first, scenario = peers.first_alarm(item, thresholds[key]), _scenario(item.case)
            found = hours[item.method][scenario]
            if first is None or first > moving[item.case].process.change.onset:
                found.append(_hours(first, moving[item.case]))
            else:
                early[item.method, scenario] += 1
    return _tuned({m: {s: Delay(found, early[m, s]) for s, found in of.items()} for m, of in hours.items()})


def _hours(at: int | None, case: Case) -> float:
    late = NEVER if at is None else (at - case.process.change.onset) / HOUR
    return late if late <= FOLLOWED * 24 else NEVER


def _tuned(delays: dict[str, dict[str, Delay]]) -> dict[str, dict[str, Delay]]:
    """Keep of Page-Hinkley the delta that finds most, and of these the quickest."""
    kinds = [name for name in delays if name.startswith("Page-Hinkley")]
    rank = {
        name: (-sum(d.found for d in delays[name].values()), sum(min(d.median, 720) for d in delays[name].values()))
        for name in kinds
    }
    best = min(kinds, key=lambda name: rank[name], default=None)
    return {name: of for name, of in delays.items() if name not in kinds or name == best}


def _scenario(case: str) -> str:
    return case.rpartition("-")[0]


def _quiet(findings: Findings) -> list[str]:
    return [case.name for case in findings.cases if not case.process.change.onset]


def markdown(findings: Findings, delays: dict[str, dict[str, Delay]]) -> str:
    """Return the report."""
    machine = "\n".join(f"- {name}: {value}" for name, value in findings.machine.items())
    left_out = "".join(f"\n{name} is left out: {why.splitlines()[-1]}\n" for name, why in findings.missing.items())
    seeds = max(len(delay.hours) for delay in delays[_ALL].values())
    return f"""# drift

{machine}

Streams of 4,800 rows a day, 20 numbers and 6 categories, with seasons of day and week, AR(1) wobble from day to day, heavy
tails, holidays and unequal days (`benchmarks/drift/streams.py`); hourly windows; the reference is the 60 to 90 days before.
Heavy tails are those of values; the wobble itself is normal. The detectors were improved while looking at results on these very
seeds, so their own rates and delays may flatter them a little; streams that set thresholds are not those that peers are judged on.

## False alarms

The budget is one a year, of all detectors together. Nothing changes in these streams; their first day follows the reference's last.

{_rates(findings)}

By the world's wobble (correlation of a day with the next, standard deviation in those of a row):

{_by_world(findings)}

Alarms within a week of each other tell of one event. Intervals are Poisson's, 95 %.

## Delay

Median hours or days from a change at a random moment to the first alarm, and how many of {seeds} seeds were found within
{FOLLOWED} days. *Ours* is the first alarm of any detector on anything, at the declared budget, out of the box. A peer watches
only the column that changes, and its threshold, one for every column and world, is the lowest that is silent in
quiet streams of the same world ({_calibration(findings)}): more than its users can know.

{_delays(delays)}

{_verdict(delays)}

ADWIN and Page-Hinkley are fed means of ten rows, de-seasoned by hour and kind of day, in the reference's standard deviations;
of Page-Hinkley's delta the best of three is shown. PSI, the tests, NannyML (Jensen-Shannon; of a pair its PCA's error; of nulls
their share) and Evidently (its defaults) look at a day at a time, weekdays and weekends apart: their alarm comes when the day is
over. Evidently takes a tenth of a second for a column's day and so gets three seeds, 15 days after the change, and a
threshold from 120 quiet days, which favours it. alibi-detect is not in the table: its CVMDriftOnline takes half a minute of one
core to simulate the thresholds of one column of hourly means, for every reference anew; its offline detectors are scipy's tests.
{left_out}
False alarms of the peers at these thresholds, in quiet streams of the same worlds that did not set them:

{_held_out(findings)}

{_default(findings)}

## Cost

{_costs(findings)}

Medians of alternating rounds, one core. A value is one cell of a row. Ours counts rows as they come (200 at a time) and
judges all columns, components, distance and the prediction together; the peers' figures are of one number column, and their loops
row by row are those of their documentation.

![delay by change](drift.png)
"""


def _rates(findings: Findings) -> str:
    still = [case for case in findings.cases if not case.process.change.onset]
    years = sum(case.days for case in still) / 365
    table = [
        "| detector | stream-years | alarms | events | events a year (95 %) | budget |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    for detector in (*ours.DETECTORS, _ALL):
        moments = [[a.at for a in findings.alarms[c.name] if detector in (_ALL, a.detector)] for c in still]
        events, (low, high) = sum(map(episodes, moments)), (0.0, 0.0)
        low, high = interval(events, years)
        kept = "" if detector != _ALL else "kept" if events / years <= 1 else "**not kept**"
        name = "all together" if detector == _ALL else detector
        table.append(
            f"| {name} | {years:.0f} | {sum(map(len, moments))} | {events} | {events / years:.2f} ({low:.2f}-{high:.2f}) | {kept} |"
        )
    return "\n".join(table)


def _by_world(findings: Findings) -> str:
    worlds: dict[tuple[float, float], list[Case]] = defaultdict(list)
    for case in findings.cases:
        if not case.process.change.onset:
            worlds[case.process.correlation, case.process.wobble].append(case)
    table = ["| correlation | wobble | stream-years | events a year |", "| ---: | ---: | ---: | ---: |"]
    for (correlation, wobble), cases in sorted(worlds.items()):
        years = sum(case.days for case in cases) / 365
        events = sum(episodes([a.at for a in findings.alarms[case.name]]) for case in cases)
        table.append(f"| {correlation:g} | {wobble:g} | {years:.1f} | {events / years:.2f} |")
    return "\n".join(table)


def _calibration(findings: Findings) -> str:
    years: dict[str, float] = defaultdict(float)
    for case in findings.cases:
        if case.calibrates:
            years[case.family] += case.days / 365
    return ", ".join(f"{family}: {number:.1f} stream-years" for family, number in years.items())


def _peers(delays: dict[str, dict[str, Delay]]) -> list[str]:
    return [name for name in delays if name not in (_ALL, *ours.DETECTORS)]


def _delays(delays: dict[str, dict[str, Delay]]) -> str:
    columns = [_ALL, *(d for d in ours.DETECTORS if d in delays), *_peers(delays)]
    table = [
        f"| change | {' | '.join(f'*{c}*' if c == _ALL else c for c in columns)} |",
        "| --- |" + " ---: |" * len(columns),
    ]
    for name, scenario in SCENARIOS.items():
        cells = [str(delays[c][name]) if name in delays[c] else "-" for c in columns]
        table.append(f"| {scenario.title} | {' | '.join(cells)} |")
    return "\n".join(table)


def _verdict(delays: dict[str, dict[str, Delay]]) -> str:
    """Say of every change who is ahead, and by how much."""
    ahead, level, behind = [], [], []
    for name, scenario in SCENARIOS.items():
        if name not in delays[_ALL]:
            continue
        rivals = {peer: delays[peer][name].median for peer in _peers(delays) if name in delays[peer]}
        best = min(rivals, key=lambda peer: rivals[peer], default=None)
        mine, other = delays[_ALL][name].median, rivals[best] if best else NEVER
        if mine <= other:
            (level if mine == other == NEVER else ahead).append(scenario.title)
        else:
            how = "ours mostly never" if mine == NEVER else f"by a factor of {mine / other:.1f}"
            behind.append(f"{scenario.title} ({best} is quicker, {how})")
    return "\n".join(
        f"- {title}: {'; '.join(names) or 'none'}."
        for title, names in (
            ("Ours ahead of every peer", ahead),
            ("**Ours behind**", behind),
            ("Nobody finds", level),
        )
    )


def _held_out(findings: Findings) -> str:
    held_out = {c.name: c for c in findings.cases if c.columns and not c.process.change.onset and not c.calibrates}
    thresholds = peers.thresholds(findings.cases, findings.watched)
    years: dict[str, float] = defaultdict(float)
    events: dict[str, int] = defaultdict(int)
    for item in findings.watched:
        if item.case in held_out and item.method not in ("Evidently", peers.DEFAULT):
            limit = thresholds[item.method, held_out[item.case].family, item.column]
            years[item.method] += held_out[item.case].days / 365
            events[item.method] += peers.first_alarm(item, limit) is not None
    table = ["| peer | years of columns | years with an alarm |", "| --- | ---: | ---: |"]
    return "\n".join([*table, *(f"| {name} | {years[name]:.1f} | {events[name]} |" for name in years)])


def _default(findings: Findings) -> str:
    quiet = {case.name: case.days / 365 for case in findings.cases if not case.process.change.onset}
    items = [item for item in findings.watched if item.method == peers.DEFAULT and item.case in quiet]
    years = sum(quiet[item.case] for item in items)
    rate = sum(len(item.records) for item in items) / years if years else 0.0
    return f"{peers.DEFAULT} (.002), de-seasoned as here, alarms {rate:.0f} times a year and column." if items else ""


def _costs(findings: Findings) -> str:
    table = ["| | ns a value | bytes kept |", "| --- | ---: | ---: |"]
    for name, cost in findings.costs.items():
        kept = f"{cost['bytes']:,.0f}" if "bytes" in cost else ""
        table.append(f"| {name} | {cost['ns']:,.0f} | {kept} |")
    return "\n".join(table)


def _plot(delays: dict[str, dict[str, Delay]]) -> Figure:
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots()
    names = list(SCENARIOS)
    methods = [_ALL, *_peers(delays)]
    for i, method in enumerate(methods):
        place = [(names.index(n) + (i - len(methods) / 2) * 0.08, d.median) for n, d in delays[method].items()]
        shown = [(x, min(hours, FOLLOWED * 24 * 1.3)) for x, hours in place]
        marker = (
            {"s": 70, "marker": "o", "color": "black", "zorder": 3} if method == _ALL else {"s": 36, "marker": "D"}
        )
        axes.scatter([y for _, y in shown], [x for x, _ in shown], label=method, **marker)
    axes.set_yticks(range(len(names)), [SCENARIOS[name].title for name in names])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xticks(
        [1, 3, 6, 12, 24, 72, 168, 480, 936], ["1 h", "3 h", "6 h", "12 h", "1 d", "3 d", "7 d", "20 d", "never"]
    )
    axes.minorticks_off()
    axes.set_xlabel("median time from the change to the alarm")
    axes.set_title("Who sees it soonest, at no more false alarms than one a year")
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return figure
