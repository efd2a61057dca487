"""An average is one graph like any other, and its score is the mean of its members' scores to the last bit."""

from functools import cache

import numpy as np
import onnx
import pytest

from app.data.encode import Examples
from app.model.admission import check_graph
from app.model.average import average
from app.model.export import to_onnx
from app.model.runtime import Runtime
from app.model.trees import to_onnx as trees_to_onnx
from app.spec import Spec
from app.training.baseline import train_baseline

SPEC = Spec.model_validate({"name": "x", "task": {"target": "y"}, "data": {"source": "x"}})
TASKS = ["binary", "multiclass", "regression"]


@pytest.fixture(scope="module")
def members(make_plan, make_features, make_network):
    """Return a plan, rows and the graphs of a network, a linear model and boosted trees, by task."""

    @cache
    def make(task):
        plan = make_plan(task)
        features = make_features(plan, 400)
        signal = np.nan_to_num(features.number[:, 0]) + features.category[:, 0]
        target = {"binary": signal > 6, "multiclass": np.digitize(signal, [4, 8]), "regression": signal}[task]
        rows = Examples(features, target.astype(np.float32), np.arange(400), np.arange(400))
        found = train_baseline(rows, rows, plan, SPEC.with_settings({"model.trees.rounds": 20}), threads=1)
        trees = trees_to_onnx(found.model, plan, np.array(found.shift))
        return plan, features, [to_onnx(make_network(plan)), to_onnx(make_network(plan, "linear")), trees]

    return make


def mean_of(plan, features, graphs):
    """Return the mean of the graphs' scores, in float32 and in order."""
    score = np.float32(0)
    for graph in graphs:
        score = score + Runtime(graph, plan).score(features)
    return score / np.float32(len(graphs))


@pytest.mark.parametrize("task", TASKS)
def test_the_score_is_the_mean_of_the_scores(members, task):
    plan, features, graphs = members(task)
    found = average(graphs, plan)
    check_graph(found, plan, "here")
    np.testing.assert_array_equal(Runtime(found, plan).score(features), mean_of(plan, features, graphs))


def test_a_row_is_scored_alike_alone_and_among_others(members):
    plan, features, graphs = members("binary")
    runtime = Runtime(average(graphs[1:], plan), plan)
    together = runtime.score(features)
    alone = [runtime.score(features.rows(slice(i, i + 1)))[0] for i in range(100)]
    np.testing.assert_array_equal(together[:100], alone)
    assert runtime.score(features.rows(slice(0, 0))).shape == (0,)


@pytest.mark.parametrize("task", TASKS)
def test_an_average_may_be_averaged_again(members, task):
    plan, features, graphs = members(task)
    graphs = [average(graphs[:2], plan), graphs[2]]
    found = average(graphs, plan)
    check_graph(found, plan, "here")
    np.testing.assert_array_equal(Runtime(found, plan).score(features), mean_of(plan, features, graphs))


def test_what_members_have_in_common_is_kept_once(members):
    plan, _, graphs = members("binary")
    twice, once = average([graphs[0], graphs[0]], plan), average([graphs[0]], plan)
    assert len(twice) < 1.5 * len(once)
    sizes = [len(onnx.load_model_from_string(data).graph.initializer) for data in (twice, once)]
    assert sizes[0] == sizes[1]


def test_the_same_members_give_the_same_bytes(members):
    plan, _, graphs = members("multiclass")
    assert average(graphs, plan) == average(graphs, plan)


def test_a_graph_says_which_operators_it_needs(members):
    plan, _, graphs = members("binary")
    domains = [
        [entry.domain for entry in onnx.load_model_from_string(average(some, plan)).opset_import]
        for some in (graphs[:2], graphs)
    ]
    assert domains == [[""], ["", "ai.onnx.ml"]]
