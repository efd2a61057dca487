"""What a folder of predictions holds is one table's and one version's, whatever was there before; without a cluster."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import ray.data

from app.batch import predict_table
from app.data import sources
from app.model.bundle import Bundle, write
from app.types import UserError


class Inline:
    """A dataset whose rows are mapped here and now, in order; the `killed`-th is the last."""

    killed: int | None = None

    def __init__(self, items):
        self.items = items

    def map(self, made, fn_constructor_args, **_):
        worker = made(*fn_constructor_args)
        return Inline(self.buried(worker, item) for item in self.items)

    @staticmethod
    def buried(worker, item):
        try:
            return worker(item)
        except UserError as error:  # as Ray does
            raise RuntimeError("a worker failed") from error

    def iter_rows(self):
        for number, row in enumerate(self.items):
            if number == self.killed:
                raise KeyboardInterrupt
            yield row


@pytest.fixture(scope="module")
def bundle(make_contents, tmp_path_factory) -> str:
    return write(str(tmp_path_factory.mktemp("bundles")), make_contents())


@pytest.fixture
def predict(bundle, tmp_path, monkeypatch):
    """Return a function that scores a source into `scores`, and says which files are there then."""
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 1})
    monkeypatch.setattr(ray.data, "from_items", lambda items, **_: Inline(items))

    def predicted(source, model="flights/1", out="scores", use_gpu=False):
        found = predict_table(bundle, model, source, tmp_path, str(tmp_path / out), use_gpu)
        return found.rows, sorted(path.name for path in (tmp_path / out).iterdir())

    return predicted


def table(rows: int, **columns: object) -> pa.Table:
    values = {"n0": 1.0, "n1": 2.0, "n2": 3.0, "c0": "v0", "c1": "v1"} | columns
    return pa.table({name: [value] * rows for name, value in values.items()})


def test_files_of_a_call_that_was_killed_are_no_part_of_the_next_ones(predict, tmp_path, monkeypatch):
    pq.write_table(table(6), tmp_path / "long.parquet", row_group_size=1)
    pq.write_table(table(2, n0=9.0), tmp_path / "short.parquet", row_group_size=1)
    monkeypatch.setattr(Inline, "killed", 5)
    with pytest.raises(KeyboardInterrupt):
        predict("long.parquet")
    Path(tmp_path, "scores", "rejected-00000.parquet").touch()
    Path(tmp_path, "scores", "notes.txt").touch()
    monkeypatch.setattr(Inline, "killed", None)
    expected = ["manifest.json", "notes.txt", "part-00000.parquet", "part-00001.parquet"]
    assert predict("short.parquet") == (2, expected)


def test_a_call_that_was_killed_is_done_again_whole(predict, tmp_path, monkeypatch):
    pq.write_table(table(3), tmp_path / "t.parquet", row_group_size=1)
    monkeypatch.setattr(Inline, "killed", 1)
    with pytest.raises(KeyboardInterrupt):
        predict("t.parquet")
    monkeypatch.setattr(Inline, "killed", None)
    assert predict("t.parquet") == (3, ["manifest.json", *(f"part-0000{i}.parquet" for i in range(3))])


@pytest.mark.parametrize("kind", ["csv", "arrow"])
def test_a_file_without_rows_among_others_is_passed_over(kind, predict, tmp_path):
    folder = tmp_path / "t"
    folder.mkdir()
    for name, rows in ("a", 2), ("b", 0), ("c", 1):
        if kind == "csv":
            line = "1.5,2.5,3.5,v0,v1\r\n"
            (folder / f"{name}.csv").write_text("n0,n1,n2,c0,c1\r\n" + line * rows)
        else:
            with pa.ipc.new_file(str(folder / f"{name}.arrow"), table(1).schema) as writer:
                writer.write_table(table(2).slice(0, rows))
    assert predict("t") == (3, ["manifest.json", "part-00000.parquet", "part-00002.parquet"])


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_text_that_begins_with_whole_numbers_goes_on_with_others(kind, predict, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "TEXT_BLOCK", 400)
    lines = ["1,2,3,v0,v1"] * 100 + ["1.5,2,3,v0,v1"]
    if kind == "csv":
        text = "\n".join(["n0,n1,n2,c0,c1", *lines])
    else:
        row = '{"n0": %s, "n1": %s, "n2": %s, "c0": "%s", "c1": "%s"}'
        text = "\n".join(row % tuple(line.split(",")) for line in lines)
    (tmp_path / f"t.{kind}").write_text(text)
    assert predict(f"t.{kind}")[0] == 101


def test_what_a_worker_cannot_read_is_said_in_one_line(predict, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "TEXT_BLOCK", 400)
    lines = ["1,2,3,v0,v1"] * 100 + ["much,2,3,v0,v1"]
    (tmp_path / "t.csv").write_text("\n".join(["n0,n1,n2,c0,c1", *lines]))
    with pytest.raises(UserError, match=r"t.csv: column 'n0' holds mixed types.*holds 'much'"):
        predict("t.csv")
    assert not (tmp_path / "scores" / "manifest.json").exists()


def test_a_head_without_a_gpu_lends_its_workers_theirs(predict, tmp_path, monkeypatch):
    asked, runtime = [], Bundle.runtime

    def lent(bundle, use_gpu=False):
        asked.append(use_gpu)
        return runtime(bundle)

    monkeypatch.setattr(Bundle, "runtime", lent)
    pq.write_table(table(1), tmp_path / "t.parquet")
    predict("t.parquet", use_gpu=True)
    assert asked == [False, True]


@pytest.mark.parametrize("text", ["", "[1]", '{"format": 1, "files": {}}'])
def test_a_folder_that_holds_something_else_is_the_users_error(text, predict, tmp_path):
    pq.write_table(table(1), tmp_path / "t.parquet")
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"scores/manifest.json is no manifest of predictions; name another folder"):
        predict("t.parquet")


def test_predictions_do_not_go_among_the_table_they_are_of(predict, tmp_path):
    folder = tmp_path / "t"
    folder.mkdir()
    pq.write_table(table(1), folder / "part-00000.parquet")
    (tmp_path / "other").symlink_to(folder)
    before = (folder / "part-00000.parquet").read_bytes()
    for source, out in ("t", "t"), ("t/*.parquet", "t"), ("other/part-00000.parquet", "t"), ("t", "other"):
        with pytest.raises(UserError, match=r"holds the table itself; name another folder for its predictions"):
            predict(source, out=out)
    assert (folder / "part-00000.parquet").read_bytes() == before


def test_what_was_predicted_is_told_again(predict, tmp_path):
    pq.write_table(table(2, n0=float("inf")), tmp_path / "t.parquet")
    first = predict("t.parquet")
    assert predict("t.parquet") == first
    manifest = json.loads((tmp_path / "scores" / "manifest.json").read_bytes())
    assert (manifest["rows"], manifest["model"]) == (first[0], "flights/1")
