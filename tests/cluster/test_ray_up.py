"""The files for `ray up`: right for Ray and for their clouds, closed, and one in what they share."""

import copy
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler import _private
from ray.autoscaler._private.util import prepare_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from cluster.check import check, main
from cluster.ray_up import ray_up

ROOT = Path(__file__).parents[2]
CLOUDS = ["aws", "gcp", "azure", "local"]
FREE = {"resources", "labels", "file_mounts"}  # mappings whose keys are names of ours
SHARED = ["cluster_name", "upscaling_speed", "idle_timeout_minutes", "file_mounts"]
SHARED += ["head_start_ray_commands", "worker_start_ray_commands"]


def read(cloud: str) -> dict[str, Any]:
    config: dict[str, Any] = yaml.safe_load((ROOT / f"cluster/{cloud}.yaml").read_text())
    return config


def mappings(part: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the way to every mapping whose keys mean something to Ray or to a cloud."""
    if isinstance(part, dict):
        if path and path[-1] not in {*FREE, "available_node_types"}:
            yield path
        inner = [(key, value) for key, value in part.items() if key not in FREE]
    else:
        inner = list(enumerate(part)) if isinstance(part, list) else []
    for key, value in inner:
        yield from mappings(value, (*path, key))


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_and_the_cloud_understand_every_key(cloud: str) -> None:
    assert check(ROOT / f"cluster/{cloud}.yaml")[0] == []


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_wrong_key_is_found_wherever_it_stands(cloud: str) -> None:
    config = read(cloud)
    places = [(), *mappings(config)]
    assert len(places) > 2
    for place in places:
        spoiled = copy.deepcopy(config)
        part = spoiled
        for step in place:
            part = part[step]
        part["wrong_key"] = 1
        assert any("wrong_key" in complaint for complaint in ray_up(spoiled)), place


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_wrong_value_is_found(cloud: str) -> None:
    for change in ({"idle_timeout_minutes": "soon"}, {"provider": {"type": "cloud9"}}, {"cluster_name": 7}):
        assert list(ray_up({**read(cloud), **change}))


def test_the_check_is_a_command_that_says_what_is_wrong_and_what_is_left_to_fill_in(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([]) == 0
    assert "FILL_BUCKET" in capsys.readouterr().out
    wrong = tmp_path / "mine.yaml"
    wrong.write_text((ROOT / "cluster/aws.yaml").read_text().replace("InstanceType", "InstanceTyp", 1))
    assert main([str(wrong)]) == 1
    assert "head.node_config: found 'InstanceTyp', allowed: InstanceType, ImageId" in capsys.readouterr().out
    wrong.write_text("a: [")
    assert main([str(wrong)]) == 1


def test_what_the_files_share_is_the_same_in_each() -> None:
    first, *others = [{key: read(cloud)[key] for key in SHARED} for cloud in CLOUDS]
    assert all(other == first for other in others)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_a_cluster_is_closed(cloud: str) -> None:
    config = read(cloud)
    head, worker = (" ".join(config[f"{kind}_start_ray_commands"]) for kind in ("head", "worker"))
    assert "--dashboard-host=127.0.0.1" in head
    assert "dashboard" not in worker
    assert "RAY_AUTH_MODE=token\n" in (ROOT / "cluster/kuberay/base/ray.env").read_text()
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    assert "docker" not in config  # `0.0.0.0`, or a port that is opened, would stand in one of these
    assert "0.0.0.0" not in (ROOT / f"cluster/{cloud}.yaml").read_text()


@pytest.mark.parametrize("cloud", CLOUDS)
def test_what_is_brought_to_the_nodes_is_there_and_of_this_version(cloud: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    mounts = read(cloud)["file_mounts"]
    wheel = f"evertrue-{version}-py3-none-any.whl"
    assert mounts[f"~/evertrue/{wheel}"] == f"dist/{wheel}"
    local = set(mounts.values()) - {"~/.ray/auth_token", f"dist/{wheel}"}
    assert [path for path in local if not (ROOT / path).is_file()] == []


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_head_works_nothing_and_every_worker_comes_and_goes(cloud: str) -> None:
    config = prepare_config(read(cloud))
    assert any("--num-cpus=0" in command for command in config["head_start_ray_commands"])
    assert all(node["min_workers"] == 0 < config["max_workers"] for node in config["available_node_types"].values())
    assert 0 < config["idle_timeout_minutes"] <= 10
    if cloud != "local":
        head = config["available_node_types"][config["head_node_type"]]
        assert head["resources"] == {"CPU": 0}
        assert "spot" not in json.dumps(head).lower()


def launched(cloud: str, need: dict[str, float], failed: tuple[str, ...] = ()) -> dict[str, int]:
    """Ask Ray's own scheduler which machines it would start for one task."""
    config = prepare_config(read(cloud))
    config["auth"] = {"ssh_user": "ubuntu"}  # keys would be read, to tell whether a machine is out of date
    types = AutoscalingConfig(config, skip_content_hash=True).get_node_type_configs()
    reply = ResourceDemandScheduler(event_logger=None).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=types,
            max_num_nodes=config["max_workers"] + 1,
            resource_requests=ResourceRequestUtil.group_by_count([ResourceRequestUtil.make(need)]),
            recoverable_resource_availabilities=dict.fromkeys(failed, 0.0),
        )
    )
    return {one.instance_type: one.count for one in reply.to_launch if one.instance_type != config["head_node_type"]}


@pytest.mark.parametrize("cloud", [cloud for cloud in CLOUDS if cloud != "local"])
def test_spot_machines_are_started_first_and_others_where_there_are_none(cloud: str) -> None:
    for kind, need in {"cpu": {"CPU": 1.0}, "gpu": {"CPU": 1.0, "GPU": 1.0}}.items():
        assert launched(cloud, need) == {f"{kind}-spot": 1}
        assert launched(cloud, need, failed=(f"{kind}-spot",)) == {kind: 1}


def test_what_azure_is_told_stands_in_the_template_that_ray_ships() -> None:
    template = json.loads((Path(_private.__path__[0]) / "_azure/azure-vm-template.json").read_text())
    schema = yaml.safe_load((ROOT / "cluster/schema/ray-up.yaml").read_text())
    known = schema["azure"]["node_config"]["properties"]["azure_arm_parameters"]["properties"]
    assert set(known) - {"availability_zone"} <= set(template["parameters"])


def test_the_policies_in_the_guide_give_no_more_than_they_name() -> None:
    guide = (ROOT / "docs/cluster.md").read_text()
    policies = [json.loads(block.partition("```")[0]) for block in guide.split("```json\n")[1:]]
    assert len(policies) == 2
    for statement in [statement for policy in policies for statement in policy["Statement"]]:
        assert not [action for action in statement["Action"] if "*" in action]
        if statement["Resource"] == "*":
            assert all(action.startswith("ec2:Describe") for action in statement["Action"])
    assert {
        read("aws")["available_node_types"][kind]["node_config"]["InstanceType"] for kind in ("cpu", "gpu")
    } == set(policies[1]["Statement"][1]["Condition"]["StringEquals"]["ec2:InstanceType"])


def test_the_rights_that_are_told_are_enough_to_start_workers() -> None:
    told = (ROOT / "docs/cluster.md").read_text()
    azure, aws = read("azure")["provider"], json.dumps(read("aws")["available_node_types"])
    assert azure["msi_resource_group"] != azure["resource_group"]  # so to be contributor of the latter is not enough
    assert (
        f'"Managed Identity Operator" --scope \\\n    /subscriptions/FILL_SUBSCRIPTION/resourceGroups/{azure["msi_resource_group"]}/'
        in told
    )
    assert f"userAssignedIdentities/{azure['msi_name']}\n" in told
    assert '"MarketType": "spot"' in aws
    assert "create-service-linked-role --aws-service-name spot.amazonaws.com" in told
