"""How often would a model that is no better pass for better? Simulated days, against the usual ways to ask.

    python -m benchmarks.gate [--quick]

Two models are equally good, but their difference drifts from day to day as an AR(1) process, as weather and
traffic do. A gate at 95 % confidence may be fooled in 2.5 % of trials (the interval has two ends). Each trial
is judged by a bootstrap over rows, by the percentile bootstrap over days, and by ours (`app.training.bootstrap`).
The second table is the price: how often each sees a model that really is better.
"""

import argparse
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from app.training.bootstrap import blocks_of_days, intervals
from benchmarks.options import parsed

DAYS = (7, 14, 28, 90, 300)
DEPENDENCE = (0.0, 0.3, 0.5, 0.7)
CONFIDENCE = 0.95
RESAMPLES = 500
BETTER = 0.03  # the true gain of the second table, in units where rows differ by .3 and days by .05

Days = npt.NDArray[np.float64]
Judge = Callable[[Days, Days, int], bool]


def main() -> None:
    """Simulate, print and keep the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options = parsed(parser, quick="few trials")
    trials = 50 if options.quick else 2000
    text = "\n\n".join(
        [
            "# How often does the gate promote a model that is no better?",
            f"{trials:,} simulated trials each, {CONFIDENCE:.0%} confidence (2.5 % are promised at this end), "
            "`python -m benchmarks.gate`. Dependence is the correlation of one day's difference with the next day's.",
            "## Promoted, though no better",
            _table(trials, 0.0),
            f"## Promoted, when better by {BETTER}",
            _table(trials, BETTER),
        ]
    )
    (options.results / "gate.md").write_text(text + "\n")
    print(text)


def _table(trials: int, gain: float) -> str:
    judges: dict[str, Judge] = {"bootstrap over rows": rows, "percentile over days": percentile, "ours": ours}
    lines = [f"| days | dependence | {' | '.join(judges)} |", "| ---: | ---: |" + " ---: |" * len(judges)]
    for days in DAYS:
        for dependence in DEPENDENCE:
            passed = _passed(days, dependence, gain, trials, list(judges.values()))
            lines.append(f"| {days} | {dependence:g} | " + " | ".join(f"{share:.1%}" for share in passed) + " |")
    return "\n".join(lines)


def _passed(days: int, dependence: float, gain: float, trials: int, judges: list[Judge]) -> list[float]:
    generator = np.random.default_rng(days)
    passed = np.zeros(len(judges))
    for trial in range(trials):
        day = np.zeros(days + 50)
        for i in range(1, days + 50):
            day[i] = dependence * day[i - 1] + generator.normal(0, np.sqrt(1 - dependence**2))
        count = generator.integers(50, 200, days).astype(np.float64)
        sums = count * (0.05 * day[50:] - gain) + np.sqrt(count) * generator.normal(0, 0.3, days)
        passed += [judge(sums, count, trial) for judge in judges]
    return list(passed / trials)


def ours(sums: Days, count: Days, seed: int) -> bool:
    """Judge by the gate's own interval."""
    blocks = blocks_of_days(np.arange(len(sums), dtype=np.int64) * 86_400_000)
    by_block = [np.bincount(blocks.of_row, values)[:, None] for values in (sums, count)]
    return bool(intervals(by_block[0], by_block[1], CONFIDENCE, RESAMPLES, seed).high[0] < 0)


def percentile(sums: Days, count: Days, seed: int) -> bool:
    """Judge by the percentiles of means of days drawn one by one."""
    days = len(sums)
    weights = np.random.default_rng(seed).multinomial(days, np.full(days, 1 / days), size=RESAMPLES)
    return bool(np.quantile((weights @ sums) / (weights @ count), (1 + CONFIDENCE) / 2) < 0)


def rows(sums: Days, count: Days, seed: int) -> bool:
    """Judge as if rows were independent: the normal limit of a bootstrap over rows, whose spread is .3."""
    del seed
    return bool(sums.sum() / count.sum() + 1.96 * 0.3 / np.sqrt(count.sum()) < 0)


if __name__ == "__main__":
    main()
