"""`python -m benchmarks --quick` reaches every comparison there is."""

from pathlib import Path

import pytest

import benchmarks
from benchmarks.__main__ import PARTS

FOLDER = Path(benchmarks.__file__).parent


@pytest.mark.parametrize("part", PARTS)
def test_every_comparison_can_be_run_quickly_and_is_told_of(part: str) -> None:
    path = FOLDER / part.replace(".", "/")
    program = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    assert '"--quick"' in program.read_text()
    assert f"[{part}]" in (FOLDER / "README.md").read_text()
