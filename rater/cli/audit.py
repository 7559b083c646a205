"""`rater audit`: checks that the books agree."""

from __future__ import annotations

import click

from rater.audit.cluster import audit_cluster
from rater.bootstrap import topics_of
from rater.cli.kafka_work import run_with_kafka
from rater.cli.options import bootstrap_option, echo_errors, prefix_option, settings_with
from rater.kafka.clients import BusyError


@click.command(short_help="Prove that ledger, rated calls, events and balances agree.")
@bootstrap_option
@prefix_option
def audit(bootstrap: str | None, topic_prefix: str | None) -> None:
    """Read ledger, rated calls, events and states. Prove that sums, counts and balances agree, or print each discrepancy."""
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    try:
        report = run_with_kafka(settings, audit_cluster(settings.brokers, topics_of(settings)))
    except BusyError as error:
        raise click.ClickException(f"{error}; audit again when traffic pauses, or stop the workers first") from error
    accounts = report.books.accounts.values()
    if not accounts:
        raise click.ClickException("nothing to audit: there is no ledger, rated call, event or state")
    echo_errors(report.discrepancies)
    click.echo(
        f"{len(accounts)} organizations, {sum(len(a.rated) for a in accounts)} rated calls, "
        f"{sum(len(a.ledger) for a in accounts)} transactions, {sum(len(a.events) for a in accounts)} events"
    )
    if report.faulty_catalog_rows:  # the log has named each of them
        click.echo(f"{report.faulty_catalog_rows} rows of the catalog are faulty and left out", err=True)
    if report.discrepancies:
        raise click.ClickException(f"discrepancies: {len(report.discrepancies)}")
    click.echo("everything agrees")
