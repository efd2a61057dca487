"""Check cluster files before they cost anything: `python -m cluster.check [FILE...]`, all of them if none is named."""

import contextlib
import copy
import io
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import jsonschema
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

HERE = Path(__file__).parent
CLOUDS = ("aws", "gcp", "azure", "local")
PLACEHOLDER = re.compile(r"FILL_[A-Z0-9_]+")


def ray_up(config: dict[str, Any]) -> Iterator[str]:
    """Say what Ray would refuse in a file for `ray up`, and what it would take and not understand."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it warns of containers, which we do not use
            validate_config(prepare_config(copy.deepcopy(config)))
    except jsonschema.ValidationError as error:
        yield _told(error, [])
    except (ValueError, KeyError, RuntimeError, click.ClickException) as error:
        yield f"Ray refuses it: {error!r}"
    schemas = yaml.safe_load((HERE / "schema/ray-up.yaml").read_text())
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


def against(schema: dict[str, Any], found: object, where: list[str]) -> Iterator[str]:
    """Hold a part of a file to a JSON Schema; `where` it stands opens every complaint."""
    for error in jsonschema.Draft202012Validator(schema).iter_errors(found):
        yield _told(error, where)


def _told(error: jsonschema.ValidationError, where: list[str]) -> str:
    path = ".".join(str(part) for part in [*where, *error.absolute_path])
    if error.validator == "additionalProperties" and isinstance(error.instance, dict):
        known = error.schema.get("properties", {})
        unknown = [repr(key) for key in error.instance if key not in known]
        return f"{path or 'top level'}: found {', '.join(unknown)}, allowed: {', '.join(known)}"
    return f"{path or 'top level'}: {error.message}"


def check(path: Path) -> list[str]:
    """Return the complaints about one file."""
    try:
        config = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        return [f"no YAML: {error}"]
    if not isinstance(config, dict):
        return [f"found {type(config).__name__}, allowed: a mapping"]
    return list(ray_up(config))


def main(arguments: list[str]) -> int:
    """Print what is wrong, or still to be filled in; 1 if anything is wrong."""
    paths = [Path(argument) for argument in arguments] or [HERE / f"{cloud}.yaml" for cloud in CLOUDS]
    logging.getLogger("ray").setLevel(logging.WARNING)
    wrong = 0
    for path in paths:
        complaints = check(path)
        wrong += bool(complaints)
        blanks = sorted(set(PLACEHOLDER.findall(path.read_text())))
        print(f"{path}: {'wrong' if complaints else 'good'}", *([", to be filled in:", *blanks] if blanks else []))
        for complaint in complaints:
            print(f"  {complaint}")
    return min(wrong, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
