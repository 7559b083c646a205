"""A span a batch, by OpenTelemetry, where its SDK is installed (the extra `tracing`) and `RATER_TRACING` asks for it.

A batch is what the rater does at once; a span a call would cost more than the call. The span links to the traces of its first
calls that bear one (`traceparent`), and each rated call bears its call's own on. Faust's own instrumentation
(`faust.contrib.opentelemetry`) hangs on streams and agents, which the engine stands in for.
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
    """Whether the extra `tracing` is there."""
    return importlib.util.find_spec("opentelemetry.sdk") is not None


@contextmanager
def traced(apps: Sequence[EngineApp]) -> Iterator[None]:
    """Export a span a batch of these apps until the end of the block; what is left is sent then."""
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
    """Makes a span of every batch it is told of."""
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
    """To the traces of the first records that have one."""
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
