"""A turn of the loop is a span where it wrote something down, and a retraining's job is a part of the turn that began it."""

from types import SimpleNamespace

import pytest

from app.decisions import actor, retrain
from app.decisions.retrain import RetrainJobs
from app.declaration import read
from app.telemetry import traces
from app.workspace import Workspace


@pytest.fixture
def tracer(collector):
    return traces.open_tracer("actor", "rides")


def test_only_turns_that_wrote_something_down_are_spans(make_world, tracer, collector):
    world = make_world()
    for _ in range(12):
        world.serve()
        with traces.worth_telling(tracer, "turn"):
            world.keeper.turn()
    tracer.close()
    told = [event for span in collector.spans for event in span.events]
    assert told == world.kinds()
    assert len(collector.spans) < 12
    assert {(span.name, span.parent, span.failed) for span in collector.spans} == {("turn", "", False)}


def test_a_turn_that_failed_after_it_wrote_is_a_failure_without_words(make_world, tracer, collector):
    world = make_world()

    def fail(now):
        raise OSError("hidden")

    def turn(broken):
        with traces.worth_telling(tracer, "turn"):
            setattr(world.keeper, broken, fail)
            world.keeper.turn()

    for step in ("_follow_line_up", "_publish"):  # before and after it wrote
        with pytest.raises(OSError, match="hidden"):
            turn(broken=step)
        world.restart()
    tracer.close()
    [span] = collector.spans
    assert (span.events, span.failed, span.told) == (["deploy"], True, {"error.type": "OSError"})
    assert "hidden" not in str(collector.spans)


def test_the_actor_traces_its_turns_and_sends_the_last_of_them_when_it_is_stopped(
    make_world, collector, monkeypatch, wait_for
):
    world = make_world(drift={"interval": "1s"})
    monkeypatch.setattr(actor, "furnish", lambda *_: world.keeper._rooms)
    monkeypatch.setattr(actor, "count_messages", lambda name: None)
    carried = SimpleNamespace(read=lambda: SimpleNamespace(spec=world.spec))
    turning = actor.DriftActor(carried, world.workspace.root, None, "i")
    wait_for(lambda: turning.status()["turns"])
    turning.stop()
    span = collector.one("turn")
    assert (span.events, span.about["evertrue.role"], span.about["service.name"]) == (["deploy"], "actor", "rides")


@pytest.mark.parametrize("runtime_env", [{}, {"working_dir": "gcs://x.zip", "env_vars": {"X": "1"}}])
def test_a_retrainings_job_is_a_part_of_the_turn_that_submits_it(
    tracer, collector, tmp_path, monkeypatch, runtime_env
):
    (tmp_path / "rides.yaml").write_text("name: rides\ntask: {target: late}\ndata: {source: rides.parquet}\n")
    declaration, workspace = read(tmp_path / "rides.yaml"), Workspace.open(str(tmp_path))
    submitted = []

    def unknown(job):
        raise RuntimeError(f"Job {job} does not exist")

    client = SimpleNamespace(get_job_status=unknown, submit_job=lambda **job: submitted.append(job["runtime_env"]))
    monkeypatch.setattr(retrain, "free_cpus", lambda: 4.0)
    jobs = RetrainJobs(client, runtime_env)
    with traces.worth_telling(tracer, "turn"):
        jobs.submit(declaration, workspace, "d1", "why")
    jobs.submit(declaration, workspace, "d2", "why")
    tracer.close()
    span = collector.one("turn")  # though it wrote nothing down
    traced, untraced = submitted
    assert traced["env_vars"].pop("TRACEPARENT") == f"00-{span.trace}-{span.id}-01"
    assert traced == {"env_vars": {}} | runtime_env
    assert untraced == runtime_env
