"""The serving benchmark tells the truth: right rows, right scores, failures shown, ratios round by round."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import msgspec
import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import ValidationError

from app.data.features import CategoryColumn, FeaturePlan, NumberColumn, TargetColumn
from app.types import UserError
from benchmarks.serve import load, report, untrained
from benchmarks.serve.peers import ASGI, FASTAPI, PEERS, Peer
from benchmarks.serve.process import serving
from benchmarks.serve.sample import draw, json_rows
from benchmarks.serve.verify import bad_rows, verify
from benchmarks.serve.work import Work, label, make_id, msgspec_row, pydantic_row

ROOT = Path(__file__).parents[2]
PLAN = FeaturePlan(
    number=(
        NumberColumn("distance", required=True, min=0, max=5000, quantiles=tuple(np.linspace(80, 4900, 257))),
        NumberColumn("temperature", min=-40, max=60, quantiles=tuple(np.linspace(-10, 35, 257))),
    ),
    category=(
        CategoryColumn("carrier", "string", ("UA", "B6"), values=("UA", "B6")),
        CategoryColumn("hour", "integer", (6, 7, 8), required=True),
    ),
    target=TargetColumn("late", "binary", (False, True)),
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return untrained.write(tmp_path_factory.mktemp("bench"), PLAN, width=8)


def test_drawn_rows_are_within_the_plans_limits_and_accepted_by_both_row_types():
    table = draw(PLAN, 200)
    row, struct = pydantic_row(PLAN), msgspec.json.Decoder(list[msgspec_row(PLAN)])
    rows = table.to_pylist()
    for values in rows:
        row.model_validate(values)
    assert len(struct.decode(msgspec.json.encode(rows))) == 200


def test_both_row_types_refuse_whatever_breaks_the_plan(bundle):
    work = Work.open(bundle)
    row, struct = pydantic_row(PLAN), msgspec.json.Decoder(msgspec_row(PLAN))
    good = draw(PLAN, 1).to_pylist()[0]
    bad = bad_rows(work, good)
    bad |= {"a missing field": {name: value for name, value in good.items() if name != "hour"}}
    bad |= {"a value that is not allowed": good | {"carrier": "??"}}
    assert len(bad) >= 6
    for values in bad.values():
        with pytest.raises(ValidationError):
            row.model_validate(values)
        with pytest.raises(msgspec.ValidationError):
            struct.decode(msgspec.json.encode(values))


def test_encoding_by_hand_equals_the_plans_also_for_nulls_and_unseen_values(bundle):
    work = Work.open(bundle)
    table = draw(PLAN, 50)
    rows = [tuple(row[name] for name in PLAN.names) for row in table.to_pylist()]
    number, category = work.encode(rows)
    expected = PLAN.encode(table)
    np.testing.assert_array_equal(number, expected.number)
    np.testing.assert_array_equal(category, expected.category)
    number, category = work.encode([(1.0, None, None, 99)])
    assert np.isnan(number[0, 1])
    assert category.tolist() == [[0, 1]]


def test_ids_are_version_7_and_all_different():
    ids = {make_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(name[14] == "7" and name[19] in "89ab" and len(name) == 36 for name in ids)


def test_label_turns_at_the_threshold():
    assert (label(0.49), label(0.5)) == (0, 1)


@pytest.mark.parametrize("peer", [FASTAPI, ASGI], ids=lambda peer: peer.name)
def test_a_peer_gives_the_bare_models_scores_and_refuses_bad_rows(peer: Peer, bundle, tmp_path):
    table = draw(PLAN, 8)
    body = json_rows(table.to_pylist()[:1])
    with serving(peer, Path(sys.executable), bundle, body, tmp_path / "log") as port:
        verify(peer, port, Work.open(bundle), table)


def test_a_server_with_another_model_is_found_out(bundle, tmp_path):
    other = untrained.write(tmp_path / "other", PLAN, width=8, seed=1)
    table = draw(PLAN, 8)
    body = json_rows(table.to_pylist()[:1])
    with (
        serving(ASGI, Path(sys.executable), bundle, body, tmp_path / "log") as port,
        pytest.raises(UserError, match="bare ASGI scores differ"),
    ):
        verify(ASGI, port, Work.open(other), table)


def test_a_server_that_stops_is_reported_with_the_end_of_its_log(bundle, tmp_path):
    broken = Peer("broken", "Broken", ("-c", "raise SystemExit('no model here')"))
    with (
        pytest.raises(UserError, match=r"ended with 1(.|\n)*no model here"),
        serving(broken, Path(sys.executable), bundle, b"{}", tmp_path / "log"),
    ):
        pass


def test_a_missing_wrk_is_said_clearly(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="apt-get install wrk"):
        load.find_wrk()


def test_wrks_summary_is_read_and_a_refused_request_marks_it_failed():
    line = '{"requests": 300, "seconds": 2.0, "p50_ms": 1.5, "p99_ms": 9.0, "refused": %d, "broken": 0}\n'
    good = load.parse("Running 2s test\n" + line % 0, connections=16)
    assert (good.per_second, good.failed) == (150.0, False)
    assert load.parse(line % 1, connections=16).failed
    with pytest.raises(UserError, match="did not end with a summary"):
        load.parse("unable to connect", connections=1)


def _raw(failed: bool = False) -> dict:
    speeds = {"ours": (300, 200, 100), "fastapi": (100, 100, 100), "asgi": (400, 400, 400)}
    loads = [
        {"round": number, "server": server, "connections": connections, "per_second": speed[number]}
        | {"p50_ms": 1.0, "p99_ms": 2.0, "requests": 1000, "broken": 0}
        | {"refused": int(failed and server == "fastapi"), "failed": failed and server == "fastapi"}
        for number in range(3)
        for server, speed in speeds.items()
        for connections in (1, 16, 64)
    ]
    bulk = [
        {"round": number, "way": way, "rows_per_second": speed}
        for number in range(3)
        for way, speed in (("bare model", 100.0), ("Arrow stream", 90.0), ("JSON columns", 50.0))
    ]
    return {"machine": {"processor": "2 cores"}, "settings": {"rounds": 3}, "loads": loads, "bulk": bulk}


def test_ratios_are_taken_round_by_round_and_targets_judged_by_their_median():
    results = report.Results(_raw())
    assert results.ratio("ours", "fastapi", 16) == report.Spread(2.0, 1.0, 3.0)
    met = {target.what: target.met for target in results.targets()}
    assert met["requests/s of FastAPI + uvicorn's, 64 connections"]
    assert met["requests/s of bare ASGI's, 16 connections"]
    assert met["rows/s of the bare model's, Arrow of 10,000 rows"]
    assert not any("LitServe" in what for what in met)


def test_a_failed_server_has_no_figures_and_the_report_says_why(tmp_path):
    results = report.Results(_raw(failed=True))
    assert results.ratio("ours", "fastapi", 16) is None
    assert not any("FastAPI" in target.what for target in results.targets())
    paths = report.write(_raw(failed=True), tmp_path)
    assert [path.name for path in paths] == ["serve.json", "serve.md", "serve.png"]
    assert "failed: 3 refused and 0 broken of 3,000" in paths[1].read_text()
    assert paths[2].read_bytes().startswith(b"\x89PNG")


def test_every_peers_requirements_are_pinned():
    folder = Path(load.__file__).parent
    for environment in {peer.environment for peer in PEERS.values()} - {None}:
        lines = (folder / f"requirements-{environment}.txt").read_text().splitlines()
        assert lines
        assert all(line.count("==") == 1 for line in lines)


def test_a_task_other_than_binary_is_refused(tmp_path):
    plan = FeaturePlan(PLAN.number, PLAN.category, TargetColumn("delay", "regression"))
    with pytest.raises(UserError, match="needs a binary bundle, found regression"):
        Work.open(untrained.write(tmp_path, plan, width=8))


@pytest.mark.parametrize("peer", ["bentoml", "litserve", "uvicorn"])
def test_a_peers_environment_has_all_that_its_work_imports(peer: str) -> None:
    imported = "import sys, benchmarks.serve.work; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", imported], capture_output=True, text=True, check=True, cwd=ROOT)
    distributions = metadata.packages_distributions()
    loaded = {canonicalize_name(one) for name in done.stdout.split() for one in distributions.get(name, [])}
    direct = {canonicalize_name(Requirement(line).name) for line in metadata.requires("evertrue") or []}
    pinned = (ROOT / "benchmarks" / "serve" / f"requirements-{peer}.txt").read_text().split()
    assert loaded & direct <= {canonicalize_name(Requirement(line).name) for line in pinned}
