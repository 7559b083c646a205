"""The worker: a Faust app whose consumer feeds the engine, and how it is run from start to exit code.

Faust gives the app, its settings and services, the consumer group with its thread and its co-partitioned,
sticky assignor, web and sensors. The engine stands where Faust's conductor, streams, tables and recovery
would: it gets assignment and revocation straight from the app (`_on_partitions_assigned`,
`_on_partitions_revoked`), and those services are not started at all (`EngineBoot`). So Faust acks nothing,
commits nothing, and creates no topics.

A process may run several apps, each a consumer group of its own, in one loop: they share nothing but the end of the process.

The exit code is 0 when the worker was asked to end (SIGTERM, SIGINT), after committing the batches under
way; 1 after a fatal error of any app, which is logged in one line, while the others end as if they had been
asked to. Either way the process ends within
`shutdown_ms_max`: what hangs is left to the next InitProducerId.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import faust
from aiokafka.errors import KafkaError
from faust.app.base import BootStrategy
from faust.types import TP
from mode.types import ServiceT

from rater.engine.api import Metric
from rater.engine.broker import AiokafkaKafka, TopicPartition
from rater.engine.consumer import BatchConsumer, BatchTransport
from rater.engine.engine import BackgroundService, Engine, TaskGroup
from rater.engine.errors import FatalError
from rater.kafka.connection import explained, refusal
from rater.settings import Settings

__all__ = ["EngineApp", "TaskGroup", "make_app", "run_worker", "serve", "serve_all"]

log = logging.getLogger(__name__)

_BROKER_RETRY_S = 1.0
_CLOSE_SHARE = 0.45  # of the time to shut down, for the batches under way; the rest is for leaving while brokers are away


class EngineBoot(BootStrategy):
    """Starts sensors, web, consumer and engine, and stops them the other way round."""

    app: "EngineApp"

    def server(self) -> Iterable[ServiceT]:
        return self._chain(self.sensors(), self.web_server(), [self.app.consumer, self.app.engine])


class EngineApp(faust.App):
    """A Faust app that runs task groups. Make it, and run it, inside one event loop."""

    BootStrategy = EngineBoot
    consumer: BatchConsumer

    def __init__(
        self,
        settings: Settings,
        groups: Sequence[TaskGroup],
        background_services: Sequence[BackgroundService] = (),
        *,
        clock_ms: Callable[[], int] | None = None,
        gauges: Callable[[], Mapping[Metric, float]] = dict,
        **options: Any,
    ) -> None:
        self.settings = settings
        self.gauges = gauges
        self.closing = threading.Event()
        super().__init__(settings.app_id, **{**_faust_options(settings), **options})
        self.engine = Engine(
            self, settings, groups, background_services, clock_ms=clock_ms or wall_clock_ms, beacon=self.beacon
        )

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer, self)

    async def _on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        del generation_id
        await self.engine.assign({TopicPartition(tp.topic, tp.partition) for tp in assigned})

    def on_rebalance_return(self) -> None:
        super().on_rebalance_return()
        self.on_rebalance_end()  # Faust ends a rebalance when its tables have recovered

    async def _on_partitions_revoked(self, revoked: set[TP]) -> None:
        del revoked  # always all of them
        await self.engine.revoke()

    def _create_directories(self) -> None:
        """Faust keeps no files here."""

    async def _stop_consumer(self) -> None:
        """The engine closes its tasks when it is stopped, which is before the consumer is."""

    async def _producer_flush(self, logger: Any) -> None:
        """There is no producer but the tasks' own."""


def make_app(
    settings: Settings, groups: Sequence[TaskGroup], background_services: Sequence[BackgroundService] = (), **options: Any
) -> EngineApp:
    """The app of one worker.

    Among the options, `clock_ms` is what due work goes by, the wall clock by default, and `gauges` gives figures that belong to
    no task; the others are Faust's own settings, over the engine's choice of them.
    """
    return EngineApp(settings, groups, background_services, **options)


#: What runs in the process beside the apps, given them.
Beside = Callable[[Sequence[EngineApp]], AbstractAsyncContextManager[None]]


def wall_clock_ms() -> int:
    """Now, in ms since the epoch."""
    return time.time_ns() // 1_000_000


async def serve(app: EngineApp, stop: asyncio.Event) -> None:
    """Run the worker in the current loop until `stop` is set or it fails. Raises what made it fail."""
    engine = app.engine
    waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait()) for event in (stop, engine.failed)]
    starting = asyncio.ensure_future(app.start())
    try:
        await asyncio.wait([starting, *waiting], return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            crashed: Coroutine[Any, Any, None] = app.wait_until_stopped()
            waiting.append(asyncio.ensure_future(crashed))
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        app.closing.set()
        starting.cancel()
        for waiter in waiting:
            waiter.cancel()
        await engine.close(app.settings.shutdown_ms_max / 1000 * _CLOSE_SHARE)
        await app.stop()
    failure = engine.failure or app.crash_reason
    if failure is not None:
        raise failure


async def serve_all(apps: Sequence[EngineApp], stop: asyncio.Event) -> None:
    """Run workers side by side until `stop` is set or one of them ends, which ends them all.

    Raises what made the first one fail.
    """
    serving = [asyncio.create_task(serve(app, stop), name=str(app.conf.id)) for app in apps]
    ended, _ = await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await asyncio.wait(serving)
    for worker in [*ended, *serving]:
        worker.result()


@asynccontextmanager
async def alone(apps: Sequence[EngineApp]) -> AsyncIterator[None]:
    """Nothing beside the apps."""
    del apps
    yield


def run_worker(make_apps: Callable[[], Sequence[EngineApp]], beside: Beside = alone) -> int:
    """Run the apps that `make_apps()` makes, inside the loop, until a signal ends them; returns the exit code.

    `beside` is entered before the broker is asked for and left after the last app has ended.
    """
    return asyncio.run(_run(make_apps, beside))


async def _run(make_apps: Callable[[], Sequence[EngineApp]], beside: Beside) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_on_stray_error)
    apps = make_apps()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    for app in apps:
        _Deadline(app).start()
    try:
        async with beside(apps):
            await _reach_broker(apps[0].settings, stop)
            await serve_all(apps, stop)
    except Exception as error:
        log.critical("the worker ends: %s: %s", type(error).__name__, error)
        log.debug("what led to it", exc_info=error)
        return 1
    log.info("the worker has ended as asked")
    return 0


async def _reach_broker(settings: Settings, stop: asyncio.Event) -> None:
    """Return once a broker answers, or `stop` is set. Raises FatalError when none does for the broker timeout.

    Faust's consumer, started before one does, ends in a heap of tracebacks.
    """
    deadline_s = time.monotonic() + settings.broker_timeout_ms / 1000
    while not stop.is_set():
        kafka = AiokafkaKafka(settings)
        try:
            await kafka.start()
            return
        except (KafkaError, OSError, TimeoutError) as error:
            refused = await refusal(settings.brokers)
            if refused is not None:
                raise FatalError(f"Kafka at {settings.bootstrap} does not let us in: {explained(refused)}") from refused
            if time.monotonic() > deadline_s:
                raise FatalError(
                    f"no broker answers at {settings.bootstrap}: is Kafka up, and is that its address (RATER_BOOTSTRAP)?"
                ) from error
        finally:
            await kafka.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(_BROKER_RETRY_S):
                await stop.wait()


def _on_stray_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """aiokafka leaves futures of what it has failed behind; the failure itself has come up where it was
    awaited."""
    if isinstance(context.get("exception"), KafkaError):
        log.debug("%s", context["message"], exc_info=context["exception"])
    else:
        loop.default_exception_handler(context)


class _Deadline(threading.Thread):
    """Ends the process when shutting down takes too long. A thread, as the loop may be what hangs."""

    def __init__(self, app: EngineApp) -> None:
        super().__init__(name="shutdown deadline", daemon=True)
        self._app = app

    def run(self) -> None:
        self._app.closing.wait()
        time.sleep(self._app.settings.shutdown_ms_max / 1000)
        failure = self._app.engine.failure
        why = "" if failure is None else f"{type(failure).__name__}: {failure}; "
        log.critical("the worker ends: %sshutting down took over %s ms", why, self._app.settings.shutdown_ms_max)
        logging.shutdown()
        sys.stderr.flush()
        os._exit(1)


def _faust_options(settings: Settings) -> dict[str, Any]:
    # The assignor remembers members by this URL and asserts that a member's own has not changed.
    name = settings.instance_id or f"{os.getpid()}"
    return {
        "broker": [f"kafka://{address}" for address in settings.bootstrap.split(",")],
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
