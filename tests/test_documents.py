"""What the documents point at is there."""

import importlib
import re
import typing
from pathlib import Path

import pytest
import yaml
from ray.serve.schema import ServeDeploySchema

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_and_every_path_leads_somewhere(document):
    text = document.read_text()
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#]+)", text)
    paths = re.findall(r"`((?:app|jobs|tests|docs|examples|benchmarks)/[\w./-]*)`", text)
    lost = [link for link in links if not (document.parent / link).exists()]
    lost += [path for path in paths if not (ROOT / path).exists()]
    assert not lost


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_no_command_writes_over_the_token_that_is_there_or_leaves_one_open(document):
    for line, name in re.findall(r"^(\$ .*>\s*~/\.ray/(\S+?)\)?)$", document.read_text(), re.MULTILINE):
        assert name != "auth_token", line
        assert line.startswith("$ (umask 077 && "), line


def test_every_room_has_its_place_in_the_architecture():
    text = (ROOT / "docs/architecture.md").read_text()
    rooms = {
        path.stem for path in (ROOT / "app").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert rooms - {"__init__"} <= set(re.findall(r"\w+", text))


def test_every_file_has_its_place_in_the_readmes_tree():
    tree = (ROOT / "README.md").read_text().partition("```text")[2].partition("```")[0]
    folders = {"declaration", "spec", "journal", "monitor", "detectors"}  # described as a whole
    files = {path for path in (ROOT / "app").rglob("*.py") if path.parent.name not in folders}
    lost = [str(path.relative_to(ROOT)) for path in files if path.name not in tree and path.name != "__init__.py"]
    assert not lost


def test_the_serve_config_names_what_is_there():
    config = yaml.safe_load((ROOT / "cluster/serve.yaml").read_text())
    for application in ServeDeploySchema.model_validate(config).applications:
        module, _, name = application.import_path.partition(":")
        builder = getattr(importlib.import_module(module), name)
        model = next(iter(typing.get_type_hints(builder).values()))
        arguments = model.model_validate(application.args)
        assert set(application.args) <= set(model.model_fields)
        assert arguments.workspace.startswith("s3://")
        assert application.route_prefix == f"/{arguments.name}"
