"""`rater worker`: runs the agents until it is asked to end."""

from __future__ import annotations

import gc
import logging
import sys

import click

from rater.cli.options import bootstrap_option, prefix_option, settings_with

AGENTS = ("rating", "timer")

#: Few of a batch's objects outlive it and none of them are in cycles: looking for those less often costs nothing.
_GC_THRESHOLDS = (50_000, 50, 100)


@click.command(short_help="Rate calls: run the agents.")
@bootstrap_option
@prefix_option
@click.option("--agents", default="rating", show_default=True, help=f"Which agent to run: {' or '.join(AGENTS)}.")
@click.option("--log-level", default="info", type=click.Choice(["debug", "info", "warning", "error"]), show_default=True)
def worker(bootstrap: str | None, topic_prefix: str | None, agents: str, log_level: str) -> None:
    """Run the agents in this process. Start it as often as there are cores; they share the partitions.

    SIGTERM and SIGINT end it after the batch under way, with exit code 0. A fatal error ends it with 1 and nothing of the
    batch committed. Everything else is set by RATER_… in the environment or the file RATER_SETTINGS_FILE names.
    """
    if agents not in AGENTS:
        raise click.UsageError(f"--agents: there is no {agents}; there is {', '.join(AGENTS)}, each in a process of its own")
    settings = settings_with(bootstrap=bootstrap, topic_prefix=topic_prefix)
    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("aiokafka", "faust", "mode"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLogger().level))
    # Imported late: Faust takes a second that `rater --help` need not wait for.
    from rater.bootstrap import rating_worker, timer_worker
    from rater.engine.app import run_worker

    gc.set_threshold(*_GC_THRESHOLDS)
    make = {"rating": rating_worker, "timer": timer_worker}[agents]
    sys.exit(run_worker(lambda: make(settings)))
