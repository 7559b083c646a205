"""Audits the books of a cluster: reads its topics, and compares what they say."""

import logging
from dataclasses import dataclass

from rater.audit.books import Books, Discrepancy, audit
from rater.domain.catalog import Catalog, CatalogIntake
from rater.kafka.clients import read_all
from rater.kafka.connection import Brokers
from rater.kafka.topics import Topics

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What was audited and what doesn't agree. `faulty_catalog_rows`: rows of rates and plans that the workers leave out; the
    books can agree all the same."""

    books: Books
    discrepancies: list[Discrepancy]
    faulty_catalog_rows: int


async def audit_cluster(brokers: Brokers, topics: Topics) -> AuditReport:
    """Read ledger, rated calls, events and states, and audit them. Logs each faulty catalog row.

    Raises BusyError if writing doesn't pause, TopicAdminError if a topic is missing, KafkaError.
    """
    records, truncated = await read_all(brokers, [topics.rated, topics.ledger, topics.event, topics.state])
    intake = CatalogIntake(topics.plan, topics.rate, Catalog())
    for record in (await read_all(brokers, [topics.plan, topics.rate]))[0]:
        rejected = intake.take(record)
        if rejected is not None:
            log.error("catalog row left out: %s key %r: %s", record.topic, (record.key or b"")[:200], rejected)
    books = Books.of(topics, records)
    return AuditReport(books, audit(books, truncated=truncated), len(intake.faulty))
