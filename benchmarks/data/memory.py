"""The most memory that fit or transform takes, on a fresh cluster: `python -m benchmarks.data.memory ROWS fit`."""

import sys
from pathlib import Path

from app import cluster
from app.data.fit import fit
from benchmarks.data import contenders
from benchmarks.data.meter import peak_megabytes
from benchmarks.data.table import build

CACHE = Path("workspace/benchmarks/data")
WORKS = ("fit", "transform")
WARM_ROWS = 500_000
STORE = 400_000_000  # bytes; 4 million encoded rows fill it one and a half times, 16 million six times


def main(rows: int, name: str) -> None:
    """Warm the workers on a small table, then print the peak over the large one in megabytes."""
    small, large = build(CACHE, WARM_ROWS), build(CACHE, rows)
    cluster.connect(object_store_memory=STORE)
    plan = fit(contenders.prepared(small), contenders.SPEC)
    works = {"fit": contenders.our_fit(large), "transform": contenders.our_transform(large, plan)}
    contenders.our_transform(small, plan)()
    print(peak_megabytes(works[name]))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
