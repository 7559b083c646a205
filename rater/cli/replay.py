"""`rater replay`: puts dead-lettered calls back to be rated after all."""

from __future__ import annotations

from collections import Counter

import click
import msgspec

from rater.accounts import RetryableCall, put_back, read_candidates
from rater.bootstrap import topics_of
from rater.cli.kafka_work import run_with_kafka
from rater.cli.options import bootstrap_option, json_option, prefix_option, settings_with
from rater.domain import moments
from rater.domain.rejection import RETRYABLE

_SHOWN_MAX = 100


@click.command(short_help="Put retryable dead letters back.")
@click.option("--go", is_flag=True, help="Put the calls back.  [default: only show them]")
@click.option("--org", "org_id", help="Only calls of this organization.")
@click.option("--code", "codes", type=click.Choice(sorted(RETRYABLE)), multiple=True, help="Only this code; may be repeated.")
@json_option
@bootstrap_option
@prefix_option
def replay(
    go: bool, org_id: str | None, codes: tuple[str, ...], as_json: bool, bootstrap: str | None, topic_prefix: str | None
) -> None:
    """Show the calls that could not be rated because an organization, a user or a rate was missing. With --go, put them back.

    Fix the cause first: a call that still can't be rated becomes a dead letter again. A call that has been rated since is a
    duplicate: it isn't charged twice.

    \b
    Examples:
      rater replay
      rater replay --code no_rate --org contoso --go
    """
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    topics = topics_of(settings)
    candidates = run_with_kafka(settings, read_candidates(settings.brokers, topics, org_id, codes))
    calls = candidates.calls
    for call in calls if as_json else calls[:_SHOWN_MAX]:
        click.echo(_as_json(call) if as_json else _as_text(call))
    if len(calls) > _SHOWN_MAX and not as_json:
        click.echo(f"and {len(calls) - _SHOWN_MAX} more")
    counts = Counter(call.code for call in calls)
    codes_text = "".join(f", {count} {code}" for code, count in sorted(counts.items()))
    others = f"{candidates.not_retryable} letters are not retryable"
    click.echo(f"{len(calls)} calls can be put back{codes_text}; {others}", err=as_json)
    if go:
        work = put_back(settings.brokers, topics, calls)
        count = run_with_kafka(settings, work, lambda: "; some calls may be back already: run it again, which is safe")
        click.echo(f"{count} calls put back", err=as_json)
    elif calls:
        click.echo("nothing was put back; use --go to do so", err=as_json)


def _as_text(call: RetryableCall) -> str:
    at = moments.to_text(call.at_ms * 1000)
    origin = f"partition {call.partition} offset {call.offset}"
    return f"{at}  {call.org_id}  {call.cdr_id}  {call.code}: {call.message}  ({origin})"


def _as_json(call: RetryableCall) -> str:
    fields = {name: getattr(call, name) for name in ("org_id", "cdr_id", "code", "message", "partition", "offset")}
    return msgspec.json.encode(fields | {"at": moments.to_text(call.at_ms * 1000)}).decode()
