"""A real receiver of OTLP over gRPC, which keeps what it gets."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.proto.common.v1.common_pb2 import KeyValue

    from support.certificates import Certificate

HEADERS = ("authorization", "x-team")
PATIENCE = 60.0  # seconds after which a test has failed


@dataclass(frozen=True)
class Seen:
    """A span."""

    service: str
    name: str
    trace: str
    span: str
    parent: str
    began: int
    """Nanoseconds of Unix time."""
    ended: int
    links: tuple[tuple[str, str], ...]
    """To a trace's span each."""
    told: dict[str, str] = field(hash=False)
    error: str = ""


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Takes what parts export."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.metadata: set[tuple[str, tuple[tuple[str, str], ...]]] = set()
        """A service, and the headers with which it came that are none of gRPC's own."""
        self.spans: list[Seen] = []
        self._changed = threading.Condition()

    def Export(  # noqa: N802 - gRPC's name
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        with self._changed:
            for resource in request.resource_spans:
                service = _told(resource.resource.attributes)["service.name"]
                came = {key: str(value) for key, value in context.invocation_metadata() or ()}
                self.metadata.add((service, tuple((key, came[key]) for key in HEADERS if key in came)))
                for scope in resource.scope_spans:
                    self.spans += [_seen(service, span) for span in scope.spans]
            self._changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def until(self, enough: Callable[[list[Seen]], bool]) -> list[Seen]:
        """The spans, once they are ``enough``."""
        with self._changed:
            assert self._changed.wait_for(lambda: enough(self.spans), PATIENCE), self.spans
            return list(self.spans)

    def trace(self, trace: str, *names: str) -> dict[str, Seen]:
        """The spans of a trace by their names, once all of ``names`` are there."""

        def found(spans: list[Seen]) -> dict[str, Seen]:
            return {span.name: span for span in spans if span.trace == trace}

        return found(self.until(lambda spans: found(spans).keys() >= set(names)))

    def span(self, trace: str, span: str) -> Seen:
        """One span, once it is there."""

        def found(spans: list[Seen]) -> list[Seen]:
            return [each for each in spans if (each.trace, each.span) == (trace, span)]

        (one,) = found(self.until(lambda spans: bool(found(spans))))
        return one


@contextlib.contextmanager
def collecting(port: int = 0, certificate: Certificate | None = None) -> Iterator[Collector]:
    """A receiver on the loopback; with a ``certificate``, through TLS."""
    server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    made = Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(made, server)
    if certificate is None:
        made.endpoint = f"http://127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    else:
        credentials = grpc.ssl_server_credentials([certificate])
        made.endpoint = f"https://localhost:{server.add_secure_port(f'127.0.0.1:{port}', credentials)}"
    server.start()
    try:
        yield made
    finally:
        server.stop(None).wait()


def _seen(service: str, span: trace_service_pb2.trace__pb2.Span) -> Seen:  # type: ignore[name-defined]
    return Seen(
        service,
        span.name,
        span.trace_id.hex(),
        span.span_id.hex(),
        span.parent_span_id.hex(),
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
        _told(span.attributes),
        span.status.message if span.status.code == 2 else "",
    )


def _told(attributes: list[KeyValue]) -> dict[str, str]:
    return {each.key: str(getattr(each.value, each.value.WhichOneof("value") or "string_value")) for each in attributes}
