"""The endpoint's description of itself: OpenAPI 3.1 from the declaration and the feature plan, and a page of it."""

import html
import json
from typing import Any

from app.data.features import CategoryColumn, NumberColumn, TargetColumn
from app.serving.arrow_codec import ArrowCodec
from app.serving.codec import FLOAT32_MAX, ID_LENGTH, Fields
from app.serving.json_codec import JsonCodec
from app.serving.listener import address
from app.serving.moments import HIGHEST, LOWEST
from app.serving.pages import DECISIONS, MOST_DECISIONS
from app.serving.problems import CONTENT_TYPE
from app.spec import Spec

_INT64 = {"minimum": -(2**63), "maximum": 2**63 - 1}
_KINDS: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "integer": {"type": "integer", **_INT64},
    "boolean": {"type": "boolean"},
}
_MOMENT: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "format": "date-time", "maxLength": 64},
        {"type": "integer", "minimum": LOWEST, "maximum": HIGHEST},
        {"type": "null"},
    ],
    "description": "ISO 8601, or milliseconds since 1970 (UTC)",
}
_LIMIT: dict[str, Any] = {
    "name": "limit",
    "in": "query",
    "description": "Most decisions of the answer",
    "schema": {"type": "integer", "minimum": 1, "maximum": MOST_DECISIONS, "default": DECISIONS},
}
_OPEN = ("healthz", "readyz")
_SCHEMES: dict[str, dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "The key"},
    "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The key"},
    "basic": {"type": "http", "scheme": "basic", "description": "For browsers: any user name, the key as password"},
}
_TOO_MUCH = "Too much at once, for the service or for the key; Retry-After says when to come again"
_FORBIDDEN = "The key is not good for this, or a page of another site had a browser send it"
_KEY_PROBLEMS = {
    "401": "No key was sent, or one that is unknown, revoked or expired",
    "403": _FORBIDDEN,
    "429": _TOO_MUCH,
}
_PROBLEMS = {
    "400": "Not JSON, or not a whole Arrow stream",
    "403": _FORBIDDEN,
    "408": "The body came too slowly",
    "413": "Body or row count above the limit, or an Arrow stream that unfolds to far more than was sent",
    "415": "Another content type, a body that is compressed, or an Arrow stream whose buffers are compressed or whose dictionaries grow",
    "422": "A field that is unknown, missing, of another type or outside its limits; says which row and field",
    "429": _TOO_MUCH,
    "503": "No model is loaded yet, or the journal cannot be written; Retry-After says when to come again",
}


def openapi(spec: Spec, fields: Fields, model: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of one declaration's endpoint."""
    prefix = f"/{spec.name}"
    row = _row(fields)
    many = {"type": "array", "minItems": 1, "maxItems": fields.max_rows}
    columns = {
        **row,
        "description": "One list a field, all equally long",
        "properties": {name: {**many, "items": kind} for name, kind in row["properties"].items()},
    }
    request = {
        "anyOf": [
            _object({"rows": {**many, "items": row}}),
            _object({"columns": columns}),
            row,
        ]
    }
    guarded = spec.serve.needs_keys
    refusals = _responses(_KEY_PROBLEMS if guarded else {})
    problems = refusals | _responses(_PROBLEMS)
    binary = {"schema": {"type": "string", "format": "binary"}}
    predict = {
        "summary": f"Predict {fields.plan.target.name}",
        "operationId": "predict",
        "requestBody": {
            "required": True,
            "content": {JsonCodec.content_type: {"schema": request}, ArrowCodec.content_type: binary},
        },
        "responses": {
            "200": {
                "description": "One prediction a row, in the order of the rows, in the format of the request",
                "content": {JsonCodec.content_type: {"schema": _response(fields)}, ArrowCodec.content_type: binary},
            },
            **problems,
        },
    }
    labels = {
        "summary": f"Tell what {fields.plan.target.name} came true; durable once acknowledged",
        "operationId": "labels",
        "requestBody": {
            "required": True,
            "content": {
                JsonCodec.content_type: {
                    "schema": _object({"labels": {**many, "items": _label(fields.plan.target)}})
                },
                ArrowCodec.content_type: binary,
            },
        },
        "responses": {
            "202": {
                "description": "The labels are on disk",
                "content": {JsonCodec.content_type: {"schema": _object({"accepted": {"type": "integer"}})}},
            },
            **problems,
        },
    }
    pages = {
        "model": "The version that answers: bundle, features, metrics, line-up",
        "drift": "What moved: the monitor's last report",
        "decisions": "What was decided and why, newest first",
        "healthz": "Alive",
        "readyz": "Ready to predict, and by which line-up",
        "openapi.json": "This document",
        "docs": "This document as a page",
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": spec.name, "version": model.rpartition("/")[2]},
        "paths": {
            f"{prefix}/predict": {"post": predict},
            f"{prefix}/labels": {"post": labels},
            **{
                f"{prefix}/{page}": {
                    "get": {
                        "summary": text,
                        "operationId": page.partition(".")[0],
                        **({"parameters": [_LIMIT]} if page == "decisions" else {}),
                        "responses": {
                            "200": {
                                "description": text,
                                "content": {"text/html" if page == "docs" else "application/json": {"schema": {}}},
                            },
                            **(refusals if page not in _OPEN else {}),
                        },
                        **_security(guarded, page),
                    }
                }
                for page, text in pages.items()
            },
        },
        "components": {"schemas": {"Problem": _problem()}, **({"securitySchemes": _SCHEMES} if guarded else {})},
        **({"security": [{"bearer": []}, {"header": []}]} if guarded else {}),
    }


def _responses(problems: dict[str, str]) -> dict[str, Any]:
    content = {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": text, "content": content} for status, text in problems.items()}


def _security(guarded: bool, page: str) -> dict[str, Any]:
    """Return what a page asks for: nothing of a probe, the key in any form of the others."""
    if not guarded:
        return {}
    return {"security": [] if page in _OPEN else [{name: []} for name in _SCHEMES]}


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _row(fields: Fields) -> dict[str, Any]:
    identifier = {
        "anyOf": [{"type": "string", "maxLength": ID_LENGTH}, {"type": "integer", **_INT64}, {"type": "null"}]
    }
    return {
        "type": "object",
        "properties": {
            **{column.name: _number(column) for column in fields.plan.number},
            **{column.name: _category(column) for column in fields.plan.category},
            **{name: _MOMENT if name == fields.time else identifier for name in fields.extras},
        },
        "required": list(fields.plan.names),
        "additionalProperties": False,
    }


def _label(target: TargetColumn) -> dict[str, Any]:
    label = (
        {"enum": list(target.classes)}
        if target.classes
        else {"type": "number", "minimum": -FLOAT32_MAX, "maximum": FLOAT32_MAX}
    )
    identifier = {"anyOf": [{"type": "string", "maxLength": ID_LENGTH}, {"type": "integer", **_INT64}]}
    described = _object({"id": identifier, "label": label})
    described["properties"]["time"] = _MOMENT
    return described


def _number(column: NumberColumn) -> dict[str, Any]:
    return {
        "type": "number" if column.required else ["number", "null"],
        "minimum": column.min if column.min is not None else -FLOAT32_MAX,
        "maximum": column.max if column.max is not None else FLOAT32_MAX,
    }


def _category(column: CategoryColumn) -> dict[str, Any]:
    if column.values is not None:
        return {"enum": [*column.values, *([] if column.required else [None])]}
    kind = _KINDS[column.kind]
    return kind if column.required else {**kind, "type": [kind["type"], "null"]}


def _response(fields: Fields) -> dict[str, Any]:
    target = fields.plan.target
    prediction: dict[str, Any] = {"id": {"type": ["string", "integer"]}, "score": {"type": "number"}}
    if target.task != "regression":
        prediction["label"] = {"enum": list(target.classes)}
    if target.task == "multiclass":
        prediction["scores"] = _object({str(value): {"type": "number"} for value in target.classes})
    one = _object(prediction)
    one["properties"] = prediction | {
        "model": {"type": "string", "description": "Where another model than the answer's made this prediction"}
    }
    return _object({"model": {"type": "string"}, "predictions": {"type": "array", "items": one}})


def _problem() -> dict[str, Any]:
    text, whole = {"type": "string"}, {"type": "integer"}
    return {
        "type": "object",
        "description": "RFC 9457 problem document",
        "properties": {
            "type": text,
            "title": text,
            "status": whole,
            "detail": text,
            "row": {**whole, "description": "Row, from 0"},
            "field": text,
            "found": {},
            "allowed": text,
            "request_id": {**text, "description": "The X-Request-ID that was sent, or the one it was given"},
        },
        "required": ["type", "title", "status", "detail"],
    }


def example_row(fields: Fields) -> dict[str, Any]:
    """Return a row that the endpoint accepts: medians and most common values."""
    row: dict[str, Any] = {}
    for number in fields.plan.number:
        row[number.name] = number.quantiles[len(number.quantiles) // 2] if number.quantiles else None
    for category in fields.plan.category:
        row[category.name] = category.vocabulary[0] if category.vocabulary else None
    return row


def docs_page(spec: Spec, fields: Fields, model: str) -> str:
    """Return a page for people: how to ask, what each field may hold. It loads nothing from anywhere."""
    target = fields.plan.target
    label = json.dumps({"labels": [{"id": "1", "label": target.classes[-1] if target.classes else target.mean}]})
    example = json.dumps({"rows": [example_row(fields)]}, indent=2)
    lines = "".join(
        f"<tr><td><code>{html.escape(name)}</code></td><td>{html.escape(fields.kind(name) or '')}</td>"
        f"<td>{html.escape(fields.limits(name) or '')}</td></tr>"
        for name in (*fields.plan.names, *fields.extras)
    )
    told = (_KEY_PROBLEMS if spec.serve.needs_keys else {}) | _PROBLEMS
    problems = "".join(f"<tr><td>{status}</td><td>{html.escape(text)}</td></tr>" for status, text in told.items())
    key = ' -H "authorization: Bearer $EVERTRUE_KEY"' if spec.serve.needs_keys else ""
    here = address(spec)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{spec.name}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 56rem; margin: 2rem auto; padding: 0 1rem }}
pre {{ overflow: auto; padding: 1rem; border: 1px solid; border-radius: .5rem; font-size: .85rem }}
table {{ border-collapse: collapse }} td, th {{ text-align: left; padding: .2rem 1rem .2rem 0; vertical-align: top }}
</style></head><body>
<h1>{spec.name}</h1>
<p>Model <code>{model}</code> predicts <code>{html.escape(fields.plan.target.name)}</code>
({fields.plan.target.task}). See also the <a href=".">console</a>, <a href="model">model</a>, <a href="drift">drift</a>,
<a href="decisions">decisions</a> and <a href="openapi.json">openapi.json</a>.</p>
<h2>Ask</h2>
<pre>curl {here}/predict{key} -H 'content-type: application/json' -d '{html.escape(example)}'</pre>
<p>A body is <code>{{"rows": [...]}}</code>, <code>{{"columns": {{...}}}}</code> or one bare row as JSON, or an Arrow
IPC stream (<code>{ArrowCodec.content_type}</code>), uncompressed; the answer comes in kind. At most {fields.max_rows:,} rows and
{spec.serve.max_request_bytes:,} bytes.</p>
<h2>Tell what came true</h2>
<pre>curl {here}/labels{key} -H 'content-type: application/json' -d '{html.escape(label)}'</pre>
<p>By the id that the prediction had; <code>time</code> says when it became known, now when left out. Labels are on disk
once they are acknowledged. Arrow works, too, with these columns.</p>
<h2>Fields</h2><table><tr><th>Field</th><th>Holds</th><th>Allowed</th></tr>{lines}</table>
<h2>Problems</h2><p>Errors are <code>{CONTENT_TYPE}</code> (RFC 9457).</p><table>{problems}</table>
</body></html>
"""
