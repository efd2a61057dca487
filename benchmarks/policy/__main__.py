"""Does our policy earn its place beside a calendar? The flights of 2013, every retraining a real one.

    python -m benchmarks.policy [--quick]

January and February train the first version; March to December arrive day by day. Trainings are kept in
build/policy, so that a second run only follows the policies anew.
"""

import argparse
import json
import logging
from pathlib import Path

from app.backtest.compare import Line, plot, snippet, table, to_json
from app.backtest.run import backtest
from app.cluster import connect
from app.declaration import read
from app.workspace import Workspace
from benchmarks.options import parsed

ROOT = Path(__file__).parents[2]
ARRIVALS = 1_362_096_000_000  # 2013-03-01
LABELLED = 4 * 3_600_000  # ms; most flights have landed four hours after their schedule
QUICK = ["never", "calendar, 12 weeks"]


def main() -> None:
    """Follow the policies, print and keep the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options = parsed(parser, quick="two policies")
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    declaration = read(ROOT / "examples" / "flights" / "flights.yaml", ["data.source=data/flights.parquet"])
    connect()
    workspace = Workspace.open(str(ROOT / "build" / "policy"))
    found, courses = backtest(declaration, workspace, ARRIVALS, LABELLED, QUICK if options.quick else None)
    text = "\n\n".join(
        [
            "# Which policy of retraining pays on the flights of 2013?",
            "March to December, `python -m benchmarks.policy`. Every retraining is a real one, judged by the gate on rows "
            "it has not seen; CPU seconds are those of trainings and probes. `behind the best` is the difference in mean "
            f"log-loss with its 95 % interval over days; {found.rows:,} labelled rows of {found.days} days.",
            table(found),
            _beside_calendars(found.lines),
            f"Recommended, the cheapest that is not proven worse than the best: **{found.recommended}**.",
            f"```yaml\n{snippet(found.retrain)}\n```",
            "![loss against cost](policy.png)",
        ]
    )
    print(text)
    (options.results / "policy.md").write_text(text + "\n")
    (options.results / "policy.png").write_bytes(plot(found))
    (options.results / "policy.json").write_text(json.dumps(to_json(found, courses), indent=1) + "\n")


def _beside_calendars(lines: list[Line]) -> str:
    """Say how the default policy does beside the best calendar that costs no more, in CPU seconds and in retrainings."""
    ours = next((line for line in lines if line.name == "probe"), None)
    if ours is None:
        return ""
    calendars = [line for line in lines if line.name.startswith("calendar")]
    words = []
    for cost, label in (("cpu_seconds", "CPU seconds"), ("retrains", "retrainings")):
        best = min(
            (c for c in calendars if getattr(c, cost) <= getattr(ours, cost)), key=lambda c: c.loss, default=None
        )
        if best is not None:
            words.append(f"of no more {label} {best.loss:.4f} ({best.name})")
    return f"The default, `probe`: {ours.loss:.4f}. The best calendar {', '.join(words)}."


if __name__ == "__main__":
    main()
