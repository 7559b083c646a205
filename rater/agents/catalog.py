"""The catalog as every worker has it, and what becomes of its faulty rows.

Every worker reads the plan and rate topics whole, so every worker finds a faulty row, logs it and leaves it out. Only the task
of partition 0 writes it to the dead-letter topic, once for all workers and restarts: a row of its state, written in the same
transaction, marks the offset up to which that has been done. A row that is corrected before it was reported is not reported.
"""

import logging

from rater.domain.catalog import Catalog, CatalogIntake
from rater.domain.core import Core
from rater.domain.rows import catalog_fault_key
from rater.engine.api import Metric, Record, State
from rater.kafka.topics import Topics

log = logging.getLogger(__name__)

FAULTS_MAX = 500  # in one transaction, which must stay small however many faults there are


class CatalogFeed:
    """Keeps a catalog as the plan and rate topics have it. `faulty`: the rows left out now, by topic and key."""

    def __init__(self, topics: Topics) -> None:
        self._intake = CatalogIntake(topics.plan, topics.rate, Catalog())
        self.catalog = self._intake.catalog
        self.faulty = self._intake.faulty
        self.faults_seen = 0

    def gauges(self) -> dict[Metric, float]:
        """`catalog_rows` by kind, and `catalog_faulty_rows`."""
        return {
            ("catalog_rows", "plan"): len(self.catalog.plans),
            ("catalog_rows", "rate"): len(self.catalog.deck),
            ("catalog_faulty_rows",): len(self.faulty),
        }

    def take(self, record: Record) -> None:
        """Take a record of a catalog topic; log it if it is faulty."""
        rejected = self._intake.take(record)
        if rejected is not None:
            self.faults_seen += 1
            log.error(
                "catalog row left out: %s[%d] offset %d key %r: %s",
                record.topic, record.partition, record.offset, (record.key or b"")[:200], rejected,
            )  # fmt: skip


class FaultReport:
    """Writes the catalog's faulty rows to the dead-letter topic, each of them once."""

    def __init__(self, feed: CatalogFeed, core: Core, state: State) -> None:
        self._feed = feed
        self._core = core
        self._state = state
        self._faults_done = 0

    def is_due(self) -> bool:
        """Whether the feed has found faults since the last `write` that wrote everything."""
        return self._feed.faults_seen > self._faults_done

    def write(self) -> None:
        """Write the dead letters that are due, at most `FAULTS_MAX` of them."""
        seen = self._feed.faults_seen
        faults = sorted(self._feed.faulty.values(), key=lambda fault: (fault.record.topic, fault.record.offset))
        written = 0
        for record, rejected in faults:
            key = catalog_fault_key(record.topic, record.partition)
            if record.offset < int(self._state.get(key) or 0):
                continue
            if written == FAULTS_MAX:
                return
            self._core.dead_letter(record, rejected)
            self._state.put(key, b"%d" % (record.offset + 1))
            written += 1
        self._faults_done = seen
