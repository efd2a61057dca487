"""Check cluster files before they cost anything: `python -m cluster.check [FILE...]`, all of them if none is named.

A file is one for `ray up` or Serve's config; a folder is a kustomization.
"""

import logging
import re
import sys
from pathlib import Path

import yaml

from cluster.manifests import manifest, rendered, serve
from cluster.ray_up import ray_up

HERE = Path(__file__).parent
ALL = ["aws.yaml", "gcp.yaml", "azure.yaml", "local.yaml", "serve.yaml"]
ALL += [
    "kuberay/overlays/cpu",
    "kuberay/overlays/gpu",
    "kuberay/overlays/service",
    "kuberay/jobs",
    "kuberay/schedules",
]
PLACEHOLDER = re.compile(r"FILL_[A-Z0-9_]+")


def check(path: Path) -> tuple[list[str], set[str]]:
    """Return what is wrong with a file or a kustomization, and what is left to fill in."""
    try:
        if path.is_dir():
            resources = rendered(path)
            complaints = [complaint for resource in resources for complaint in manifest(resource)]
            return complaints, set(PLACEHOLDER.findall(yaml.safe_dump(resources)))
        text = path.read_text()
        config = yaml.safe_load(text)
    except (OSError, RuntimeError, yaml.YAMLError) as error:
        return [str(error)], set()
    if not isinstance(config, dict):
        return [f"found {type(config).__name__}, allowed: a mapping"], set()
    return list(serve(config, []) if "applications" in config else ray_up(config)), set(PLACEHOLDER.findall(text))


def main(arguments: list[str]) -> int:
    """Print what is wrong, or still to be filled in; 1 if anything is wrong."""
    logging.getLogger("ray").setLevel(logging.WARNING)
    wrong = False
    for path in [Path(argument) for argument in arguments] or [HERE / name for name in ALL]:
        complaints, blanks = check(path)
        wrong |= bool(complaints)
        print(
            f"{path}: {'wrong' if complaints else 'good'}",
            *(["- to be filled in:", *sorted(blanks)] if blanks else []),
        )
        for complaint in complaints:
            print(f"  {complaint}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
