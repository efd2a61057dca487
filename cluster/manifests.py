"""Would Kubernetes and KubeRay take a kustomization, and understand every key of it?

KubeRay's own kinds are held to schema/custom.yaml, Serve's config to Ray's classes, which take unknown keys without a
word, and all else, the pods in KubeRay's kinds among it, to Kubernetes' schemas.
"""

import functools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from cluster.against import against

KUBERNETES = "1.33"
SCHEMA = Path(__file__).parent / "schema/custom.yaml"


def rendered(folder: Path) -> list[dict[str, Any]]:
    """Return the resources that a kustomization makes; raises RuntimeError with the reason where it makes none."""
    if kustomize := shutil.which("kustomize"):
        command = [kustomize, "build"]
    elif kubectl := shutil.which("kubectl"):
        command = [kubectl, "kustomize"]
    else:
        raise RuntimeError(
            "neither kubectl nor kustomize is on the PATH, and one of them has to put the parts together"
        )
    done = subprocess.run([*command, str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return [resource for resource in yaml.safe_load_all(done.stdout) if resource]


def manifest(resource: dict[str, Any]) -> Iterator[str]:
    """Say what is wrong with one resource."""
    kind = resource.get("kind", "")
    where = [kind, resource.get("metadata", {}).get("name", "?")]
    custom = _schemas()
    if kind not in custom["kinds"]:
        yield from _core(resource, where)
        return
    known = custom["kinds"][kind]
    schema = {
        "$defs": custom["$defs"],
        "additionalProperties": False,
        "required": ["apiVersion", "kind", "metadata", "spec"],
        "properties": {
            "apiVersion": {"const": known["apiVersion"]},
            "kind": {"const": kind},
            "metadata": {"$ref": "#/$defs/metadata"},
            "spec": known["spec"],
        },
    }
    yield from against(schema, resource, where)
    for path, pod in _pods(resource.get("spec", {}), where):
        yield from _core({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **pod}, path)
    if kind == "RayService":
        yield from serve(yaml.safe_load(resource["spec"].get("serveConfigV2", "")), [*where, "serveConfigV2"])


@functools.cache
def _schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = yaml.safe_load(SCHEMA.read_text())
    return schemas


def _pods(part: object, where: list[str]) -> Iterator[tuple[list[str], dict[str, Any]]]:
    """Find the pods in a spec of KubeRay's, and its autoscaler's container, which is given in pieces."""
    if isinstance(part, list):
        part = {str(index): value for index, value in enumerate(part)}
    if not isinstance(part, dict):
        return
    for key, value in part.items():
        if key in {"template", "submitterPodTemplate"} and isinstance(value, dict):
            yield [*where, key], value
        elif key == "autoscalerOptions" and isinstance(value, dict):
            pieces = {"env", "envFrom", "resources", "securityContext", "volumeMounts", "imagePullPolicy"}
            container = {name: value[name] for name in pieces & set(value)}
            yield [*where, key], {"spec": {"containers": [{"name": "autoscaler", **container}]}}
        else:
            yield from _pods(value, [*where, key])


def _core(resource: dict[str, Any], where: list[str]) -> Iterator[str]:
    try:
        kubernetes_validate.validate(resource, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join([*where, *map(str, error.path)])}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        yield f"{'.'.join(where)}: found kind {resource.get('kind')!r} of {resource.get('apiVersion')!r}, which is not known"


def serve(config: object, where: list[str]) -> Iterator[str]:
    """Say what Serve would refuse in its config, and what it would ignore."""
    yield from against(_closed(ServeDeploySchema.model_json_schema()), config, where)
    try:
        ServeDeploySchema.model_validate(config)
    except ValidationError as error:
        for fault in error.errors():
            yield f"{'.'.join([*where, *map(str, fault['loc'])])}: {fault['msg']}"


def _closed(schema: Any) -> Any:
    """Forbid the keys that a schema does not name, at every depth."""
    if isinstance(schema, list):
        return [_closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed["additionalProperties"] = False
    return closed
