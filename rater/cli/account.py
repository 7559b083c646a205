"""`rater account`: shows the state of an account."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click
import msgspec

from rater.accounts import account_overview
from rater.bootstrap import topics_of
from rater.cli.kafka_work import run_with_kafka
from rater.cli.options import bootstrap_option, json_option, org_argument, prefix_option, settings_with

#: Fields of an event's data that are not worth a place on its line.
_NOT_SHOWN = ("command_id", "currency", "org_id", "type")


@click.command(short_help="Show an account: balance, lots, pools, services.")
@org_argument
@click.option("--events", "events_max", type=click.IntRange(0, 10_000), default=0, help="Also show this many last events.")
@json_option
@bootstrap_option
@prefix_option
def account(org: str, events_max: int, as_json: bool, bootstrap: str | None, topic_prefix: str | None) -> None:
    """Show the status, balance, lots, pools, auto-recharge, services and last events of ORG.

    \b
    Examples:
      rater account contoso
      rater account contoso --events 20
      rater account contoso --json | jq .balance
    """
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    work = account_overview(settings.brokers, topics_of(settings), org, events_max)
    state, events = run_with_kafka(settings, work)
    if state is None:
        raise click.ClickException(f"there is no organization {org!r}, or no worker has created it yet")
    if as_json:
        click.echo(msgspec.json.encode(state | ({"events": events} if events_max else {})).decode())
        return
    for line in [*_account(state), *_lots(state), *_pools(state), *_events(events)]:
        click.echo(line)


def _account(state: dict[str, Any]) -> list[str]:
    services = [f"{name.replace('_', ' ')} {'on' if on else 'off'}" for name, on in state["services"].items()]
    return [
        state["org_id"],
        f"  status         {state['status']}",
        f"  balance        {state['balance']} {state['currency']}",
        f"  overdraft      {state['overdraft']} {state['currency']}",
        f"  services       {', '.join(services)}",
        f"  auto-recharge  {_auto_recharge(state['auto_recharge'])}",
        f"  updated        {state['updated_at']}, after {state['seq']} events",
    ]


def _auto_recharge(auto: dict[str, Any]) -> str:
    if "trigger_amount" not in auto:
        return "not set"
    text = f"{'on' if auto['enabled'] else 'off'}, {auto['state']}: below {auto['trigger_amount']} it takes "
    text += f"{auto['recharge_amount']} from {auto['payment_method']}"
    if auto["max_per_day"] is not None:
        text += f", at most {auto['max_per_day']} a day"
    if auto["max_amount_per_month"] is not None:
        text += f", at most {auto['max_amount_per_month']} a month"
    if "recharge_id" in auto:
        text += f"; {auto['recharge_id']} is under way"
    if "next_attempt_at" in auto:
        text += f", next try {auto['next_attempt_at']}"
    return text


def _lots(state: dict[str, Any]) -> list[str]:
    lots = [
        ("left", "of", "expires", "lot"),
        *((lot["remaining"], lot["amount"], lot["expires_at"], lot["lot_id"]) for lot in state["lots"]),
    ]
    return ["  no lots"] if len(lots) == 1 else _table("lots", lots)


def _pools(state: dict[str, Any]) -> list[str]:
    pools = [("month", "plan", "allowance", "minutes used", "of")]
    for pool in state["pools"]:
        used, total = str(pool["minutes_used"]), str(pool["minutes_total"])
        pools.append((pool["month"], pool["plan_id"], pool["allowance_id"], used, total))
    return ["  no pools"] if len(pools) == 1 else _table("pools", pools)


def _events(events: list[dict[str, Any]]) -> list[str]:
    lines = [f"  last {len(events)} events"] if events else []
    for event in events:
        shown = {name: value for name, value in event["data"].items() if name not in _NOT_SHOWN and value is not None}
        data = [f"{name}={value if isinstance(value, str) else _json(value)}" for name, value in shown.items()]
        lines.append(f"    {event['seq']:>5}  {event['at']}  {event['type']}  {' '.join(data)}".rstrip())
    return lines


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _table(title: str, rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = ["    " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [f"  {title}", *lines]
