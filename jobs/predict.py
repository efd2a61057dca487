"""Score a table into a folder of Parquet files, with the champion or the version asked for."""

import argparse
from pathlib import Path

from app.batch import predict_table
from app.cluster import connect
from app.declaration import Declaration
from app.registry import Registry
from app.workspace import Workspace
from jobs.command import main


def predict(declaration: Declaration, workspace: Workspace, arguments: argparse.Namespace) -> None:
    """Predict, and print the counts."""
    spec = declaration.spec
    version = Registry.open(workspace, spec.name).chosen(arguments.version)
    connect()
    model = f"{spec.name}/{version.number}"
    out = arguments.out if "://" in arguments.out else str(Path(arguments.out).resolve())
    predicted = predict_table(version.bundle, model, arguments.table, Path.cwd(), out, arguments.use_gpu)
    print(f"{model}: {predicted.rows:,} rows scored into {out}")
    for reason, count in sorted(predicted.rejected.items(), key=lambda item: -item[1]):
        print(f"  {count:>12,}  rejected: {reason}")


def _extend(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("table", help="file, folder, glob or URI of the table to score")
    parser.add_argument("out", help="folder or URI for the scores")
    parser.add_argument("--version", type=int, help="version to score with (default: the champion)")
    parser.add_argument("--use-gpu", action="store_true", help="score on GPUs")


if __name__ == "__main__":
    main(predict, __doc__ or "", _extend)
