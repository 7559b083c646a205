"""`rater audit`: do the books agree?"""

from __future__ import annotations

import asyncio

import click
from aiokafka.errors import KafkaError

from rater.agents.catalog import CatalogFeed
from rater.audit import Books
from rater.audit import audit as audit_books
from rater.bootstrap import topics_of
from rater.cli.options import bootstrap_option, prefix_option, settings_with
from rater.kafka.clients import BusyError, read_all
from rater.kafka.topic_admin import TopicAdminError

_FINDINGS_SHOWN_MAX = 100


@click.command(short_help="Prove that ledger, rated calls, events and balances agree.")
@bootstrap_option
@prefix_option
def audit(bootstrap: str | None, topic_prefix: str | None) -> None:
    """Read ledger, rated calls, events and states, and prove that sums, counts and balances agree, or name what doesn't."""
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    topics = topics_of(settings)
    read = [topics.rated, topics.ledger, topics.event, topics.state]
    feed = CatalogFeed(topics)
    try:
        records, truncated = asyncio.run(read_all(settings.brokers, read))
        for record in asyncio.run(read_all(settings.brokers, [topics.plan, topics.rate]))[0]:
            feed.take(record)
    except TopicAdminError as error:
        raise click.ClickException(str(error)) from error
    except KafkaError as error:
        raise click.ClickException(f"Kafka at {settings.bootstrap}: {error}") from error
    except BusyError as error:
        raise click.ClickException(f"{error}; audit again when traffic pauses, or stop the workers for it") from error
    books = Books.of(topics, records)
    if not books.accounts:
        raise click.ClickException("there is nothing to audit: no ledger, no rated call, no event, no state")
    findings = audit_books(books, truncated=truncated)
    for finding in findings[:_FINDINGS_SHOWN_MAX]:
        click.echo(str(finding), err=True)
    accounts = books.accounts.values()
    click.echo(
        f"{len(accounts)} organizations, {sum(len(a.rated) for a in accounts)} rated calls, "
        f"{sum(len(a.ledger) for a in accounts)} transactions, {sum(len(a.events) for a in accounts)} events"
    )
    if feed.faulty:  # said one by one as they were read; the books agree all the same
        click.echo(f"{len(feed.faulty)} rows of the catalog are faulty and left out", err=True)
    if findings:
        raise click.ClickException(f"{len(findings)} things don't agree")
    click.echo("everything agrees")
