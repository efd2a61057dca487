"""Does a declared table become checked rows, once, and does a broken one stop with all that is needed to mend it?"""

import datetime as dt
import functools
import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.data import prepare as preparation
from app.data.prepare import Prepared, in_process, on_ray
from app.data.sources import PIECE_ROWS, TEXT_BLOCK, Fragment, read
from app.data.target import Labels, resolve_task
from app.data.units import UNIT_ROWS, divide
from app.declaration import Declaration
from app.spec import Spec, Task
from app.types import UserError
from app.workspace import Workspace

ROWS = 400
prepare = functools.partial(preparation.prepare, run=in_process)


def table(rows: int = ROWS) -> pa.Table:
    random = np.random.default_rng(0)
    return pa.table(
        {
            "id": [f"row-{number}" for number in range(rows)],
            "time": pa.array(np.arange(rows) * 60_000, pa.timestamp("ms", "UTC")),
            "x": random.normal(size=rows),
            "c": random.choice(["a", "b", "c"], rows),
            "other": [dt.date(2020, 1, 1)] * rows,
            "y": random.random(rows) < 0.3,
        }
    )


def replace(source: pa.Table, name: str, values: object) -> pa.Table:
    return source.set_column(source.schema.get_field_index(name), name, [values])


def declare(
    folder: Path, source: pa.Table | None = None, row_group_size: int = 100, **sections: object
) -> Declaration:
    """Write the table, if there is one, and declare it."""
    if source is not None:
        pq.write_table(source, folder / "t.parquet", row_group_size=row_group_size)
    data = {"source": "t.parquet", "key": "id", "time": "time", **sections.pop("data", {})}
    spec = Spec.model_validate({"name": "a", "task": {"target": "y"}, "data": data, **sections})
    return Declaration(spec, folder / "a.yaml", "")


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(str(tmp_path / "workspace"))


def rows_of(prepared: Prepared) -> pa.Table:
    return pa.concat_tables([piece for fragment in prepared.fragments for _, piece in read(fragment)])


def fails(declaration: Declaration, workspace: Workspace) -> str:
    with pytest.raises(UserError) as error:
        prepare(declaration, workspace)
    return str(error.value)


def test_good_rows_are_kept_in_order_with_their_one_type(tmp_path: Path, workspace: Workspace) -> None:
    prepared = prepare(declare(tmp_path, table()), workspace)
    assert (prepared.rows, prepared.labelled, prepared.quarantined) == (ROWS, ROWS, {})
    assert prepared.task == "binary"
    assert {name: feature.type for name, feature in prepared.features.items()} == {"x": "number", "c": "category"}
    assert prepared.notes == ["column 'other' is left aside: its type date32[day] is no feature's"]
    kept = rows_of(prepared)
    assert kept.schema == prepared.schema
    assert kept.column_names == ["id", "time", "x", "c", "y"]
    assert kept.schema.field("c").type == pa.dictionary(pa.int32(), pa.string())
    assert kept.cast(table().select(kept.column_names).schema).equals(table().select(kept.column_names))


def test_files_may_differ_in_order_and_in_whether_null_is_allowed(tmp_path: Path, workspace: Workspace) -> None:
    first = table()
    strict = pa.schema([pa.field(field.name, field.type, nullable=field.name != "x") for field in first.schema])
    second = replace(first, "id", [f"other-{number}" for number in range(ROWS)]).cast(strict)
    pq.write_table(first, tmp_path / "a.parquet")
    pq.write_table(second.select(first.column_names[::-1]), tmp_path / "b.parquet")
    prepared = prepare(declare(tmp_path, data={"source": "*.parquet"}), workspace)
    assert (prepared.rows, list(prepared.features)) == (2 * ROWS, ["x", "c"])
    limits = {"x": {"type": "number", "max": 0}, "c": "category"}  # rows of both in one file of quarantine
    declared = declare(tmp_path, data={"source": "*.parquet"}, features=limits, quality={"max_rejected": 1})
    prepared = prepare(declared, workspace)
    assert prepared.rows + prepared.quarantined["x: above max 0"] == 2 * ROWS


def test_a_csv_of_another_separator_is_told_by_the_column_that_is_missing(
    tmp_path: Path, workspace: Workspace
) -> None:
    (tmp_path / "t.csv").write_text("x;y\n" + "".join(f"{number};{number % 2}\n" for number in range(ROWS)))
    declared = declare(tmp_path, data={"source": "t.csv", "key": None, "time": None})
    assert fails(declared, workspace) == "task.target: the table has no column 'y'; found 'x;y'"


def test_fragments_tell_position_and_rows_exactly(tmp_path: Path, workspace: Workspace) -> None:
    rows = 2 * UNIT_ROWS + 5
    prepared = prepare(declare(tmp_path, table(rows), row_group_size=100_000), workspace)
    assert sum(fragment.rows or 0 for fragment in prepared.fragments) == rows
    position = 0
    for fragment in prepared.fragments:
        assert fragment.start == position
        for start, piece in read(fragment):
            assert start == position
            position += piece.num_rows
    assert max(fragment.rows or 0 for fragment in prepared.fragments) == PIECE_ROWS


def test_text_and_parquet_become_the_same_rows(tmp_path: Path, workspace: Workspace) -> None:
    source = table().drop_columns(["other"])
    pl.DataFrame(source).write_csv(tmp_path / "t.csv")
    plain = source.set_column(1, "time", [pl.Series(source["time"]).dt.to_string("iso").to_arrow()])
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in plain.to_pylist()))
    wanted = rows_of(prepare(declare(tmp_path, source), workspace))
    for name in ("t.csv", "t.jsonl"):
        assert rows_of(prepare(declare(tmp_path, data={"source": name}), workspace)).equals(wanted)


@pytest.mark.parametrize("begin", ["1,0\n", ",00\n"])
def test_numbers_in_text_may_begin_whole_or_empty(begin: str, tmp_path: Path, workspace: Workspace) -> None:
    text = "x,y\n" + begin * 2_500_000 + "2.5,1\n"
    assert len(text) > TEXT_BLOCK  # beyond the block on which types are inferred
    (tmp_path / "t.csv").write_text(text)
    declared = declare(tmp_path, data={"source": "t.csv", "key": None, "time": None}, features={"x": "number"})
    assert rows_of(prepare(declared, workspace)).column("x")[-1].as_py() == 2.5


def test_a_second_call_reads_nothing_again(tmp_path: Path, workspace: Workspace) -> None:
    declared = declare(tmp_path, table())
    first = prepare(declared, workspace)
    assert preparation.prepare(declared, workspace, run=lambda work, items: pytest.fail("ran again")) == first


def test_the_fingerprint_follows_the_files_and_the_sections_that_matter(tmp_path: Path, workspace: Workspace) -> None:
    first = prepare(declare(tmp_path, table()), workspace).fingerprint
    assert prepare(declare(tmp_path, train={"epochs": 2}), workspace).fingerprint == first
    others = {
        prepare(declare(tmp_path, quality={"max_rejected": 0.5}), workspace).fingerprint,
        prepare(declare(tmp_path, features={"x": "number"}), workspace).fingerprint,
        prepare(declare(tmp_path, gate={"slices": ["c"]}), workspace).fingerprint,
        prepare(declare(tmp_path, data={"split": {"test": 0.5}}), workspace).fingerprint,
    }
    os.utime(tmp_path / "t.parquet", ns=(1, 1))
    others.add(prepare(declare(tmp_path), workspace).fingerprint)
    assert len(others | {first}) == 6


def test_the_fingerprint_does_not_follow_the_folder(tmp_path: Path, workspace: Workspace) -> None:
    declared = declare(tmp_path, table())
    before = prepare(declared, workspace).fingerprint
    moved = tmp_path / "moved"
    moved.mkdir()
    (tmp_path / "t.parquet").rename(moved / "t.parquet")
    assert prepare(declare(moved), workspace).fingerprint == before


def test_a_call_that_died_half_way_leaves_nothing_to_be_mistaken_for_rows(
    tmp_path: Path, workspace: Workspace
) -> None:
    declared = declare(tmp_path, table())

    def die(work: preparation.Work, items: list[preparation.Json]) -> list[preparation.Json]:
        work(items[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preparation.prepare(declared, workspace, run=die)
    assert rows_of(prepare(declared, workspace)).num_rows == ROWS


def test_rejected_rows_lie_in_quarantine_with_the_reason(tmp_path: Path, workspace: Workspace) -> None:
    source = replace(table(), "x", pa.array([1e9, 2.0, 1e9, *[0.0] * (ROWS - 3)]))
    prepared = prepare(declare(tmp_path, source, features={"x": {"type": "number", "max": 100}}), workspace)
    assert prepared.rows == ROWS - 2
    assert prepared.quarantined == {"x: above max 100": 2}
    found = pl.read_parquet(f"{prepared.quarantine}/broken/*.parquet")
    assert found["id"].to_list() == ["row-0", "row-2"]
    assert found["reason"].to_list() == ["x: above max 100"] * 2


def test_too_many_rejected_rows_stop_with_a_table_of_reasons(tmp_path: Path, workspace: Workspace) -> None:
    source = replace(table(), "x", pa.array([1e9] * 30 + [np.inf] * 10 + [0.0] * (ROWS - 40)))
    message = fails(declare(tmp_path, source, features={"x": {"type": "number", "max": 100}}), workspace)
    summary, heading, first, second, where = message.splitlines()
    assert summary == "40 of 400 rows (10.0%) break the contract; quality.max_rejected allows 5.0%"
    assert heading == "        rows  reason"
    assert first == "          30  x: above max 100"
    assert second == "          10  x: infinite"
    assert where.startswith("they lie in ")
    assert pl.read_parquet(f"{where.removeprefix('they lie in ')}/broken/*.parquet").height == 40


def test_a_table_without_one_good_row_stops_whatever_the_budget(tmp_path: Path, workspace: Workspace) -> None:
    declared = declare(
        tmp_path, table(), quality={"max_rejected": 1.0, "rules": [{"name": "none", "expression": "x > 99"}]}
    )
    assert "400 of 400 rows (100.0%) break the contract" in fails(declared, workspace)


def test_duplicate_keys_are_rejected_but_for_the_first(tmp_path: Path, workspace: Workspace) -> None:
    rows = UNIT_ROWS + 50_000  # two units
    source = table(rows)
    keys = [f"row-{number}" for number in range(rows)]
    keys[1], keys[200_000], keys[rows - 1] = "row-0", "row-5", "row-7"
    source = replace(replace(source, "id", pa.array(keys)), "x", pa.array(range(rows), pa.float64()))
    prepared = prepare(declare(tmp_path, source, row_group_size=100_000), workspace)
    assert prepared.quarantined == {"id: duplicate key": 3}
    assert (prepared.rows, prepared.labelled) == (rows - 3, rows - 3)
    assert [(f.start, f.rows) for f in prepared.fragments][1] == (PIECE_ROWS - 1, 200_000 - PIECE_ROWS)
    assert rows_of(prepared).column("x").to_pylist() == [n for n in range(rows) if n not in (1, 200_000, rows - 1)]
    found = pl.read_parquet(f"{prepared.quarantine}/duplicates/*.parquet")
    assert found.select("id", "x", "reason").rows() == [
        ("row-0", 1.0, "id: duplicate key"),
        ("row-5", 200_000.0, "id: duplicate key"),
        ("row-7", rows - 1.0, "id: duplicate key"),
    ]
    assert sorted(item.name for item in Path(prepared.quarantine).parent.iterdir()) == [
        "prepared.json",
        "quarantine",
        "rows",
    ]


def test_a_reason_of_the_tables_own_steps_aside_in_the_quarantine(tmp_path: Path, workspace: Workspace) -> None:
    source = replace(table(), "id", pa.array([number % 390 for number in range(ROWS)]))
    source = source.append_column("reason", pa.array(["fog", "snow"] * (ROWS // 2)))
    prepared = prepare(declare(tmp_path, source), workspace)
    found = pl.read_parquet(f"{prepared.quarantine}/duplicates/*.parquet")
    assert found["reason"].unique().to_list() == ["id: duplicate key"]
    assert set(found["reason (source)"]) == {"fog", "snow"}


def test_two_that_prepare_the_same_table_at_once_do_not_disturb_each_other(
    tmp_path: Path, workspace: Workspace
) -> None:
    declared = declare(tmp_path, replace(table(), "id", pa.array([number % 390 for number in range(ROWS)])))
    others: list[Prepared] = []

    def run(work: preparation.Work, items: list[preparation.Json]) -> list[preparation.Json]:
        first, *rest = list(in_process(work, items))
        if not others:
            others.append(prepare(declared, workspace))
        return [first, *rest]

    mine = preparation.prepare(declared, workspace, run=run)
    assert mine == others[0]
    assert rows_of(mine).column("id").to_pylist() == list(range(390))


@pytest.mark.parametrize("buckets", [1, 7])
def test_keys_are_compared_in_as_many_buckets_as_memory_asks(
    buckets: int, tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preparation, "BUCKET_KEYS", ROWS // buckets + 1)
    source = replace(table(), "id", pa.array([number % 390 for number in range(ROWS)]))
    prepared = prepare(declare(tmp_path, source), workspace)
    assert prepared.quarantined == {"id: duplicate key": 10}
    assert rows_of(prepared).column("id").to_pylist() == list(range(390))


def test_a_duplicate_of_a_rejected_row_is_kept(tmp_path: Path, workspace: Workspace) -> None:
    source = replace(table(), "id", pa.array(["row-1", *table().column("id").to_pylist()[1:]]))
    source = replace(source, "x", pa.array([np.inf, *[0.0] * (ROWS - 1)]))
    assert prepare(declare(tmp_path, source), workspace).quarantined == {"x: infinite": 1}


def test_the_cut_rests_on_labelled_rows(tmp_path: Path, workspace: Workspace) -> None:
    labels = pa.array([None] * 200 + [True, False] * 100)
    prepared = prepare(declare(tmp_path, replace(table(), "y", labels)), workspace)
    assert (prepared.rows, prepared.labelled) == (ROWS, 200)
    assert prepared.cut.validation_from is not None
    assert prepared.cut.validation_from > 200 * 60_000


def test_a_table_without_time_or_key_is_cut_by_position(tmp_path: Path, workspace: Workspace) -> None:
    prepared = prepare(
        declare(tmp_path, table(), data={"key": None, "time": None, "exclude": ["id", "time"]}), workspace
    )
    assert prepared.cut.time is None
    assert set(prepared.cut.assign(rows_of(prepared), 0).tolist()) == {0, 1, 2}


def test_an_identifier_is_no_feature_and_this_is_said(tmp_path: Path, workspace: Workspace) -> None:
    prepared = prepare(declare(tmp_path, table(), data={"key": None}), workspace)
    assert "id" not in prepared.features
    assert prepared.notes[0] == "column 'id' is left aside: 300 different values in 300 rows look like an identifier"


def test_a_category_of_ten_thousand_values_is_prepared_whole(tmp_path: Path, workspace: Workspace) -> None:
    rows = 20_000
    source = replace(table(rows), "c", pa.array([f"name {number % 10_000}" for number in range(rows)]))
    prepared = prepare(declare(tmp_path, source, features={"c": "category"}), workspace)
    assert len(rows_of(prepared).column("c").cast(pa.string()).unique()) == 10_000


def test_a_declared_feature_without_a_value_is_kept(tmp_path: Path, workspace: Workspace) -> None:
    source = replace(table(), "x", pa.nulls(ROWS))
    prepared = prepare(declare(tmp_path, source, features={"x": "number", "c": "category"}), workspace)
    assert rows_of(prepared).column("x").null_count == ROWS


@pytest.mark.parametrize("features", [{"x": "number"}, None])
def test_a_csv_with_only_a_header_is_an_empty_table(
    tmp_path: Path, workspace: Workspace, features: dict[str, str] | None
) -> None:
    (tmp_path / "t.csv").write_text("x,y\n")
    declared = declare(tmp_path, data={"source": "t.csv", "key": None, "time": None}, features=features)
    assert fails(declared, workspace) == "the table is empty: its files hold no rows"


def test_a_target_of_one_class_is_an_error(tmp_path: Path, workspace: Workspace) -> None:
    message = fails(declare(tmp_path, replace(table(), "y", pa.array([True] * ROWS))), workspace)
    assert message == "task.target: column 'y' holds one value only, True; allowed: at least two"


def test_a_target_without_a_label_is_an_error(tmp_path: Path, workspace: Workspace) -> None:
    message = fails(declare(tmp_path, replace(table(), "y", pa.nulls(ROWS, pa.bool_()))), workspace)
    assert message == "task.target: column 'y' holds no label in any row; allowed: at least two different values"


@pytest.mark.parametrize(
    ("values", "declared", "kind"),
    [
        ([True, False], "auto", "binary"),
        ([3, 7], "auto", "binary"),
        (["no", "yes"], "auto", "binary"),
        ([0.0, 1.0], "auto", "binary"),
        (["a", "b", "c"], "auto", "multiclass"),
        (list(range(20)), "auto", "multiclass"),
        ([0.0, 1.0, 2.0], "auto", "multiclass"),
        (list(range(21)), "auto", "regression"),
        ([0.5, 1.0, 2.0], "auto", "regression"),
        (list(range(21)), "multiclass", "multiclass"),
        ([0, 1], "regression", "regression"),
    ],
)
def test_the_task_follows_from_the_labels(values: list[object], declared: str, kind: str) -> None:
    task = Task.model_validate({"target": "y", "type": declared})
    assert resolve_task(task, Labels.of(pa.chunked_array([values]))) == kind


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        (
            [0, 1, 2],
            {"type": "binary"},
            "task.target: column 'y' holds 0, 1, 2; allowed for a binary task: two values",
        ),
        (
            [str(number) for number in range(1001)],
            {},
            "task.target: column 'y' holds more than 1,000 different values; "
            "allowed for a multiclass task: up to 1,000 classes",
        ),
        (
            ["no", "yes"],
            {"positive": "Yes"},
            "task.positive: 'Yes' is no label; task.target: column 'y' holds 'no', 'yes'",
        ),
        (
            [1, 2, 3],
            {"positive": 1},
            "task.positive is for binary tasks; task.target: column 'y' holds 1, 2, 3, which makes it multiclass",
        ),
        (
            [1, 2, 3],
            {"loss": "absolute"},
            "task.loss: absolute is for regression; task.target: column 'y' holds 1, 2, 3, which makes it multiclass; "
            "allowed: no task.loss, or task.type: regression",
        ),
    ],
)
def test_labels_that_do_not_fit_the_task_are_an_error(
    values: list[object], task: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError) as error:
        resolve_task(Task.model_validate({"target": "y", **task}), Labels.of(pa.chunked_array([values])))
    assert str(error.value) == message


@given(st.lists(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))), max_size=5))
def test_labels_merge_in_any_order_to_those_of_all(parts: list[list[float | None]]) -> None:
    labels = [Labels.of(pa.chunked_array([pa.array(part, pa.float64())])) for part in parts]
    whole = Labels.of(pa.chunked_array([pa.array([value for part in parts for value in part], pa.float64())]))
    assert Labels.merge(labels) == Labels.merge(labels[::-1]) == whole


@given(st.lists(st.one_of(st.none(), st.integers(1, 400_000)), max_size=30))
def test_units_hold_every_fragment_once_in_order(sizes: list[int | None]) -> None:
    fragments = [Fragment("t", "parquet", number, 0, rows) for number, rows in enumerate(sizes)]
    units = divide(fragments)
    assert [fragment for unit in units for fragment in unit.fragments] == fragments
    for unit in units:
        assert len(unit.fragments) == 1 or sum(fragment.rows or 0 for fragment in unit.fragments) <= UNIT_ROWS


@pytest.mark.ray
def test_ray_prepares_what_one_process_prepares(tmp_path: Path, workspace: Workspace, ray_session: None) -> None:
    source = replace(table(), "id", pa.array([f"row-{number % 395}" for number in range(ROWS)]))
    declared = declare(tmp_path, source)
    alone = prepare(declared, workspace)
    together = preparation.prepare(declared, Workspace.open(str(tmp_path / "other")), run=on_ray)
    assert rows_of(together).equals(rows_of(alone))
    assert (
        (together.quarantined, together.cut)
        == (alone.quarantined, alone.cut)
        == ({"id: duplicate key": 5}, alone.cut)
    )


@pytest.mark.ray
def test_a_users_mistake_found_by_a_worker_arrives_as_it_was_said(
    tmp_path: Path, workspace: Workspace, ray_session: None
) -> None:
    (tmp_path / "t.jsonl").write_text('{"x": 1, "y": 0}\n' * 600_000 + '{"x": "warm", "y": 1}\n')
    declared = declare(tmp_path, data={"source": "t.jsonl", "key": None, "time": None}, features={"x": "number"})
    with pytest.raises(UserError, match=r"cannot be read as jsonl: .*Column"):
        preparation.prepare(declared, workspace)
