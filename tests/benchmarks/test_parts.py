"""`python -m benchmarks --quick` reaches every comparison there is, and leaves what is kept alone."""

import argparse
from pathlib import Path

import pytest

import benchmarks
from benchmarks.__main__ import PARTS
from benchmarks.options import RESULTS, parsed

FOLDER = Path(benchmarks.__file__).parent


@pytest.mark.parametrize("part", PARTS)
def test_every_comparison_can_be_run_quickly_and_is_told_of(part: str) -> None:
    path = FOLDER / part.replace(".", "/")
    program = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
    assert "= parsed(parser" in program.read_text()
    assert f"[{part}]" in (FOLDER / "README.md").read_text()


def test_a_quick_run_writes_over_no_results(tmp_path: Path) -> None:
    def folder(*arguments: str) -> Path:
        found: Path = parsed(argparse.ArgumentParser(), "little", list(arguments)).results
        return found

    assert folder() == RESULTS
    assert RESULTS not in (quick := folder("--quick"), *quick.parents)
    assert folder("--quick", "--results", str(tmp_path / "new")) == tmp_path / "new"
    assert (tmp_path / "new").is_dir()
