"""The endpoint keeps the promises of its own description: generated requests, valid and not, against OpenAPI."""

import datetime as dt
from typing import Any

import jsonschema
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.core.transport import Response
from schemathesis.generation import GenerationMode

from app.declaration import Declaration
from app.model.bundle import open_bundle
from app.pipeline import TrainedVersion
from app.serving.codec import Fields
from app.serving.loaded import Loaded
from app.serving.openapi import openapi

pytestmark = pytest.mark.ray


def beyond_schema(answer: Response) -> bool:
    """Say whether a refusal follows a rule no JSON Schema can tell: equal lengths, and that 7.0 is no whole number.

    Or one that schemathesis does not know to be a refusal: 413 for too many rows.
    """
    if answer.status_code != 422:
        return answer.status_code == 413
    problem = answer.json()
    return problem["type"].endswith("uneven-columns") or (
        problem["type"].endswith("wrong-type")
        and isinstance(problem.get("found"), float)
        and problem["found"].is_integer()
    )


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_generated_requests_get_answers_as_described(
    trained: TrainedVersion, declaration: Declaration, room: Any, mode: GenerationMode
) -> None:
    here = room(label_commit=dt.timedelta(0))
    here.stand(Loaded.of(open_bundle(trained.bundle), declaration.spec, "1", use_gpu=False))
    described = schemathesis.openapi.from_asgi("/rides/openapi.json", here.endpoint)
    operations = [result.ok() for result in described.get_all_operations()]
    assert {operation.path for operation in operations} >= {"/rides/predict", "/rides/labels", "/rides/decisions"}
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and operation.method.upper() != "POST":
            continue

        @settings(max_examples=50, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
        @given(case=operation.as_strategy(generation_mode=mode))
        def validate(case: schemathesis.Case) -> None:
            answer = case.call()
            if not beyond_schema(answer):
                case.validate_response(answer)

        validate()


def test_the_description_is_valid_openapi_and_names_limits(trained: TrainedVersion, declaration: Declaration) -> None:
    document = openapi(declaration.spec, Fields(open_bundle(trained.bundle).plan, 2000), "rides/1")
    request = document["paths"]["/rides/predict"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    jsonschema.Draft202012Validator.check_schema(request)
    validator = jsonschema.Draft202012Validator(request)
    row = {"distance": 4.5, "passengers": 2, "zone": None, "rain": True}
    assert validator.is_valid(row)
    assert validator.is_valid({"rows": [row]})
    assert validator.is_valid({"columns": {name: [value] for name, value in row.items()}})
    for wrong in ({**row, "passengers": 9}, {**row, "passengers": None}, {**row, "zoen": "north"}, {"rows": []}):
        assert not validator.is_valid(wrong), wrong


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_labels_are_described_by_the_target(declaration: Declaration, plans: Any, task: str) -> None:
    document = openapi(declaration.spec, Fields(plans[task], 2000), "rides/1")
    schema = document["paths"]["/rides/labels"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema.Draft202012Validator(schema)
    good = {"binary": True, "multiclass": "b", "regression": 3.5}[task]
    assert validator.is_valid({"labels": [{"id": "a", "label": good, "time": "2024-03-01T12:00:00Z"}]})
    for wrong in (None, [], {"binary": 1, "multiclass": "d", "regression": "3"}[task]):
        assert not validator.is_valid({"labels": [{"id": "a", "label": wrong}]})
