"""A head and two workers as hosts of their own, a folder that all have mounted, and a user's directory that is no clone."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from benchmarks.hosts import machines
from benchmarks.hosts.site import Site, rides, started_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Start the hosts and Ray on them."""
    if not machines.allowed():
        pytest.skip(f"namespaces, which take the place of hosts, need root, or: {machines.WITHOUT_ROOT} <command>")
    folder = tmp_path_factory.mktemp("hosts")
    with machines.Network(folder) as network:
        yield started_site(folder, network, str(folder / "workspace"))


@pytest.fixture(scope="module")
def big(site: Site) -> tuple[Path, int]:
    """Return a table that takes a while, and its number of rows."""
    folder, files, rows = site.folder / "big", 24, 60_000
    folder.mkdir()
    for number in range(files):
        pq.write_table(rides(rows, 100 + number), folder / f"{number:02d}.parquet")
    return folder / "*.parquet", files * rows
