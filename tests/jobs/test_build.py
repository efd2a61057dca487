"""An example's table is built once, by its own script, and nothing else is touched."""

from pathlib import Path

import pytest

from app.declaration import read
from app.types import UserError
from jobs.build import build_table

SCRIPT = """
import sys
from pathlib import Path

assert len(sys.argv) == 1, "the script takes its defaults"
table = Path(__file__).parent / "table.csv"
table.write_text(f"built {table.exists()}")
"""


def test_a_missing_table_is_built_by_the_script_beside_the_declaration_and_a_present_one_is_left(
    tmp_path: Path,
) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("name: some\ntask: {target: t}\ndata: {source: table.csv}\n")
    (tmp_path / "build.py").write_text(SCRIPT)
    before = path.read_bytes()
    for _ in range(2):
        build_table(read(path))
        assert (tmp_path / "table.csv").read_text() == "built False"
    assert path.read_bytes() == before


@pytest.mark.parametrize("source", ["parts/*.csv", "parts", "s3://bucket/table.csv"])
def test_a_script_is_left_alone_that_has_nothing_to_build(tmp_path: Path, source: str) -> None:
    """A folder with a declaration may hold a `build.py` for something else altogether."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "one.csv").write_text("t\n1\n")
    (tmp_path / "build.py").write_text("raise SystemExit('run')")
    path = tmp_path / "some.yaml"
    path.write_text(f"name: some\ntask: {{target: t}}\ndata: {{source: '{source}'}}\n")
    build_table(read(path))


def test_without_a_script_nothing_happens(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("name: some\ntask: {target: t}\ndata: {source: table.csv}\n")
    build_table(read(path))
    assert list(tmp_path.iterdir()) == [path]


def test_a_script_that_fails_is_a_mistake_with_its_name_and_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("name: some\ntask: {target: t}\ndata: {source: table.csv}\n")
    (tmp_path / "build.py").write_text("raise SystemExit(3)")
    with pytest.raises(UserError, match=r"build\.py, which builds the table, ended with status 3"):
        build_table(read(path))
