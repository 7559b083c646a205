"""A stream of calls is published under the organizations' keys; lines that are not calls are reported and left out."""

import io

import msgspec
import pytest

from rater.domain.rejection import Rejected
from rater.kafka.call_publisher import CallPublisher
from rater.kafka.topic_admin import TopicAdminError
from tests.fake_kafka import FakeKafka

TOPIC = "cdr"


class Reports:
    """Collects what a publisher reports."""

    def __init__(self) -> None:
        self.rejected: list[tuple[int, str]] = []
        self.progress: list[tuple[int, int]] = []

    def on_rejected(self, line_number: int, rejected: Rejected) -> None:
        self.rejected.append((line_number, rejected.code))

    def on_progress(self, read_bytes: int, acknowledged: int) -> None:
        self.progress.append((read_bytes, acknowledged))


def call(cdr_id: str, org_id: str = "contoso") -> bytes:
    cdr = {"cdr_id": cdr_id, "org_id": org_id, "user_id": "ann", "call_type": "user_out", "callee": "+14255550100"}
    return msgspec.json.encode(cdr | {"answered_at": "2026-09-20T12:00:00Z", "duration_ms": 60_000})


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> FakeKafka:
    return FakeKafka.installed(monkeypatch, {TOPIC: 1})


async def publish(*lines: bytes) -> tuple[CallPublisher, Reports]:
    reports = Reports()
    publisher = CallPublisher(io.BytesIO(b"".join(line + b"\n" for line in lines)), reports.on_rejected, reports.on_progress)
    await publisher.run("broker", TOPIC)
    return publisher, reports


async def test_each_call_is_published_under_its_organizations_key(kafka: FakeKafka) -> None:
    publisher, _ = await publish(call("a"), call("b", "other"))
    assert [(record.key, record.value) for record in kafka.published(TOPIC)] == [
        (b"contoso", call("a")),
        (b"other", call("b", "other")),
    ]
    assert (publisher.acknowledged, publisher.rejected) == (2, 0)


async def test_a_line_that_is_not_a_call_is_reported_and_left_out(kafka: FakeKafka) -> None:
    publisher, reports = await publish(call("a"), b"{}", call("b"), b"nonsense")
    assert reports.rejected == [(2, "invalid_field"), (4, "malformed_json")]
    assert len(kafka.published(TOPIC)) == 2
    assert (publisher.acknowledged, publisher.rejected) == (2, 2)


async def test_blank_lines_are_skipped(kafka: FakeKafka) -> None:
    _, reports = await publish(b"", call("a"), b"  ")
    assert (len(kafka.published(TOPIC)), reports.rejected) == (1, [])


async def test_at_the_end_all_bytes_are_reported_as_read(kafka: FakeKafka) -> None:
    lines = (call("a"), b"{}", call("b"))
    _, reports = await publish(*lines)
    assert reports.progress[-1] == (sum(len(line) + 1 for line in lines), 2)


async def test_its_counts_are_valid_after_kafka_fails(kafka: FakeKafka) -> None:
    reports = Reports()
    publisher = CallPublisher(io.BytesIO(b"{}\n" + call("a") + b"\n"), reports.on_rejected, reports.on_progress)

    def fail(_: object) -> None:
        raise ConnectionError("no broker")

    kafka.on_publish = fail
    with pytest.raises(ConnectionError):
        await publisher.run("broker", TOPIC)
    assert (publisher.acknowledged, publisher.rejected) == (0, 1)


async def test_a_missing_topic_is_named(kafka: FakeKafka) -> None:
    kafka.topics = {}
    with pytest.raises(TopicAdminError, match=f"there is no topic {TOPIC}"):
        await publish(call("a"))
