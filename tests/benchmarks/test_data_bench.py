"""The data benchmark's report says what was measured, and does not call a missed target met."""

from pathlib import Path

from benchmarks.data.report import write


def test_targets_are_judged_by_the_median_of_the_rounds(tmp_path: Path) -> None:
    seconds = {"scan": [1.0, 1.0, 1.0], "fit": [1.0, 2.0, 9.0], "transform": [4.0, 4.0, 1.0]}
    memory = {"4000000": {"fit": 10.0, "transform": 20.0}}
    figures = {
        "machine": {"processor": "2 cores"},
        "source": "synthetic",
        "rows": 1_000_000,
        "cpu_seconds": seconds,
        "wall_seconds": seconds,
        "peak_megabytes": memory,
    }
    write(figures, tmp_path)
    text = (tmp_path / "data.md").read_text()
    assert "| fit | 0.50 | 0.50 | 0.50 (0.11-1.00) | >= 0.5: met |" in text
    assert "| transform | 0.25 | 0.25 | 0.25 (0.25-1.00) | >= 0.3: not met |" in text
    assert "| 4 M | 10 MB | 20 MB |" in text
    assert (tmp_path / "data.png").stat().st_size > 1000
