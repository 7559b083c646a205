"""The `rater` command. Each sub-command is a module of its own, imported only when it is needed.

Exit codes: 0 success, 1 the data or the work failed, 2 usage. A command reports a failure by raising
`click.ClickException` (1) or `click.UsageError` (2).
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import NoReturn

import click

from rater import __version__

_COMMANDS = {
    "demo": "rater.cli.demo:demo",
    "simulate": "rater.cli.simulate:simulate",
    "worker": "rater.cli.worker:worker",
    "kafka": "rater.cli.kafka:kafka",
    "topics": "rater.cli.topics:topics",
    "load": "rater.cli.load:load",
    "publish": "rater.cli.publish:publish",
    "account": "rater.cli.account:account",
    "funds": "rater.cli.funds:funds",
    "auto-recharge": "rater.cli.auto_recharge:auto_recharge",
    "users": "rater.cli.users:users",
    "numbers": "rater.cli.numbers:numbers",
    "call": "rater.cli.call:call",
    "organization": "rater.cli.organization:organization",
    "replay": "rater.cli.replay:replay",
    "audit": "rater.cli.audit:audit",
    "doctor": "rater.cli.doctor:doctor",
}


class _LazyGroup(click.Group):
    """Knows its commands by name and imports only the one that runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, target in _COMMANDS.items() if _installed(target)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        target = _COMMANDS.get(cmd_name)
        if target is None or not _installed(target):
            return None
        module, attribute = target.split(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command), f"{target} is a {type(command).__name__}"
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rater")
def cli() -> None:
    """Rates telephony call-detail records on Kafka: exact money, exactly once, fast."""


def main() -> NoReturn:
    """Run the command line and exit."""
    cli.main(prog_name="rater")
    raise AssertionError("click's standalone mode always exits")


def _installed(target: str) -> bool:
    return importlib.util.find_spec(target.partition(":")[0]) is not None
