"""The engine as a Faust app: agents with `@app.agent`, over batches that the engine feeds.

Faust provides the app, its settings and services, the agents and their streams, the sensors, the web server, and the consumer
group with its thread and its co-partitioned, sticky assignor. The engine stands where Faust's conductor, tables, recovery and
producer would: it gets assignment and revocation straight from the app (`_on_partitions_assigned`, `_on_partitions_revoked`),
and those services are never started (`EngineBoot`). So Faust acks nothing, commits nothing and creates no topics.

A process may run several apps in one event loop, each with a consumer group of its own. They share only the end of the process
(`rater/engine/run.py`).
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import faust
from faust.app.base import BootStrategy
from faust.types import TP
from mode.types import ServiceT

from rater.engine.api import Metric
from rater.engine.batches import BatchAgent, BatchChannel, BatchSensor
from rater.engine.broker import TopicPartition
from rater.engine.consumer import BatchConsumer, BatchTransport
from rater.engine.engine import BackgroundService, Engine
from rater.engine.failure import Failure
from rater.engine.groups import TaskGroup
from rater.engine.settings import EngineSettings
from rater.engine.stats import MetricDefinition

__all__ = ["EngineApp", "wall_clock_ms"]


class EngineBoot(BootStrategy):
    """Starts sensors, web, consumer and engine, and stops them in reverse. The engine starts the agents."""

    app: "EngineApp"

    def server(self) -> Iterable[ServiceT]:
        """What a worker starts, in order."""
        return self._chain(self.sensors(), self.web_server(), [self.app.consumer, self.app.engine])


def wall_clock_ms() -> int:
    """Now, in ms since the epoch."""
    return time.time_ns() // 1_000_000


class EngineApp(faust.App):
    """A Faust app whose agents read batches: `batches` makes the channel of a task group, `@app.agent` the agent that reads it.

    `clock_ms` is the clock for due work. `background_services` run beside the tasks. `metrics` and `gauges` are for metrics of
    the app as a whole, not of a task. `options` are Faust's own settings; they override the engine's choice.

    Run it with `run_worker`, or with `serve` inside a loop.
    """

    BootStrategy = EngineBoot
    consumer: BatchConsumer

    def __init__(
        self,
        settings: EngineSettings,
        background_services: Sequence[BackgroundService] = (),
        *,
        clock_ms: Callable[[], int] = wall_clock_ms,
        metrics: Sequence[MetricDefinition] = (),
        gauges: Callable[[], Mapping[Metric, float]] = dict,
        **options: Any,
    ) -> None:
        self.settings = settings
        self.metrics = tuple(metrics)
        self.gauges = gauges
        self.closing = threading.Event()
        self.failure = Failure()
        super().__init__(settings.app_id, **{**_faust_options(settings), **options})
        self.sensors.add(BatchSensor(self))
        self.engine = Engine(self, background_services, clock_ms, beacon=self.beacon)

    def batches(self, group: TaskGroup) -> BatchChannel:
        """The channel of a task group, for the one agent that reads it."""
        channel = BatchChannel(self, topics=group.topics)
        self.engine.add_group(group, channel)
        return channel

    @property
    def is_ending(self) -> bool:
        """Whether the worker has been asked to end, or has failed."""
        return self.closing.is_set() or self.failure.error is not None

    def fail(self, error: BaseException) -> None:
        """End the worker with exit code 1. The first error is the one that is reported."""
        self.failure.report(error)

    async def start_agents(self, actors: int) -> None:
        """Start every agent with so many actors: one for each partition, so that no task waits for another's batch."""
        self.flow_control.resume()
        for agent in self.agents.values():
            agent.concurrency = actors
        await self.agents.maybe_start()

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)

    async def _on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        del generation_id
        await self.engine.assign({TopicPartition(tp.topic, tp.partition) for tp in assigned})

    def on_rebalance_return(self) -> None:
        """Faust ends a rebalance when its tables have recovered; here it ends at once."""
        super().on_rebalance_return()
        self.on_rebalance_end()

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        del revoked  # always all of them
        await self.engine.revoke()

    def _create_directories(self) -> None:
        """Faust keeps no files here."""

    async def _stop_consumer(self) -> None:
        """The engine closes its tasks when it is stopped, which is before the consumer is."""

    async def _producer_flush(self, logger: Any) -> None:
        """Only the tasks have producers."""


def _faust_options(settings: EngineSettings) -> dict[str, Any]:
    # The assignor remembers members by this URL and asserts that a member's own has not changed.
    name = settings.instance_id or f"{os.getpid()}"
    return {
        "Agent": BatchAgent,
        "broker": [f"kafka://{address}" for address in settings.brokers.bootstrap.split(",")],
        "canonical_url": f"http://{name}.worker:6066",
        "datadir": settings.data_dir / "faust",
        "web_enabled": False,
        "web_host": "127.0.0.1",
        "web_tables_enabled": False,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "stream_wait_empty": False,
        "broker_heartbeat_interval": settings.heartbeat_interval_ms / 1000,
        "broker_session_timeout": settings.session_timeout_ms / 1000,
        "broker_rebalance_timeout": settings.rebalance_timeout_ms / 1000,
        "consumer_group_instance_id": settings.instance_id,
    }
