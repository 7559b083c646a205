"""What the operator's commands share: their options, how a command is carried out, and how its outcome is printed.

Exit code 0: done now, or done before under the same command_id. 1: refused, or no outcome in time. 2: the command line is
faulty, and nothing was published.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from rater.accounts import Administration, CommandOutcome, OutcomeSummary, describe, new_command_id
from rater.bootstrap import topics_of
from rater.catalog import CheckedFile
from rater.cli.kafka_work import run_with_kafka
from rater.cli.options import bootstrap_option, echo_errors, json_option, prefix_option, settings_with
from rater.domain.command_records import CommandFields, operator_command
from rater.domain.rejection import Rejected
from rater.settings import Settings


def command_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of an operator's command; the function gets `runner=OperatorCommands(…)` in place of them."""

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
        function(*args, runner=OperatorCommands(settings, command_id or new_command_id(), timeout_s, as_json), **given)

    options = (
        click.option("--command-id", help="Repeat a command safely: give the id it had.  [default: a new id]"),
        click.option(
            "--timeout",
            "timeout_s",
            type=click.FloatRange(0.1, 3600),
            default=30.0,
            show_default=True,
            help="Stop waiting after this many seconds without an outcome.",
        ),
        json_option,
        bootstrap_option,
        prefix_option,
    )
    decorated: Callable[..., None] = wrapped
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


class OperatorCommands:
    """Carries out an operator's commands under one id and prints their outcomes."""

    def __init__(self, settings: Settings, command_id: str, timeout_s: float, as_json: bool) -> None:
        self.command_id = command_id
        self._settings = settings
        self._timeout_s = timeout_s
        self._as_json = as_json

    def run_one(self, type_: str, org_id: str, **fields: Any) -> None:
        """Carry out one command. Raises UsageError before it is published, ClickException after."""
        try:
            command = operator_command(type_, org_id, self.command_id, **fields)
        except Rejected as rejected:
            raise click.UsageError(rejected.message) from rejected
        outcomes, administration = self._carry_out(org_id, [command], lambda _: None)
        (outcome,) = outcomes
        if self._as_json:
            click.echo(_as_line(outcome))
        if outcome.result == "pending":
            raise click.ClickException(self._why_pending(administration))
        if not outcome.ok:
            refused = "refused when it was first given" if outcome.result == "repeated" else "refused"
            raise click.ClickException(f"{refused}: {outcome.code}: {outcome.message}")
        if not self._as_json:
            click.echo(describe(outcome))

    def run_file(self, org_id: str, checked: CheckedFile, what: str) -> None:
        """Carry out the commands of a file, or none if the file has a fault. `what` was done, such as "users set"."""
        if checked.faults:
            echo_errors(checked.faults)
            raise click.ClickException(f"faults: {len(checked.faults)}; nothing was published")
        commands = [command for _, command in checked.rows]
        with _progress() as progress:
            task = progress.add_task(what, total=len(commands))
            outcomes, administration = self._carry_out(org_id, commands, lambda _: progress.advance(task))
        if self._as_json:
            for outcome in outcomes:
                click.echo(_as_line(outcome))
        summary = OutcomeSummary.of(outcomes)
        echo_errors([f"{outcome.command['user_id']}: {outcome.code}: {outcome.message}" for outcome in summary.refused])
        counts = f"{org_id}: {summary.done} {what}"
        counts += f", {summary.repeated} already done before" if summary.repeated else ""
        counts += f", {len(summary.refused)} refused" if summary.refused else ""
        click.echo(counts, err=self._as_json)
        if summary.pending:
            raise click.ClickException(f"{len(summary.pending)} without an outcome: {self._why_pending(administration)}")
        if summary.refused:
            raise click.ClickException(f"refused: {len(summary.refused)}")

    def _carry_out(
        self, org_id: str, commands: Sequence[CommandFields], on_outcome: Callable[[CommandOutcome], None]
    ) -> tuple[list[CommandOutcome], Administration]:
        settings = self._settings
        administration = Administration(settings.brokers, topics_of(settings), settings.app_id, org_id, self._timeout_s)
        outcomes = run_with_kafka(
            settings,
            administration.carry_out(commands, on_outcome),
            lambda: f"; it may have been published: repeat it with --command-id {self.command_id}, which is safe",
        )
        return outcomes, administration

    def _why_pending(self, administration: Administration) -> str:
        """Why there is no outcome yet, as far as is known, and what to do."""
        position = administration.position
        assert position is not None
        group = f"{self._settings.app_id!r} (RATER_APP_ID)"
        if position.commands_ahead is None:
            why = f"no worker of the group {group} has ever read this partition"
        else:
            why = f"partition {position.partition} has {position.commands_ahead} commands waiting for the group {group}"
        return (
            f"published, but no outcome within {self._timeout_s:g} s: {why}. It takes effect when a worker reaches it. "
            f"To see its outcome, repeat it with --command-id {self.command_id}; it never takes effect twice"
        )


def _as_line(outcome: CommandOutcome) -> str:
    return msgspec.json.encode(outcome.as_message()).decode()


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, disable=not sys.stderr.isatty(), transient=True)
