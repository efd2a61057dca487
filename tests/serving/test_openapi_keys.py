"""Where keys are needed the description says so, and the endpoint does as it says."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import ignored_auth

from app.declaration import Declaration
from app.keys import add_key
from app.serving.codec import Fields
from app.serving.guard import Guard
from app.serving.keyring import Keyring
from app.serving.openapi import docs_page, openapi
from app.spec import Spec


@pytest.fixture
def guarded(declaration: Declaration) -> Spec:
    serving = declaration.spec.serve.model_copy(update={"keys": "required"})
    return declaration.spec.model_copy(update={"serve": serving})


def test_without_keys_nothing_is_said_of_them(declaration: Declaration, plans: Any) -> None:
    document = openapi(declaration.spec, Fields(plans["binary"], 2000), "rides/1")
    assert "security" not in msgspec.json.encode(document).decode()
    assert "401" not in document["paths"]["/rides/predict"]["post"]["responses"]
    assert "EVERTRUE_KEY" not in docs_page(declaration.spec, Fields(plans["binary"], 2000), "rides/1")


def test_every_operation_but_the_probes_names_the_ways_to_send_a_key(guarded: Spec, plans: Any) -> None:
    fields = Fields(plans["binary"], 2000)
    document = openapi(guarded, fields, "rides/1")
    schemes = document["components"]["securitySchemes"]
    assert {name: scheme["type"] for name, scheme in schemes.items()} == {
        "bearer": "http",
        "header": "apiKey",
        "basic": "http",
    }
    ways: dict[str, set[str]] = {}
    for path, methods in document["paths"].items():
        [operation] = methods.values()
        ways[path.rpartition("/")[2]] = {
            way for alternative in operation.get("security", document["security"]) for way in alternative
        }
        assert ({"401", "403"} <= set(operation["responses"])) == bool(ways[path.rpartition("/")[2]])
    assert ways == {
        "predict": {"bearer", "header"},
        "labels": {"bearer", "header"},
        "healthz": set(),
        "readyz": set(),
    } | {key: set(schemes) for key in ("model", "drift", "decisions", "openapi.json", "docs")}
    assert "authorization: Bearer $EVERTRUE_KEY" in docs_page(guarded, fields, "rides/1")


def test_every_operation_enforces_the_keys_it_describes(
    guarded: Spec, plans: Any, room: Any, version: Any, tmp_path: Any
) -> None:
    uri = str(tmp_path / "keys.json")
    _, key = add_key(uri, "all", ("predict", "labels", "read"))
    keyring = Keyring(uri)
    keyring.first()
    here = room(guard=Guard(keyring, "rides"))
    document = openapi(guarded, Fields(plans["binary"], 2000), "rides/1")
    described = {"openapi.json": ("application/json", msgspec.json.encode(document))}
    here.stand(replace(version("1"), documents=described))
    headers = {"Authorization": f"Bearer {key}"}
    config = SchemathesisConfig.from_dict({"generation": {"with-security-parameters": False}})
    schema = schemathesis.openapi.from_asgi("/rides/openapi.json", here.endpoint, config=config, headers=headers)
    for operation in (result.ok() for result in schema.get_all_operations()):
        if operation.path.endswith("/docs"):
            continue  # this version has no such page

        @settings(max_examples=5, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
        @given(case=operation.as_strategy())
        def validate(case: schemathesis.Case) -> None:
            case.call_and_validate(headers=headers, checks=[ignored_auth])  # asks without and with others, too

        validate()
