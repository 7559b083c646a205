"""`rater worker`: runs the agents until it is asked to end."""

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

#: Few of a batch's objects outlive it and none of them are in cycles: looking for those less often costs nothing.
_GC_THRESHOLDS = (50_000, 50, 100)


@click.command(short_help="Rate calls: run the agents.")
@bootstrap_option
@prefix_option
@click.option("--agents", help="Which agents to run, comma separated. By default all that are set up.")
@click.option("--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), show_default=True)
def worker(bootstrap: str | None, topic_prefix: str | None, agents: str | None, log_level: str) -> None:
    """Run agents in this process. Start it as often as there are cores; they share the partitions.

    \b
    rating        rates calls and keeps the accounts
    timer         says when a further try, a warning or an expiry is due
    recharge      takes the money of top-ups, once RATER_PAYMENT_GATEWAY is set
    notification  tells people, once RATER_MAIL_HOST or RATER_NOTIFY_WEBHOOK_URL is set

    SIGTERM and SIGINT end it after the batches under way, with exit code 0. A fatal error of any agent ends it with 1 and
    nothing of the batch committed. Everything else is set by RATER_… in the environment or the file RATER_SETTINGS_FILE names.
    """
    for number in (signal.SIGTERM, signal.SIGINT):  # until the loop has its own: nothing is in flight yet
        signal.signal(number, lambda *_: sys.exit(0))
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    set_up(log_level, settings.log_format)
    # Imported late: Faust takes a second that `rater --help` need not wait for.
    from rater import bootstrap as wiring
    from rater.engine.run import run_worker
    from rater.ops import tracing
    from rater.ops.endpoint import watched

    names = wiring.configured(settings) if agents is None else list(dict.fromkeys(agents.split(",")))
    unknown = [name for name in names if name not in wiring.AGENTS]
    if unknown:
        raise click.UsageError(f"--agents: there is no {', '.join(unknown)}; there is {', '.join(wiring.AGENTS)}")
    if lacking := wiring.lacking(settings, names):
        raise click.UsageError("; ".join(f"the {name} agent needs {lack}" for name, lack in lacking.items()))
    about = {"version": __version__, "group": settings.app_id, "brokers": settings.bootstrap, "pid": os.getpid()}
    log.info("agents: %s", ", ".join(names), extra=about)
    for name, lack in wiring.lacking(settings, wiring.AGENTS).items():
        log.info("no %s agent here: it needs %s", name, lack)
    if settings.tracing and not tracing.is_installed():
        raise click.UsageError("RATER_TRACING needs the extra: pip install 'call-rater[tracing]'")

    @asynccontextmanager
    async def beside(apps: Sequence[EngineApp]) -> AsyncIterator[None]:
        with tracing.traced(apps) if settings.tracing else nullcontext():
            async with watched(settings, apps):
                yield

    gc.set_threshold(*_GC_THRESHOLDS)
    sys.exit(run_worker(lambda: wiring.make_agents(settings, names), beside))
