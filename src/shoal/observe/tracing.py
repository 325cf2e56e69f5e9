"""Spans of what a part does with a call, for an OpenTelemetry collector (https://opentelemetry.io/docs/specs/otel/trace).

The router decides once which calls are traced; parts behind it read that in the call's ``traceparent``
(https://www.w3.org/TR/trace-context/). Spans are sent in the background, from a queue of a bounded length: what finds
no room is dropped, and no call waits for a collector, or fails without one.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from time import monotonic_ns, time_ns
from typing import TYPE_CHECKING, Any, Final, Self

from shoal.errors import Code, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import TypeAlias

    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider

    Told: TypeAlias = Mapping[str, str | int | float]

MAX_QUEUED_SPANS: Final = 8192
"""Some 10 MB. More are dropped."""
_EVERY_MILLISECONDS: Final = 1000
_EXPORT_SECONDS: Final = 2.0
"""How long a collector has to take what it is sent at once; so much later, at most, a part stops."""
_LENGTH: Final = 55
_NOTHING: Final[Told] = {}
_ODD: Final = frozenset("13579bdf")


def is_sampled(traceparent: str) -> bool:
    """Whether ``traceparent``, a valid one or empty, is of a call that is traced."""
    return traceparent[_LENGTH - 1 : _LENGTH] in _ODD


class Tracing:
    """Begins spans. Times are seconds of ``time.monotonic``."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("shoal")

    @classmethod
    def to(cls, endpoint: str, component: str, instance: str) -> Self:
        """Spans go to the collector at ``endpoint``, ``http(s)://HOST:PORT``, by OTLP over gRPC.

        The exporter reads headers and authorities from OpenTelemetry's own variables.

        Args:
            endpoint: Nobody need be there, now or later.
            component: What part this is, such as ``worker``.
            instance: Names this process.

        Raises:
            ConfigurationError: the packages for it are missing.
        """
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.sdk.trace.sampling import ALWAYS_ON
        except ImportError as error:
            raise ConfigurationError(
                f"observe.tracing: {error.name} isn't installed; pip install 'shoal[tracing]' brings it"
            ) from None
        logging.getLogger("opentelemetry").setLevel(logging.ERROR)  # not a line for each attempt
        resource = Resource.create({"service.name": f"shoal-{component}", "service.instance.id": instance})
        provider = TracerProvider(ALWAYS_ON, resource, shutdown_on_exit=False)
        exporter = OTLPSpanExporter(endpoint, insecure=endpoint.startswith("http://"), timeout=_EXPORT_SECONDS)
        provider.add_span_processor(BatchSpanProcessor(exporter, MAX_QUEUED_SPANS, _EVERY_MILLISECONDS))
        return cls(provider)

    def begin(self, name: str, traceparent: str, began: float) -> Span:
        """A span below the one that ``traceparent`` names, of another process."""
        from opentelemetry import trace

        context = trace.SpanContext(
            int(traceparent[3:35], 16), int(traceparent[36:52], 16), is_remote=True, trace_flags=trace.TraceFlags(1)
        )
        above = trace.set_span_in_context(trace.NonRecordingSpan(context))
        return self._begin(name, above, began, kind=trace.SpanKind.SERVER)

    def begin_linked(self, name: str, spans: Sequence[Span], began: float) -> Span:
        """A span, in a trace of its own, of what is done for all of ``spans`` together."""
        from opentelemetry.context import Context

        return self._begin(name, Context(), began, links=[span.link for span in spans])

    def _begin(self, name: str, above: Any, began: float, **fields: Any) -> Span:  # the SDK's own
        ahead = time_ns() - monotonic_ns()
        span = self._tracer.start_span(name, above, start_time=ahead + _nanoseconds(began), **fields)
        return Span(self, self._tracer, span, ahead)

    async def close(self) -> None:
        """Sends what is left, as far as the collector takes it by then."""
        sending = threading.Thread(target=self._provider.shutdown, daemon=True)  # it would go on for half a minute
        sending.start()
        await asyncio.to_thread(sending.join, _EXPORT_SECONDS)


class Span:
    """One that has begun."""

    __slots__ = ("_ahead", "_span", "_tracer", "tracing")

    def __init__(self, tracing: Tracing, tracer: trace.Tracer, span: trace.Span, ahead: int) -> None:
        """``ahead``: the clock that hosts share less this one's, in ns, the same for all that is told of the span."""
        self.tracing = tracing
        self._ahead = ahead
        self._tracer = tracer
        self._span = span

    @property
    def traceparent(self) -> str:
        """Goes on to whoever does a part of it."""
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"

    @property
    def link(self) -> trace.Link:
        """Leads to it from a span that isn't below it."""
        from opentelemetry import trace

        return trace.Link(self._span.get_span_context())

    def stage(self, name: str, began: float, ended: float, part_of: Span | None = None, told: Told = _NOTHING) -> None:
        """What was a part of it; ``part_of`` is what was done for others, too."""
        from opentelemetry import trace

        links = [part_of.link] if part_of is not None else None
        above = trace.set_span_in_context(self._span)
        span = self._tracer.start_span(
            name, above, start_time=self._ahead + _nanoseconds(began), links=links, attributes=_own(told)
        )
        span.end(self._ahead + _nanoseconds(max(began, ended)))

    def event(self, name: str, at: float, code: Code, text: str, told: Told) -> None:
        """Something that failed in it, while the whole went on."""
        status = _own({"status": f"{code.name}: {text}"}) | {"rpc.grpc.status_code": int(code)}
        self._span.add_event(name, _own(told) | status, self._ahead + _nanoseconds(at))

    def end(self, ended: float, code: Code, text: str, told: Told) -> None:
        """It is over; ``told`` is what else is known of it, under names of our own."""
        from opentelemetry.trace import StatusCode

        self._span.set_attributes(_own(told))
        if code is not Code.OK:
            self._span.set_attribute("rpc.grpc.status_code", int(code))
            self._span.set_status(StatusCode.ERROR, f"{code.name}: {text}")
        self._span.end(self._ahead + _nanoseconds(ended))


def _own(told: Told) -> dict[str, str | int | float]:
    """Attributes under names of our own; what is empty isn't told."""
    return {f"shoal.{name}": value for name, value in told.items() if value != ""}


def _nanoseconds(moment: float) -> int:
    return int(moment * 1e9)
