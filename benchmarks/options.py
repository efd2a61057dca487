"""What every comparison can be told: to be quick, and where its results go."""

import argparse
from pathlib import Path

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def parsed(parser: argparse.ArgumentParser, quick: str, arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse a command line; `quick` says what a quick run leaves out. What it measures stays out of what is kept."""
    parser.add_argument("--quick", action="store_true", help=f"{quick}: to see that all runs")
    parser.add_argument(
        "--results", type=Path, help="folder of the results (benchmarks/results; of a quick run build/quick)"
    )
    options = parser.parse_args(arguments)
    options.results = options.results or (ROOT / "build" / "quick" if options.quick else RESULTS)
    options.results.mkdir(parents=True, exist_ok=True)
    return options
