"""Do rows without labels become the features of those with them, from whatever files they come?"""

from pathlib import Path

import numpy as np

from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.data.unlabelled import read_features
from app.types import FIRST_ID, MISSING_ID

PLAN = FeaturePlan(
    number=(NumberColumn("x"),),
    category=(CategoryColumn("c", "string", ("a", "b")),),
    target=TargetColumn("y", "binary", (False, True)),
)


def test_whole_numbers_may_go_on_with_others_as_in_the_declared_table(tmp_path: Path) -> None:
    lines = 2_500_000  # beyond the first block, on which types are inferred
    (tmp_path / "one.csv").write_text("c,x\n" + "a,1\n" * lines + "b,1.5\n")
    (tmp_path / "two.csv").write_text("x,c\n2,\n")
    number, category = read_features(PLAN, "*.csv", tmp_path)
    assert number[-2:, 0].tolist() == [1.5, 2.0]
    assert category[-2:, 0].tolist() == [FIRST_ID + 1, MISSING_ID]
    assert len(number) == lines + 2


def test_a_file_without_rows_gives_none(tmp_path: Path) -> None:
    (tmp_path / "none.csv").write_text("x,c\n")
    number, category = read_features(PLAN, "none.csv", tmp_path)
    assert (number.shape, category.shape) == ((0, 1), (0, 1))
    assert (number.dtype, category.dtype) == (np.float32, np.int64)
