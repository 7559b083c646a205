"""The catalog as every worker has it, and what becomes of its faulty rows.

Every worker follows the plan and rate topics whole, so a faulty row is found by each of them. It is logged by each and left
out by each; and the task of partition 0 puts it into the dead-letter topic, once over all workers and restarts: up to which
offset that has been done is a row of its state, written in the same transaction.

A faulty row takes the former row of its key with it. Kafka keeps only the latest record of a key, so a worker that starts
later never sees the former one, and all workers must price alike. A row that was mended before its fault was reported is not.
"""

import logging
from typing import NamedTuple

from rater.domain.catalog import Catalog
from rater.domain.core import Core
from rater.domain.rejection import Rejected
from rater.engine.api import Metric, Record, State
from rater.kafka.topics import Topics

log = logging.getLogger(__name__)

FAULTS_MAX = 500  # a transaction: it stays small, however many there are


class Fault(NamedTuple):
    """A row that can't be used, and why."""

    record: Record
    rejected: Rejected


class CatalogFeed:
    """A catalog as the plan and rate topics have it. `faulty`: what stands there now and is left out, by topic and key."""

    def __init__(self, topics: Topics) -> None:
        self.catalog = Catalog()
        self.faulty: dict[tuple[str, bytes | None], Fault] = {}
        self.faults_seen = 0
        self._plan = topics.plan

    def gauges(self) -> dict[Metric, float]:
        """`catalog_rows` by kind, and `catalog_faulty_rows`."""
        return {
            ("catalog_rows", "plan"): len(self.catalog.plans),
            ("catalog_rows", "rate"): len(self.catalog.deck),
            ("catalog_faulty_rows",): len(self.faulty),
        }

    def take(self, record: Record) -> None:
        """A record of a catalog topic."""
        place = (record.topic, record.key)
        self.faulty.pop(place, None)
        put = self.catalog.put_plan if record.topic == self._plan else self.catalog.put_rate
        try:
            put(record.key, record.value)
        except Rejected as rejected:
            self.faulty[place] = Fault(record, rejected)
            self.faults_seen += 1
            log.error(
                "catalog row left out: %s[%d] offset %d key %r: %s",
                record.topic, record.partition, record.offset, (record.key or b"")[:200], rejected,
            )  # fmt: skip


class FaultReport:
    """Dead letters of the catalog's faulty rows. `is_due` says whether there may be some to write, `write` writes them."""

    def __init__(self, feed: CatalogFeed, core: Core, state: State) -> None:
        self._feed = feed
        self._core = core
        self._state = state
        self._faults_done = 0

    def is_due(self) -> bool:
        """Whether the feed has come across faults since the last were written."""
        return self._feed.faults_seen > self._faults_done

    def write(self) -> None:
        """Dead-letter what has not been, as much of it as one transaction should hold."""
        seen = self._feed.faults_seen
        faults = sorted(self._feed.faulty.values(), key=lambda fault: (fault.record.topic, fault.record.offset))
        written = 0
        for record, rejected in faults:
            mark = f"f{record.topic}:{record.partition}".encode()
            if record.offset < int(self._state.get(mark) or 0):
                continue
            if written == FAULTS_MAX:
                return
            self._core.dead_letter(record, rejected)
            self._state.put(mark, b"%d" % (record.offset + 1))
            written += 1
        self._faults_done = seen
