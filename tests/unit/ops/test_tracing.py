"""One span per batch: its attributes, its links, and that it shows a failed batch as an error."""

import pytest
from click.testing import CliRunner
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from rater.cli.worker import worker
from rater.engine.stats import BatchObserver
from rater.kafka.log import LogRecord
from rater.ops import tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01".encode()


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def observe(exported: InMemorySpanExporter) -> BatchObserver:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exported))
    return tracing.spans_of(provider.get_tracer("tests"), "rating")


def call(*headers: tuple[str, bytes]) -> LogRecord:
    return LogRecord("telephony.cdr.v1", 1, b"contoso", b"{}", headers)


def the_span(exported: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exported.get_finished_spans()
    return span


def test_a_batch_is_a_span_as_long_as_its_stages(exported: InMemorySpanExporter, observe: BatchObserver) -> None:
    observe(3, [call(), call()], 1_000_000_000, (0.25, 0.5, 0.125, 0.125), None)
    span = the_span(exported)
    assert span.name == "rating batch"
    assert (span.start_time, span.end_time) == (1_000_000_000, 2_000_000_000)
    assert span.attributes is not None
    assert span.attributes["messaging.batch.message_count"] == 2
    assert span.attributes["messaging.destination.partition.id"] == "3"
    assert span.attributes["rater.send_s"] == 0.5


def test_a_span_links_to_the_traces_of_its_calls(exported: InMemorySpanExporter, observe: BatchObserver) -> None:
    observe(0, [call(), call(("traceparent", PARENT)), call(("traceparent", b"no trace"))], 1, (0, 0, 0, 0), None)
    (link,) = the_span(exported).links
    assert f"{link.context.trace_id:032x}" == TRACE


def test_the_number_of_links_is_bounded(exported: InMemorySpanExporter, observe: BatchObserver) -> None:
    observe(0, [call(("traceparent", PARENT))] * 1000, 1, (0, 0, 0, 0), None)
    assert len(the_span(exported).links) == tracing.LINKS_MAX


def test_a_failed_batch_is_an_error(exported: InMemorySpanExporter, observe: BatchObserver) -> None:
    observe(0, [call()], 1, (), TimeoutError("no broker for +493012345678"))
    span = the_span(exported)
    assert "+493012345678" not in str(span.to_json())
    assert span.status.status_code is StatusCode.ERROR
    assert span.events[0].name == "exception"


def test_tracing_without_its_packages_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracing, "is_installed", lambda: False)
    ran = CliRunner().invoke(worker, ["--agents", "rating"], env={"RATER_TRACING": "true"})
    assert ran.exit_code == 2
    assert "call-rater[tracing]" in ran.output
