"""Audits the books of a cluster: reads its topics, and compares what they say."""

from dataclasses import dataclass

from rater.agents.catalog import CatalogFeed
from rater.audit.books import Books, Discrepancy, audit
from rater.kafka.clients import read_all
from rater.kafka.connection import Brokers
from rater.kafka.topics import Topics


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
    feed = CatalogFeed(topics)
    for record in (await read_all(brokers, [topics.plan, topics.rate]))[0]:
        feed.take(record)
    books = Books.of(topics, records)
    return AuditReport(books, audit(books, truncated=truncated), len(feed.faulty))
