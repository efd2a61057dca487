"""A table of text is scored by the types that all of it has, not by those it begins with."""

import json
from dataclasses import asdict

from app.batch import _Scorer
from app.data.sources import list_fragments, read_schema
from app.model.bundle import write
from app.spec import Data


def test_whole_numbers_may_go_on_with_others_as_in_training(make_contents, tmp_path):
    lines = 750_000  # beyond the first block, on which types are inferred
    (tmp_path / "rows.csv").write_text("n0,n1,n2,c0,c1\n" + "1,2,3,v0,v1\n" * lines + "1,2.5,3,v0,v1\n")
    fragments = list_fragments(Data(source="rows.csv"), tmp_path)
    bundle = write(str(tmp_path / "bundles"), make_contents())
    scorer = _Scorer(bundle, read_schema(fragments), str(tmp_path / "scores"), use_gpu=False)
    [item] = [{"number": i, "fragment": json.dumps(asdict(fragment))} for i, fragment in enumerate(fragments)]
    found = scorer(item)
    assert (found["rows"], found["rejected"]) == (lines + 1, "{}")
