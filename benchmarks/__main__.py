"""Run the comparisons in turn, by default all: `python -m benchmarks [serve] [data] [train] [search] [gate] [drift] [policy] ... [--quick]`."""

import argparse
import subprocess
import sys

from benchmarks.options import ROOT, parsed

PARTS = (
    "serve",
    "serve.batching",
    "serve.journal",
    "serve.swap",
    "hosts.scale",
    "hosts.faults",
    "data",
    "train",
    "search",
    "gate",
    "drift",
    "policy",
)


def main(arguments: list[str] | None = None) -> int:
    """Run each part in a process of its own, say where the results are, and return 1 when one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], help="which comparisons (all)")
    options = parsed(parser, "short measurements", arguments)
    failed, folder = [], str(options.results.resolve())
    for part in options.parts or PARTS:
        print(f"\n== {part} ==", flush=True)
        command = [
            sys.executable,
            "-m",
            f"benchmarks.{part}",
            *(["--quick"] if options.quick else []),
            "--results",
            folder,
        ]
        if subprocess.run(command, cwd=ROOT, check=False).returncode:
            failed.append(part)
    print("\nresults:", *sorted(str(path) for path in options.results.glob("*.md")), sep="\n  ")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
