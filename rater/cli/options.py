"""Options that several commands share, and the settings they override.

What is not given on the command line comes from `Settings`: environment, file, default.
"""

from __future__ import annotations

import click
from pydantic import ValidationError

from rater.settings import Settings

bootstrap_option = click.option(
    "--bootstrap",
    metavar="HOST:PORT",
    help="Kafka's address.  [env: RATER_BOOTSTRAP; default: 127.0.0.1:9092]",
)
prefix_option = click.option(
    "--prefix",
    "topic_prefix",
    help="Stands before every topic's name.  [env: RATER_TOPIC_PREFIX; default: none]",
)


def settings_with(**given: object) -> Settings:
    """Return the settings with what was `given` (by name, None: not given) put over them.

    Raises UsageError that names every setting that is wrong.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})  # type: ignore[arg-type]
    except ValidationError as error:
        faults = [": ".join([*map(str, fault["loc"]), fault["msg"].removeprefix("Value error, ")]) for fault in error.errors()]
        raise click.UsageError("settings: " + "; ".join(faults)) from error
    except FileNotFoundError as error:
        raise click.UsageError(str(error)) from error
