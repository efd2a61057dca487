"""The manifests for Kubernetes: right for the API server and for KubeRay, closed, and one with what they repeat."""

import copy
import re
import shlex
import shutil
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml

from app.declaration import read
from cluster.check import check
from cluster.manifests import manifest, rendered, serve

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "cluster/kuberay"
CLUSTERS = ["overlays/cpu", "overlays/gpu", "overlays/service"]
FOLDERS = [*CLUSTERS, "jobs", "schedules"]
FREE = {"labels", "matchLabels", "rayStartParams", "limits", "requests", "clusterSelector", "data", "annotations"}
pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None and shutil.which("kustomize") is None,
    reason="neither kubectl nor kustomize is here",
)


@cache
def _rendered(folder: str) -> list[dict[str, Any]]:
    return rendered(KUBERAY / folder)


def resources(folder: str) -> list[dict[str, Any]]:
    return copy.deepcopy(_rendered(folder))


def one(folder: str, kind: str, name: str = "") -> dict[str, Any]:
    found = [r for r in resources(folder) if r["kind"] == kind and name in r["metadata"]["name"]]
    assert len(found) == 1, [r["metadata"]["name"] for r in found]
    return found[0]


def ray_spec(folder: str) -> dict[str, Any]:
    if folder == "overlays/service":
        spec: dict[str, Any] = one(folder, "RayService")["spec"]["rayClusterConfig"]
    else:
        spec = one(folder, "RayCluster")["spec"]
    return spec


def pods(part: object) -> Iterator[dict[str, Any]]:
    """Find every pod's spec: whatever has containers."""
    if isinstance(part, dict):
        if "containers" in part:
            yield part
        part = list(part.values())
    if isinstance(part, list):
        for value in part:
            yield from pods(value)


def mappings(part: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the way to every mapping whose keys mean something to Kubernetes or KubeRay."""
    if isinstance(part, dict):
        yield path
        inner: list[tuple[str | int, Any]] = [(key, value) for key, value in part.items() if key not in FREE]
    else:
        inner = list(enumerate(part)) if isinstance(part, list) else []
    for key, value in inner:
        yield from mappings(value, (*path, key))


@pytest.mark.parametrize("folder", FOLDERS)
def test_kubernetes_and_kuberay_understand_every_key(folder: str) -> None:
    complaints, blanks = check(KUBERAY / folder)
    assert complaints == []
    assert "FILL_REGISTRY" in blanks


@pytest.mark.parametrize("folder", ["overlays/gpu", "overlays/service", "jobs", "schedules"])
def test_a_wrong_key_is_found_wherever_it_stands(folder: str) -> None:
    kinds = {"Namespace", "ConfigMap"} if folder.startswith("overlays") else set()
    kinds |= {"RayCluster", "RayService", "RayJob", "RayCronJob", "PodMonitor", "NetworkPolicy", "StatefulSet"}
    kinds |= {"PodDisruptionBudget", "Service", "ServiceAccount"}
    tried = 0
    for resource in resources(folder):
        assert resource["kind"] in kinds
        for place in mappings(resource):
            if (resource["kind"], place) == ("Service", ("spec", "selector")):
                continue  # labels
            spoiled = copy.deepcopy(resource)
            part = spoiled
            for step in place:
                part = part[step]
            part["wrongKey"] = "1"
            assert any("wrongKey" in complaint for complaint in manifest(spoiled)), (resource["kind"], place)
            tried += 1
    assert tried > 10


def test_a_kind_and_a_value_that_are_not_known_are_found() -> None:
    cluster = one("overlays/cpu", "RayCluster")
    assert list(manifest({**cluster, "apiVersion": "ray.io/v1alpha1"}))
    assert list(manifest({**cluster, "kind": "RayClutser"}))
    cluster["spec"]["gcsFaultToleranceOptions"]["redisPassword"] = {"value": "secret"}
    assert list(manifest(cluster))


def test_a_key_that_serve_would_ignore_is_found() -> None:
    config = yaml.safe_load((ROOT / "cluster/serve.yaml").read_text())
    assert list(serve(config, [])) == []
    for place in [p for p in mappings(config) if "args" not in p]:
        spoiled = copy.deepcopy(config)
        part = spoiled
        for step in place:
            part = part[step]
        part["wrong_key"] = 1
        assert any("wrong_key" in complaint for complaint in serve(spoiled, [])), place
    assert list(serve({**config, "http_options": {"port": "many"}}, []))


def test_the_service_is_that_of_the_serve_config_but_for_the_address_it_is_bound_to() -> None:
    here = yaml.safe_load((ROOT / "cluster/serve.yaml").read_text())
    there = yaml.safe_load(one("overlays/service", "RayService")["spec"]["serveConfigV2"])
    assert (here["http_options"].pop("host"), there["http_options"].pop("host")) == ("127.0.0.1", "0.0.0.0")
    (application,) = there["applications"]
    assert (
        application["args"].pop("workspace")
        == one("overlays/cpu", "ConfigMap", "place")["data"]["EVERTRUE_WORKSPACE"]
    )
    here["applications"][0]["args"].pop("workspace")
    assert there == here


def test_the_service_stands_in_place_of_the_cluster_with_the_same_spec() -> None:
    assert not [r for r in resources("overlays/service") if r["kind"] == "RayCluster"]
    assert ray_spec("overlays/service") == ray_spec("overlays/cpu")


def test_gpus_are_a_second_group_of_workers() -> None:
    plain, gpu = ray_spec("overlays/gpu")["workerGroupSpecs"]
    assert (plain["groupName"], gpu["groupName"]) == ("cpu", "gpu")
    assert gpu["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in plain["template"]["spec"]["containers"][0]["resources"]["limits"]


@pytest.mark.parametrize("folder", CLUSTERS)
def test_the_head_works_nothing_workers_come_and_go_and_its_state_outlasts_it(folder: str) -> None:
    spec = ray_spec(folder)
    assert spec["rayVersion"] == ray.__version__
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["enableInTreeAutoscaling"]
    assert spec["autoscalerOptions"]["version"] == "v2"
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert all(
        group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"] for group in spec["workerGroupSpecs"]
    )
    service = one(folder, "Service", "redis")
    assert spec["gcsFaultToleranceOptions"]["redisAddress"] == f"redis:{service['spec']['ports'][0]['port']}"


@pytest.mark.parametrize("folder", CLUSTERS)
def test_the_pods_have_the_settings_that_nodes_of_ray_up_have(folder: str) -> None:
    lines = [line for line in (KUBERAY / "base/ray.env").read_text().splitlines() if line and line[0] != "#"]
    assert one(folder, "ConfigMap", "ray")["data"] == dict(line.split("=", 1) for line in lines)
    for pod in pods(ray_spec(folder)):
        names = [source["configMapRef"]["name"] for source in pod["containers"][0]["envFrom"]]
        assert names == ["ray", "place"]
        assert {"RAY_AUTH_MODE", "RAY_AUTH_TOKEN"}.isdisjoint(v["name"] for v in pod["containers"][0]["env"])


@pytest.mark.parametrize("folder", CLUSTERS)
def test_every_pod_that_reads_the_workspace_may_have_its_accounts_identity_on_azure_too(folder: str) -> None:
    spec = ray_spec(folder)
    for template in [spec["headGroupSpec"]["template"], *(group["template"] for group in spec["workerGroupSpecs"])]:
        assert template["metadata"]["labels"]["azure.workload.identity/use"] == "true"
        assert template["spec"]["serviceAccountName"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_pods_run_as_nobody_special_on_file_systems_they_cannot_change(folder: str) -> None:
    found = list(pods(resources(folder)))
    assert found
    for pod in found:
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not [volume for volume in pod.get("volumes", []) if "hostPath" in volume]
        for container in pod["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert ":" in container["image"]
            assert not container["image"].endswith(":latest")
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("folder", CLUSTERS)
def test_nothing_but_the_named_may_reach_the_pods(folder: str) -> None:
    policies = {r["metadata"]["name"]: r["spec"] for r in resources(folder) if r["kind"] == "NetworkPolicy"}
    assert policies["inside"] == {
        "podSelector": {},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {}}]}],
    }
    ports = {
        name: {p["port"] for rule in spec["ingress"] for p in rule.get("ports", [])}
        for name, spec in policies.items()
    }
    assert ports == {"inside": set(), "endpoint": {8000}, "operator": {8265, 8000}, "metrics": {8080, 44217, 44227}}
    sources = [source for spec in policies.values() for rule in spec["ingress"] for source in rule["from"]]
    assert all(
        source.get("podSelector") is not None or source["namespaceSelector"]["matchLabels"] for source in sources
    )
    assert not [r for r in resources(folder) if r["kind"] in {"Secret", "Ingress"}]
    assert not [r for r in resources(folder) if r.get("spec", {}).get("type") in {"NodePort", "LoadBalancer"}]


@pytest.mark.parametrize("folder", CLUSTERS)
def test_what_watches_and_what_protects_names_pods_that_there_are(folder: str) -> None:
    ray_labels = {"ray.io/is-ray-node": {"yes"}, "ray.io/node-type": {"head", "worker"}}  # which KubeRay gives
    redis = one(folder, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    for resource in [r for r in resources(folder) if r["kind"] in {"PodDisruptionBudget", "PodMonitor"}]:
        for label, value in resource["spec"]["selector"]["matchLabels"].items():
            assert value in ray_labels.get(label, set()) or redis.get(label) == value
    ports = {port["name"] for pod in pods(ray_spec(folder)) for port in pod["containers"][0]["ports"]}
    scraped = {endpoint["port"] for endpoint in one(folder, "PodMonitor")["spec"]["podMetricsEndpoints"]}
    assert scraped <= ports
    (container,) = one(folder, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


def test_the_jobs_are_there_and_get_the_cluster_and_the_declaration_that_there_are() -> None:
    cluster = one("overlays/cpu", "RayCluster")
    (mount,) = [
        mount
        for mount in cluster["spec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["volumeMounts"]
        if mount["name"] == "declarations"
    ]
    jobs = [one("jobs", "RayJob")["spec"]]
    jobs += [resource["spec"]["jobTemplate"] for resource in resources("schedules")]
    assert len(jobs) == 3
    for job in jobs:
        assert job["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
        assert job["entrypointNumCpus"] >= 1  # the head has none
        python, flag, module, declaration, *_ = shlex.split(job["entrypoint"])
        assert (python, flag) == ("python", "-m")
        assert find_spec(module) is not None
        folder, _, file = declaration.rpartition("/")
        assert folder == mount["mountPath"]
        assert file in one("overlays/cpu", "ConfigMap", "declarations")["data"]


def test_the_declaration_that_comes_with_them_is_one() -> None:
    spec = read(KUBERAY / "base/flights.yaml").spec
    (application,) = yaml.safe_load((ROOT / "cluster/serve.yaml").read_text())["applications"]
    assert spec.name == application["name"]


@pytest.mark.parametrize("folder", CLUSTERS)
def test_what_is_scraped_is_the_job_that_the_alerts_ask_for(folder: str) -> None:
    [wanted] = set(re.findall(r'\bjob="([^"]+)"', (ROOT / "cluster/prometheus/alerts.yml").read_text()))
    for endpoint in one(folder, "PodMonitor")["spec"]["podMetricsEndpoints"]:
        named = {rule["targetLabel"]: rule["replacement"] for rule in endpoint["relabelings"]}
        assert named["job"] == wanted, endpoint
