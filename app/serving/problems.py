"""What a client hears when a request cannot be answered: RFC 9457 problem documents."""

from typing import Any

import msgspec

from app.serving.asgi import Headers

CONTENT_TYPE = "application/problem+json"

_TITLES = {
    400: "Malformed request",
    401: "No good key",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Request took too long",
    413: "Request too large",
    415: "Unsupported content type",
    422: "Wrong value",
    429: "Too many requests",
    500: "Internal error",
    503: "Not ready",
}


class Problem(Exception):  # noqa: N818 - RFC 9457's word
    """A request that cannot be answered.

    `detail` says what was found and what is allowed; `row` (from 0) and `field` say where, when known.
    `code` is a short name of bounded variety, for metrics; `headers` go with the answer.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        row: int | None = None,
        field: str | None = None,
        found: object = None,
        allowed: str | None = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.row = row
        self.headers = headers
        self.document: dict[str, Any] = {
            "type": f"urn:evertrue:problem:{code}",
            "title": _TITLES[status],
            "status": status,
            "detail": detail,
        }
        for name, value in (("row", row), ("field", field), ("allowed", allowed)):
            if value is not None:
                self.document[name] = value
        if found is not None or allowed is not None:
            self.document["found"] = _short(found)

    def body(self, request_id: str | None = None) -> bytes:
        """Return the document as JSON, with the request's id where it has one."""
        named = {} if request_id is None else {"request_id": request_id}
        return msgspec.json.encode(self.document | named)


def _short(value: object) -> object:
    """Keep what is echoed small: a client's megabyte does not come back."""
    if isinstance(value, bool | int | float) or value is None:
        return value
    text = value if isinstance(value, str) else repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
