"""Faulty catalog rows: left out by every worker, dead-lettered once."""

from typing import Any

import msgspec
import pytest

from rater.agents import catalog
from rater.agents.catalog import CatalogFeed, FaultReport
from rater.domain.core import Core
from rater.domain.dead_letters import reason_of
from rater.kafka.log import LogRecord
from rater.simulation import MemoryRows
from tests.builders import START_MS, TOPICS

RATE = {
    "rate_id": "r44",
    "service": "outbound",
    "prefix": "44",
    "destination": "GB",
    "country": "GB",
    "currency": "USD",
    "rate_per_minute": "0.01",
    "effective_from": "2025-01-01T00:00:00Z",
}


class Reporter:
    """One life of partition 0's task: its rows outlive it."""

    def __init__(self, feed: CatalogFeed, rows: MemoryRows) -> None:
        self.letters: list[LogRecord] = []
        core = Core(TOPICS, feed.catalog, rows, self._take)
        self._report = FaultReport(feed, core, rows)

    def write(self) -> list[LogRecord]:
        self.letters.clear()
        while self._report.is_due():
            self._report.write()
        return self.letters.copy()

    def _take(self, topic: str, key: bytes | None, value: bytes | None, timestamp_ms: int, headers: Any = ()) -> None:
        self.letters.append(LogRecord(topic, timestamp_ms, key, value, headers))


def row(offset: int, value: Any, rate_id: str = "r44") -> LogRecord:
    raw = value if isinstance(value, bytes | None) else msgspec.json.encode(value)
    return LogRecord(TOPICS.rate, START_MS + offset, rate_id.encode(), raw, [("by", b"hand")], offset)


def feed_of(*records: LogRecord) -> CatalogFeed:
    feed = CatalogFeed(TOPICS)
    for record in records:
        feed.take(record)
    return feed


def test_a_faulty_row_takes_the_former_row_of_its_key_with_it() -> None:
    feed = feed_of(row(0, RATE), row(1, RATE | {"rate_per_minute": 0.01}))
    assert len(feed.catalog.deck) == 0
    assert [fault.rejected.code for fault in feed.faulty.values()] == ["invalid_field"]


@pytest.mark.parametrize("mended", [RATE, None])
def test_a_good_row_or_a_removal_mends_a_faulty_one(mended: Any) -> None:
    feed = feed_of(row(0, b"{"), row(1, mended))
    assert feed.faulty == {}
    assert len(feed.catalog.deck) == (mended is not None)
    assert Reporter(feed, MemoryRows()).write() == []


def test_a_faulty_row_is_dead_lettered_as_it_came() -> None:
    (letter,) = Reporter(feed_of(row(7, b"{")), MemoryRows()).write()
    assert (letter.topic, letter.key, letter.value) == (TOPICS.dead_letter, b"r44", b"{")
    assert dict(letter.headers)["by"] == b"hand"
    reason = reason_of(letter.headers)
    assert (reason.topic, reason.offset) == (TOPICS.rate, 7)
    assert (reason.code, reason.retryable) == ("malformed_json", False)


def test_faults_are_reported_once_over_all_lives_of_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "FAULTS_MAX", 2)
    rows = MemoryRows()
    faults = [row(offset, b"{", f"r{offset}") for offset in range(5)]
    feed = feed_of(*faults)
    assert [letter.key for letter in Reporter(feed, rows).write()] == [fault.key for fault in faults]
    later = row(9, b"}", "r9")
    feed.take(later)
    assert [letter.key for letter in Reporter(feed, rows).write()] == [b"r9"]
    assert Reporter(feed_of(*faults, later), rows).write() == []
