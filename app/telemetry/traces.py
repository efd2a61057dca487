"""Does anyone want traces, and where do they go? To the OpenTelemetry collector that the environment names, by OTLP/HTTP.

OpenTelemetry's own variables say all of it ($OTEL_EXPORTER_OTLP_ENDPOINT, $OTEL_TRACES_SAMPLER, ...); the SDK obeys most
of them by itself. Spans leave on a thread, from a queue of bounded length: nobody waits for a collector.
"""

import contextlib
import importlib.metadata
import logging
import os
import platform
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from app.telemetry import spans
from app.telemetry.spans import Span, Told
from app.types import UserError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

PATIENCE = 5.0
"""Seconds that a process which ends waits for the collector to take its last spans."""
SILENCE = 60.0
"""Seconds between two lines of one kind about the sending."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_HEADERS = ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS")
_HEADER = re.compile(r"[ \t]*[\w!#$&'*+.^`|~-]+[ \t]*=[ !#-+\--:<-\[\]-~]*", re.ASCII)

log = logging.getLogger(__name__)


class Tracer:
    """Begins this process's spans, and sends those that have ended."""

    def __init__(self, provider: "TracerProvider") -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("evertrue")

    def begin(self, name: str, parent: str | None = None, told: Told | None = None, *, server: bool = False) -> Span:
        """Begin a span; `parent` is the traceparent of what it is a part of in another process, or whatever was sent."""
        return spans.begin(self._tracer, name, parent, told or {}, server=server)

    def close(self) -> None:
        """Send what is left, as far as the collector takes it in time."""
        closing = threading.Thread(target=self._provider.shutdown, name="traces", daemon=True)
        closing.start()
        closing.join(PATIENCE)
        if closing.is_alive():
            log.warning("the collector did not take the last spans within %g s: they are lost", PATIENCE)


def open_tracer(role: str, service: str, instance: str | None = None) -> Tracer | None:
    """Return this process's tracer; None where none is wanted.

    `role` is what the process is (`jobs.train`, `replica`, `actor`), `instance` which of several. Raises UserError where
    traces are wanted and cannot be sent as the environment says, or at all, for want of the extra.
    """
    wanted = _wanted()
    if wanted is None:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise UserError(
            f"${wanted} asks for traces, and what sends them is not installed ({error.name} is missing): "
            "pip install 'evertrue[traces]', on every node, or unset it"
        ) from None
    _check_headers()
    _relay()
    about: dict[str, str | int] = {"service.name": service, "host.name": platform.node(), "process.pid": os.getpid()}
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        about["service.version"] = importlib.metadata.version("evertrue")
    about |= {"evertrue.role": role} | ({} if instance is None else {"service.instance.id": instance})
    try:
        provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    except (ValueError, RuntimeError) as error:  # the SDK's words for settings of its own that it cannot take
        raise UserError(f"$OTEL_...: traces cannot be sent as these variables say: {error}") from None
    return Tracer(provider)


def open_or_warn(role: str, service: str, instance: str | None = None) -> Tracer | None:
    """Return as `open_tracer` does; what is wrong is a line in the log: a service goes on without traces."""
    try:
        return open_tracer(role, service, instance)
    except UserError as error:
        log.warning("there are no traces of this process: %s", error)
        return None


@contextlib.contextmanager
def job(role: str, service: str) -> Iterator[None]:
    """Let the block be one span, part of $TRACEPARENT where that is set. Raises UserError as `open_tracer` does."""
    tracer = open_tracer(role, service)
    if tracer is None:
        yield
        return
    try:
        with spans.within(tracer.begin(role, os.environ.get("TRACEPARENT"))):
            yield
    finally:
        tracer.close()


@contextlib.contextmanager
def worth_telling(tracer: Tracer | None, name: str) -> Iterator[None]:
    """Let the block be one span, where there is a tracer, and where something happened in it (`spans.happened`)."""
    if tracer is None:
        yield
        return
    span = tracer.begin(name)
    span.kept = False
    with spans.within(span):
        yield


def _wanted() -> str | None:
    """Return which variable asks for traces. Raises UserError for what we cannot do."""
    name = next((name for name in _ENDPOINTS if os.environ.get(name)), None)
    exporters = os.environ.get("OTEL_TRACES_EXPORTER") or "otlp"
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if name is None or disabled or exporters == "none":
        return None
    if exporters != "otlp":
        raise UserError(f"$OTEL_TRACES_EXPORTER: found {exporters!r}, allowed is otlp or none")
    for protocol in _PROTOCOLS:
        if (found := os.environ.get(protocol) or "http/protobuf") != "http/protobuf":
            raise UserError(f"${protocol}: found {found!r}, allowed is http/protobuf (a collector's port 4318)")
    try:
        address = urlsplit(os.environ[name])
        good = address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:
        good = False
    if not good:
        raise UserError(f"${name}: found no address of the form http://HOST:PORT or https://HOST:PORT")
    for endpoint in _ENDPOINTS:
        if "@" in os.environ.get(endpoint, ""):
            raise UserError(f"${endpoint} holds credentials, which others would see: they belong into ${_HEADERS[1]}")
    return name


def _check_headers() -> None:
    """Raise UserError for headers that cannot be sent, without a word of them: the SDK would log them instead."""
    name = next((name for name in _HEADERS if os.environ.get(name)), None)
    if name is None:
        return
    for number, header in enumerate(filter(None, re.split("[ \t]*,[ \t]*", os.environ[name])), 1):
        if not _HEADER.fullmatch(header) or not re.fullmatch("[ -~]*", unquote(header)):
            raise UserError(f"${name}: number {number} is not NAME=VALUE, percent-encoded, with a comma between two")


class _Relay(logging.Handler):
    """Says what OpenTelemetry has to say as a line of ours, and each kind of line once in a while."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._next: dict[str, float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Log a record, unless one of its kind was logged a moment ago."""
        now = self._clock()
        if now >= self._next.get(str(record.msg), now):
            self._next[str(record.msg)] = now + SILENCE
            log.log(record.levelno, "traces: %s", record.getMessage(), exc_info=record.exc_info)


def _relay() -> None:
    """Let OpenTelemetry log through `_Relay` alone: a collector that is away must not fill the log."""
    theirs = logging.getLogger("opentelemetry")
    theirs.propagate = False
    if not any(isinstance(handler, _Relay) for handler in theirs.handlers):
        theirs.addHandler(_Relay())
