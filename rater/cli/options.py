"""Options that several commands share, and the settings that they override.

A setting that isn't given on the command line comes from `Settings`: environment, file, default.
"""

from __future__ import annotations

from collections.abc import Sequence

import click
from pydantic import ValidationError

from rater.settings import Settings

_LINES_MAX = 100

bootstrap_option = click.option(
    "--bootstrap",
    metavar="HOST:PORT",
    help="Address of Kafka.  [env: RATER_BOOTSTRAP; default: 127.0.0.1:9092]",
)
prefix_option = click.option(
    "--prefix",
    "topic_prefix",
    help="Prefix of all topic names.  [env: RATER_TOPIC_PREFIX; default: none]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs, one message per line.")
org_argument = click.argument("org", metavar="ORG")


def settings_with(**given: object) -> Settings:
    """Return the settings, overridden by those `given` by name (None: not given).

    Raises UsageError, which lists every invalid setting.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        faults = [": ".join([*map(str, fault["loc"]), fault["msg"].removeprefix("Value error, ")]) for fault in error.errors()]
        raise click.UsageError("settings: " + "; ".join(faults)) from error
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from error


def echo_errors(lines: Sequence[object]) -> None:
    """Print lines to standard error, the first 100 of them and the number of the rest."""
    for line in lines[:_LINES_MAX]:
        click.echo(str(line), err=True)
    if len(lines) > _LINES_MAX:
        click.echo(f"and {len(lines) - _LINES_MAX} more", err=True)
