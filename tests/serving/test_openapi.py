"""The endpoint keeps the promises of its own description: generated requests, valid and not, against OpenAPI."""

from concurrent.futures import ThreadPoolExecutor

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
from app.serving.endpoint import Endpoint, Loaded
from app.serving.openapi import openapi
from app.telemetry import ServingMetrics

pytestmark = pytest.mark.ray


class Nowhere:
    """Drops the metrics."""

    def add(self, *_: object) -> None:
        """Drop."""

    def set(self, *_: object) -> None:
        """Drop."""


def beyond_schema(answer: Response) -> bool:
    """Say whether a refusal follows a rule no JSON Schema can tell: equal lengths, and that 7.0 is no whole number."""
    if answer.status_code != 422:
        return False
    problem = answer.json()
    return problem["type"].endswith("uneven-columns") or (
        problem["type"].endswith("wrong-type")
        and isinstance(problem.get("found"), float)
        and problem["found"].is_integer()
    )


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_generated_requests_get_answers_as_described(
    trained: TrainedVersion, declaration: Declaration, mode: GenerationMode
) -> None:
    with ThreadPoolExecutor(1) as executor:
        metrics = ServingMetrics("rides", Nowhere(), later=lambda seconds, call: None)
        endpoint = Endpoint(declaration.spec, executor, metrics)
        endpoint.swap(Loaded.of(open_bundle(trained.bundle), declaration.spec, "1", use_gpu=False))
        described = schemathesis.openapi.from_asgi("/rides/openapi.json", endpoint)
        operations = [result.ok() for result in described.get_all_operations()]
        assert {operation.path for operation in operations} >= {"/rides/predict", "/rides/model"}
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
