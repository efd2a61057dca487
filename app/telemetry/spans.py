"""What is this process at, and what is that a part of? Spans: pieces of work with a beginning, an end and a parent.

Nothing of OpenTelemetry is imported before `app.telemetry.traces` found that traces are wanted. No feature's value, key
or label is ever told to a span, nor an exception's message, which may hold one.
"""

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from opentelemetry import trace
    from opentelemetry.context import Context

Told: TypeAlias = Mapping[str, str | int | Sequence[str]]
"""Attributes, by OpenTelemetry's names, or by ours below `evertrue.`."""

_TRACEPARENT = re.compile(r"(?!ff|00.{54})[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?")
_CURRENT: ContextVar["Span | None"] = ContextVar("span", default=None)


class Span:
    """A piece of work under way. One that is not `kept` when it ends is never heard of."""

    def __init__(self, tracer: "trace.Tracer", span: "trace.Span") -> None:
        self._tracer = tracer
        self._span = span
        self.recorded = span.is_recording()  # else it is not sampled: it only lends its ids
        self.kept = True

    def note(self, told: Told) -> None:
        """Tell more of it."""
        self._span.set_attributes(told)

    def happened(self, what: str) -> None:
        """Tell of a moment of it, and keep it therefore."""
        self.kept = True
        self._span.add_event(what)

    def fail(self, kind: str) -> None:
        """Say that it failed; `kind` is of bounded variety."""
        from opentelemetry.trace import StatusCode

        self._span.set_attribute("error.type", kind)
        self._span.set_status(StatusCode.ERROR)

    def child(self, name: str, told: Told | None = None, began: int | None = None) -> "Span":
        """Begin a part of it, now, or at a moment (ns since 1970)."""
        from opentelemetry.trace import set_span_in_context

        context = set_span_in_context(self._span)
        return Span(self._tracer, self._tracer.start_span(name, context, attributes=told, start_time=began))

    def end(self, at: int | None = None) -> None:
        """End it, now, or at a moment (ns since 1970)."""
        if self.kept:
            self._span.end(at)

    def ids(self) -> tuple[str, str]:
        """Return the ids of trace and span, in hexadecimal."""
        context = self._span.get_span_context()
        return f"{context.trace_id:032x}", f"{context.span_id:016x}"

    def traceparent(self) -> str:
        """Return what makes another process's work a part of it (W3C Trace Context), and keep it therefore."""
        self.kept = True
        return "-".join(("00", *self.ids(), f"{self._span.get_span_context().trace_flags & 1:02x}"))


def begin(tracer: "trace.Tracer", name: str, parent: str | None, told: Told, *, server: bool = False) -> Span:
    """Begin a span that is a part of none here; `parent` is what another process said of itself (traceparent), if it did."""
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanKind

    kind = SpanKind.SERVER if server else SpanKind.INTERNAL
    return Span(tracer, tracer.start_span(name, _remote(parent) or Context(), kind, told))


def _remote(traceparent: str | None) -> "Context | None":
    from opentelemetry import trace

    match = _TRACEPARENT.fullmatch(traceparent or "")
    if match is None:
        return None
    number, span, flags = (int(part, 16) for part in match.groups())
    context = trace.SpanContext(number, span, is_remote=True, trace_flags=trace.TraceFlags(flags))
    return trace.set_span_in_context(trace.NonRecordingSpan(context)) if context.is_valid else None


@contextlib.contextmanager
def within(span: Span) -> Iterator[Span]:
    """Let the block's work be this span's, which ends with it; an exception says that it failed."""
    before = _CURRENT.set(span)
    try:
        yield span
    except Exception as error:
        span.fail(type(error).__name__)
        raise
    finally:
        _CURRENT.reset(before)
        span.end()


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Let the block be a part of the span that is under way, where there is one."""
    current = _CURRENT.get()
    if current is None:
        yield
        return
    with within(current.child(name)):
        yield


def recorded() -> Span | None:
    """Return the span under way, where anyone will hear of it."""
    current = _CURRENT.get()
    return current if current is not None and current.recorded else None


def note(told: Told) -> None:
    """Tell more of the span that is under way, where there is one."""
    if (current := _CURRENT.get()) is not None:
        current.note(told)


def happened(what: str) -> None:
    """Tell of a moment of the span that is under way, where there is one."""
    if (current := _CURRENT.get()) is not None:
        current.happened(what)


def traceparent() -> str | None:
    """Return what makes another process's work a part of the span that is under way, where there is one."""
    current = _CURRENT.get()
    return None if current is None else current.traceparent()


def facts() -> dict[str, str]:
    """Return what a line of the log says of the span that is under way."""
    current = _CURRENT.get()
    return {} if current is None else dict(zip(("trace.id", "span.id"), current.ids(), strict=True))
