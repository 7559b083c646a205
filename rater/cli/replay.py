"""`rater replay`: calls that could not be rated, back to where they are rated."""

from __future__ import annotations

from collections import Counter

import click
import msgspec

from rater.accounts.put_back import Letter, put_back, read_letters
from rater.bootstrap import topics_of
from rater.cli.administering import json_option, with_kafka
from rater.cli.options import bootstrap_option, prefix_option, settings_with
from rater.domain import moments
from rater.domain.rejection import RETRYABLE

_SHOWN_MAX = 100


@click.command(short_help="Put retryable dead letters back.")
@click.option("--go", is_flag=True, help="Put them back.  [default: only show them]")
@click.option("--org", "org_id", help="Only this organization's.")
@click.option("--code", "codes", type=click.Choice(sorted(RETRYABLE)), multiple=True, help="Only these; may be repeated.")
@json_option
@bootstrap_option
@prefix_option
def replay(
    go: bool, org_id: str | None, codes: tuple[str, ...], as_json: bool, bootstrap: str | None, topic_prefix: str | None
) -> None:
    """Show which calls could not be rated for want of an organization, a user or a rate, and why; with --go, put them back.

    Mend the cause first: a call that still can't be rated becomes a dead letter again. One that was rated meanwhile is known
    again, and nothing is charged twice.

    \b
    Examples:
      rater replay
      rater replay --code no_rate --org contoso --go
    """
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    topics = topics_of(settings)
    letters = with_kafka(settings, read_letters(settings.brokers, topics, org_id, codes))
    found = letters.retryable
    for letter in found if as_json else found[:_SHOWN_MAX]:
        click.echo(_as_json(letter) if as_json else _as_text(letter))
    if len(found) > _SHOWN_MAX and not as_json:
        click.echo(f"and {len(found) - _SHOWN_MAX} more")
    counts = Counter(letter.code for letter in found)
    why = "".join(f", {count} {code}" for code, count in sorted(counts.items()))
    click.echo(f"{len(found)} calls can be put back{why}; {letters.not_retryable} letters are not retryable", err=as_json)
    if go:
        unsure = "; some may be put back already: run it again, that does no harm"
        done = with_kafka(settings, put_back(settings.brokers, topics, found), unsure)
        click.echo(f"{done} calls put back", err=as_json)
    elif found:
        click.echo("nothing was put back; --go does that", err=as_json)


def _as_text(letter: Letter) -> str:
    at = moments.to_text(letter.at_ms * 1000)
    place = f"partition {letter.partition} offset {letter.offset}"
    return f"{at}  {letter.org_id}  {letter.cdr_id}  {letter.code}: {letter.message}  ({place})"


def _as_json(letter: Letter) -> str:
    said = {name: getattr(letter, name) for name in ("org_id", "cdr_id", "code", "message", "partition", "offset")}
    return msgspec.json.encode(said | {"at": moments.to_text(letter.at_ms * 1000)}).decode()
