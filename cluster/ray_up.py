"""Would Ray and the cloud take a file for `ray up`, and understand every key of it?"""

import contextlib
import copy
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.against import against, told

SCHEMA = Path(__file__).parent / "schema/ray-up.yaml"


def ray_up(config: dict[str, Any]) -> Iterator[str]:
    """Say what Ray would refuse, and what it would take and not understand."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it warns of containers, which we do not use
            validate_config(prepare_config(copy.deepcopy(config)))
    except jsonschema.ValidationError as error:
        yield told(error, [])
    except (ValueError, KeyError, RuntimeError, click.ClickException) as error:
        yield f"Ray refuses it: {error!r}"
    schemas = _schemas()
    provider = config.get("provider", {})
    kind = provider.get("type")
    if kind not in schemas:
        yield f"provider.type: found {kind!r}, allowed: {', '.join(schemas)}"
        return
    yield from against(schemas[kind]["provider"], provider, ["provider"])
    if "node_config" in schemas[kind]:
        for name, node in config.get("available_node_types", {}).items():
            where = ["available_node_types", name, "node_config"]
            yield from against(schemas[kind]["node_config"], node.get("node_config", {}), where)


@functools.cache
def _schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = yaml.safe_load(SCHEMA.read_text())
    return schemas
