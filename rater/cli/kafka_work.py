"""Runs a command's work on Kafka and turns its errors into failures of the command (exit code 1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click
from aiokafka.errors import KafkaError

from rater.kafka.connection import explained, refusal
from rater.kafka.topic_admin import TopicAdminError
from rater.settings import Settings

_Result = TypeVar("_Result")


def run_with_kafka(settings: Settings, work: Coroutine[Any, Any, _Result], advice: Callable[[], str] = lambda: "") -> _Result:
    """Run `work` and return its result.

    Raises ClickException if Kafka or a topic fails or you press Ctrl-C. `advice` is called then: what to add to the message
    about the state that the work was left in, such as "; repeat it, that is safe".
    """
    try:
        return asyncio.run(work)
    except TopicAdminError as error:
        raise click.ClickException(str(error)) from error
    except (KafkaError, OSError) as error:
        refused = asyncio.run(refusal(settings.brokers))
        raise click.ClickException(f"Kafka at {settings.bootstrap}: {explained(refused or error)}{advice()}") from error
    except KeyboardInterrupt:
        raise click.ClickException(f"interrupted{advice()}") from None
