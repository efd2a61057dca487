"""What a search tries: what matters to the kind and is left open, or what the user names."""

import pytest

from app.spec import Choice, Range
from app.training.search.space import KIND, Space, value_of
from app.types import UserError

KINDS = ["network", "tabm", "linear", "lightgbm", "average"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", [50, 1_000_000])
def test_whatever_is_tried_by_default_is_allowed(spec_of, kind, rows):
    space = Space.of(spec_of(model={"kind": kind}), rows)
    keys = space.searched({})
    assert len(keys) >= 3
    for key, searched in keys.items():
        for value in searched.values if isinstance(searched, Choice) else (searched.low, searched.high):
            assert value_of(space.declare({key: value}), key) == value
            assert space.complete({key: value})[key] == value


def test_every_kind_has_keys_that_matter_to_it(spec_of):
    keys = {kind: set(Space.of(spec_of(model={"kind": kind}), 1000).searched({})) for kind in KINDS}
    assert all(key.startswith("model.trees.") for key in keys["lightgbm"])
    assert "model.width" not in keys["linear"]
    assert "model.ensemble" in keys["tabm"]
    assert keys["average"] == keys["network"] | keys["lightgbm"]  # its members' by default


def test_what_the_declaration_names_is_not_searched(spec_of):
    keys = Space.of(spec_of(model={"width": 64}, train={"learning_rate": 0.01}), 1000).searched({})
    assert not {"model.width", "train.learning_rate"} & keys.keys()
    assert "model.depth" in keys


def test_a_declaration_that_leaves_nothing_open_is_told_so(spec_of):
    trees = {
        "learning_rate": 0.1,
        "leaves": 31,
        "leaf_rows": 20,
        "feature_fraction": 0.5,
        "row_fraction": 0.5,
        "l2": 1,
    }
    spec = spec_of(model={"kind": "lightgbm", "trees": trees})
    with pytest.raises(
        UserError, match=r"nothing to search: .* model.kind lightgbm; leave some out, or .*tune.space"
    ):
        Space.of(spec, 1000)


def test_with_auto_the_kind_comes_first_and_brings_its_own_keys(spec_of):
    space = Space.of(spec_of(model={"kind": "auto", "members": ["network", "lightgbm"]}), 1000)
    assert list(space.searched({})) == [KIND]
    kinds = space.searched({})[KIND]
    assert isinstance(kinds, Choice)
    assert kinds.values == ["network", "lightgbm"]
    assert list(space.searched({KIND: "lightgbm"}))[1].startswith("model.trees.")
    assert "model.width" in space.searched({KIND: "network"})
    assert space.declare({KIND: "network"}).model.kind == "network"


def test_a_space_of_the_users_own_replaces_the_defaults(spec_of):
    own = {"model.width": {"type": "range", "low": 8, "high": 16}}
    space = Space.of(spec_of(model={"width": 12}, tune={"space": own}), 1000)
    assert space.searched({}) == {"model.width": Range(type="range", low=8, high=16)}
    assert space.complete({}) == {"model.width": 12}


def test_settings_that_the_declaration_forbids_are_named(spec_of):
    space = Space.of(spec_of(), 1000)
    with pytest.raises(UserError, match=r"does not allow these settings: model\.width"):
        space.declare({"model.width": 1})
