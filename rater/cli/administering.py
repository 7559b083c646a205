"""What the administrator's commands share: options, the way an act is carried out, and how what came of it is told.

Exit code 0: done, or done before under the same command_id. 1: refused, or nothing came of it in time. 2: the command line is
faulty, and nothing was published.
"""

from __future__ import annotations

import asyncio
import functools
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

import click
import msgspec
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rater.accounts.administration import Administration, Command, Outcome, command, new_command_id
from rater.bootstrap import topics_of
from rater.catalog import Loaded
from rater.cli.options import bootstrap_option, prefix_option, settings_with
from rater.domain.rejection import Rejected
from rater.kafka.connection import explained, refusal
from rater.kafka.topic_admin import TopicAdminError
from rater.settings import Settings

_SHOWN_MAX = 100
_T = TypeVar("_T")

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, one line a message, for programs to read.")
org_argument = click.argument("org", metavar="ORG")


def acting(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of an act; it is called with `act=Act(…)` in their stead."""

    @functools.wraps(function)
    def wrapped(
        *args: Any,
        bootstrap: str | None,
        topic_prefix: str | None,
        command_id: str | None,
        timeout_s: float,
        as_json: bool,
        **given: Any,
    ) -> None:
        settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
        function(*args, act=Act(settings, command_id or new_command_id(), timeout_s, as_json), **given)

    options = (
        click.option("--command-id", help="Repeat a command safely, under the id it had.  [default: a new one]"),
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(0.1, 3600),
            default=30.0,
            show_default=True,
            help="How many seconds to wait when nothing comes of it.",
        ),
        json_option,
        bootstrap_option,
        prefix_option,
    )
    decorated: Callable[..., None] = wrapped
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def with_kafka(settings: Settings, work: Coroutine[Any, Any, _T], unsure: str = "") -> _T:
    """Run it; what is wrong with Kafka or its topics is a failure of the command, with what may be `unsure` then."""
    try:
        return asyncio.run(work)
    except TopicAdminError as error:
        raise click.ClickException(str(error)) from error
    except (KafkaError, OSError) as error:
        refused = asyncio.run(refusal(settings.brokers))
        raise click.ClickException(f"Kafka at {settings.bootstrap}: {explained(refused or error)}{unsure}") from error
    except KeyboardInterrupt:
        raise click.ClickException(f"interrupted{unsure}") from None


class Act:
    """One act of an administrator: what is to be done, under which id, and how it is told."""

    def __init__(self, settings: Settings, command_id: str, timeout_s: float, as_json: bool) -> None:
        self.command_id = command_id
        self._settings = settings
        self._timeout_s = timeout_s
        self._as_json = as_json

    def one(self, type_: str, org_id: str, **fields: Any) -> None:
        """Carry out a single command. Raises UsageError before, ClickException after it was published."""
        try:
            made = command(type_, org_id, self.command_id, **fields)
        except Rejected as rejected:
            raise click.UsageError(rejected.message) from rejected
        outcomes, administration = self._carry_out(org_id, [made], lambda _: None)
        (outcome,) = outcomes
        if self._as_json:
            click.echo(_line(outcome))
        if outcome.result == "pending":
            raise click.ClickException(self._pending(administration))
        if not outcome.ok:
            before = "when it was given before, " if outcome.result == "repeated" else ""
            raise click.ClickException(f"{before}refused: {outcome.code}: {outcome.message}")
        if not self._as_json:
            click.echo(told(outcome))

    def many(self, org_id: str, loaded: Loaded, what: str) -> None:
        """Carry out the commands of a file, or none if it has a fault. `what` was done, as in "users set"."""
        if loaded.faults:
            _list([str(fault) for fault in loaded.faults])
            raise click.ClickException(f"faults: {len(loaded.faults)}; nothing was published")
        commands = [made for _, made in loaded.rows]
        with _progress() as progress:
            task = progress.add_task(what, total=len(commands))
            outcomes, administration = self._carry_out(org_id, commands, lambda _: progress.advance(task))
        if self._as_json:
            for outcome in outcomes:
                click.echo(_line(outcome))
        refused = [outcome for outcome in outcomes if outcome.code is not None]
        pending = [outcome for outcome in outcomes if outcome.result == "pending"]
        repeated = sum(outcome.ok and outcome.result == "repeated" for outcome in outcomes)
        _list([f"{outcome.command['user_id']}: {outcome.code}: {outcome.message}" for outcome in refused])
        done = sum(outcome.result == "done" for outcome in outcomes)
        counts = f"{org_id}: {done} {what}"
        counts += f", {repeated} already done before" if repeated else ""
        counts += f", {len(refused)} refused" if refused else ""
        click.echo(counts, err=self._as_json)
        if pending:
            raise click.ClickException(f"of {len(pending)} nothing is known: {self._pending(administration)}")
        if refused:
            raise click.ClickException(f"refused: {len(refused)}")

    def _carry_out(
        self, org_id: str, commands: Sequence[Command], tell: Callable[[Outcome], None]
    ) -> tuple[list[Outcome], Administration]:
        settings = self._settings
        administration = Administration(settings.brokers, topics_of(settings), settings.app_id, org_id, self._timeout_s)
        unsure = f"; whether it was published is not certain: repeat it with --command-id {self.command_id}, that is safe"
        return with_kafka(settings, administration.carry_out(commands, tell), unsure), administration

    def _pending(self, administration: Administration) -> str:
        """Nothing came of it in time: what is known, and what to do."""
        place = administration.place
        assert place is not None
        group = self._settings.app_id
        if place.committed is None:
            why = f"no worker of the group {group!r} (RATER_APP_ID) has ever read it"
        else:
            behind = place.offset + 1 - place.committed
            why = f"the workers of the group {group!r} have {behind} commands of partition {place.partition} before them"
        return (
            f"published, but nothing came of it within {self._timeout_s:g} s: {why}. It takes effect when a worker runs; "
            f"to see what came of it, repeat it with --command-id {self.command_id}, which does nothing twice"
        )


def told(outcome: Outcome) -> str:
    """What came of a command, for people to read."""
    org_id = outcome.command["org_id"]
    if outcome.event is None:
        return f"{org_id}: already done before; the events no longer say what came of it"
    before = "already done before: " if outcome.result == "repeated" else ""
    return f"{org_id}: {before}{_TOLD[outcome.event['type']](outcome.event['data'])}"


def _organization(data: dict[str, Any]) -> str:
    match data.get("change"):
        case "number.put":
            return f"number {data['number']} set ({data['kind']}{', of ' + data['user_id'] if data['user_id'] else ''})"
        case "number.remove":
            return f"number {data['number']} removed"
        case _:
            return f"organization set: {data['name']}, {data['country']}, {data['currency']}, {data['time_zone']}"


def _auto_recharge(data: dict[str, Any]) -> str:
    if not data["enabled"]:
        return "auto-recharge is off"
    return (
        f"auto-recharge is on: below {data['trigger_amount']} it takes {data['recharge_amount']} from {data['payment_method']}"
    )


def _balance(data: dict[str, Any]) -> str:
    return f"balance {data['balance']} {data['currency']}"


_TOLD: dict[str, Callable[[dict[str, Any]], str]] = {
    "organization.changed": _organization,
    "user.changed": lambda data: f"user {data['user_id']} {'set' if data['change'] == 'put' else 'removed'}",
    "funds.added": lambda data: f"{data['amount']} {data['currency']} added, {_balance(data)}",
    "funds.adjusted": lambda data: f"adjusted by {data['amount']} {data['currency']}, {_balance(data)}",
    "auto_recharge.changed": _auto_recharge,
    "call.voided": lambda data: (
        f"call {data['cdr_id']} voided: {data['amount']} {data['currency']} and {data['included_minutes']} included minutes "
        f"given back, {_balance(data)}"
    ),
}


def _line(outcome: Outcome) -> str:
    said: dict[str, Any] = {"command_id": outcome.command["command_id"], "type": outcome.command["type"]}
    said |= {"org_id": outcome.command["org_id"], "result": outcome.result, "event": outcome.event}
    if outcome.code is not None:
        said |= {"code": outcome.code, "message": outcome.message}
    return msgspec.json.encode(said).decode()


def _list(lines: Sequence[str]) -> None:
    for line in lines[:_SHOWN_MAX]:
        click.echo(line, err=True)
    if len(lines) > _SHOWN_MAX:
        click.echo(f"and {len(lines) - _SHOWN_MAX} more", err=True)


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True)
