"""One OpenTelemetry span per batch, if `RATER_TRACING` is on. It needs OpenTelemetry's SDK (the extra `tracing`).

A span per call would cost more than rating the call. A batch's span links to the traces of its first calls that have a
`traceparent` header, and each rated call has the same header as its call. Faust's own instrumentation
(`faust.contrib.opentelemetry`) isn't used: it reads the headers of Faust's events, and here an event is a whole batch.
"""

import importlib.util
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import rater
from rater.engine.api import Record
from rater.engine.app import EngineApp
from rater.engine.stats import STAGES, BatchObserver
from rater.ops.logging import mask

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Tracer

__all__ = ["is_installed", "spans_of", "traced"]

LINKS_MAX = 32
_NS = 1_000_000_000


def is_installed() -> bool:
    """Whether the extra `tracing` is installed."""
    return importlib.util.find_spec("opentelemetry.sdk") is not None


@contextmanager
def traced(apps: Sequence[EngineApp]) -> Iterator[None]:
    """Export a span for each batch of these apps. At the end of the block, spans that have not been sent are sent."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    os.environ.setdefault("OTEL_SERVICE_NAME", "rater")
    provider = TracerProvider(resource=Resource.create({"service.version": rater.__version__}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    tracer = provider.get_tracer("rater", rater.__version__)
    for app in apps:
        app.engine.stats.on_batch = spans_of(tracer, app.engine.groups[0].name)
    try:
        yield
    finally:
        provider.shutdown()


def spans_of(tracer: "Tracer", agent: str) -> BatchObserver:
    """An observer that makes a span of every batch. `agent` is the agent's name."""
    from opentelemetry.trace import SpanKind, Status, StatusCode

    def observe(
        partition: int, records: Sequence[Record], began_ns: int, stages_s: Sequence[float], error: BaseException | None
    ) -> None:
        attributes: dict[str, Any] = {
            "messaging.system": "kafka",
            "messaging.destination.partition.id": str(partition),
            "messaging.batch.message_count": len(records),
            "rater.agent": agent,
        }
        attributes |= {f"rater.{stage}_s": took_s for stage, took_s in zip(STAGES, stages_s, strict=False)}
        span = tracer.start_span(
            f"{agent} batch", kind=SpanKind.CONSUMER, attributes=attributes, links=_links(records), start_time=began_ns
        )
        if error is None:
            span.end(began_ns + round(sum(stages_s) * _NS))
        else:
            span.add_event("exception", {"exception.type": type(error).__name__, "exception.message": mask(str(error))})
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            span.end()

    return observe


def _links(records: Sequence[Record]) -> "list[Link]":
    """Links to the traces of the first records that have one, at most `LINKS_MAX`."""
    from opentelemetry.trace import Link, get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    links: list[Link] = []
    for record in records:
        for name, value in record.headers or ():
            if name == "traceparent" and value:
                context = propagator.extract({"traceparent": value.decode(errors="replace")})
                links.append(Link(get_current_span(context).get_span_context()))
        if len(links) >= LINKS_MAX:
            break
    return [link for link in links if link.context.is_valid][:LINKS_MAX]
