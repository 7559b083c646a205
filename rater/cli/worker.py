"""`rater worker`: runs agents until a signal ends it."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING

import click

from rater import __version__
from rater.cli.options import bootstrap_option, prefix_option, settings_with
from rater.ops.logging import set_up

if TYPE_CHECKING:
    from rater.engine.app import EngineApp

log = logging.getLogger(__name__)

# Few objects outlive their batch, and none of them are in reference cycles, so the garbage collector may run less often.
_GC_THRESHOLDS = (50_000, 50, 100)


@click.command(short_help="Rate calls: run the agents.")
@bootstrap_option
@prefix_option
@click.option("--agents", help="Agents to run, separated by commas.  [default: all that are configured]")
@click.option("--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), show_default=True)
def worker(bootstrap: str | None, topic_prefix: str | None, agents: str | None, log_level: str) -> None:
    """Run agents in this process. Run one per core; they share the partitions.

    \b
    rating        rates calls and keeps the accounts
    timer         publishes a command when a retry, a warning or an expiry is due
    recharge      charges cards for top-ups; needs RATER_PAYMENT_GATEWAY
    notification  sends mails and webhooks; needs RATER_MAIL_HOST or RATER_NOTIFY_WEBHOOK_URL

    On SIGTERM or SIGINT it commits the batches in flight and exits with 0. After a fatal error of any agent it commits nothing
    more and exits with 1. All other settings are environment variables (RATER_…) or are in the file that RATER_SETTINGS_FILE
    names.
    """
    for number in (signal.SIGTERM, signal.SIGINT):  # until the loop has handlers of its own: nothing is in flight yet
        signal.signal(number, lambda *_: sys.exit(0))
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    set_up(log_level, settings.log_format)
    # Imported here, because importing Faust takes a second, and `rater --help` needn't wait for it.
    from rater import bootstrap as wiring
    from rater.engine.run import run_worker
    from rater.ops import tracing
    from rater.ops.endpoint import watched

    names = wiring.configured(settings) if agents is None else list(dict.fromkeys(agents.split(",")))
    unknown = [name for name in names if name not in wiring.AGENTS]
    if unknown:
        raise click.UsageError(f"--agents: unknown: {', '.join(unknown)}; known: {', '.join(wiring.AGENTS)}")
    if lacking := wiring.lacking(settings, names):
        raise click.UsageError("; ".join(f"the {name} agent needs {lack}" for name, lack in lacking.items()))
    about = {"version": __version__, "group": settings.app_id, "brokers": settings.bootstrap, "pid": os.getpid()}
    log.info("agents: %s", ", ".join(names), extra=about)
    for name, lack in wiring.lacking(settings, wiring.AGENTS).items():
        log.info("the %s agent is not configured: it needs %s", name, lack)
    if settings.tracing and not tracing.is_installed():
        raise click.UsageError("RATER_TRACING needs the extra `tracing`: pip install 'call-rater[tracing]'")

    @asynccontextmanager
    async def beside(apps: Sequence[EngineApp]) -> AsyncIterator[None]:
        with tracing.traced(apps) if settings.tracing else nullcontext():
            async with watched(settings, apps):
                yield

    gc.set_threshold(*_GC_THRESHOLDS)
    sys.exit(run_worker(lambda: wiring.make_agents(settings, names), beside))
