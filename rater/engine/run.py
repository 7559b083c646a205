"""Running a worker, from start to exit code.

The exit code is 0 if the worker was asked to end (SIGTERM, SIGINT); it then commits the batches in flight first. The exit code
is 1 after a fatal error of any app: it is logged in one line, and the other apps end as if they had been asked to. In both
cases the process ends within `shutdown_ms_max`. A transaction that is still open then is aborted by the next InitProducerId.
"""

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

from aiokafka.errors import KafkaError

from rater.engine.aiokafka_broker import AiokafkaBroker
from rater.engine.app import EngineApp
from rater.engine.errors import FatalError
from rater.engine.settings import EngineSettings
from rater.kafka.connection import explained, refusal

__all__ = ["run_worker", "serve", "serve_all"]

log = logging.getLogger(__name__)

_BROKER_RETRY_S = 1.0
_CLOSE_SHARE = 0.45  # of `shutdown_ms_max`, for the batches in flight. The rest is for leaving the group while brokers are away

Beside = Callable[[Sequence[EngineApp]], AbstractAsyncContextManager[None]]
"""Makes, from the apps, the context in which they run: for what the process needs besides them, such as an HTTP endpoint."""


async def serve(app: EngineApp, stop: asyncio.Event) -> None:
    """Run the app in the current loop until `stop` is set or it fails. Raises the error that made it fail."""
    engine = app.engine
    waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait()) for event in (stop, app.failure.reported)]
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
    failure = app.failure.error or app.crash_reason
    if failure is not None:
        raise failure


async def serve_all(apps: Sequence[EngineApp], stop: asyncio.Event) -> None:
    """Run apps side by side until `stop` is set or one of them ends; then all end. Raises the error that made one fail."""
    serving = [asyncio.create_task(serve(app, stop), name=str(app.conf.id)) for app in apps]
    ended, _ = await asyncio.wait(serving, return_when=asyncio.FIRST_COMPLETED)
    stop.set()
    await asyncio.wait(serving)
    for worker in [*ended, *serving]:
        worker.result()


@asynccontextmanager
async def alone(apps: Sequence[EngineApp]) -> AsyncIterator[None]:
    """Runs nothing besides the apps."""
    del apps
    yield


def run_worker(make_apps: Callable[[], Sequence[EngineApp]], beside: Beside = alone) -> int:
    """Run apps until a signal or an error ends them. Returns the exit code.

    `make_apps` is called inside the loop. `beside` is entered before the first connection to a broker, and left after the last
    app has ended.
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
        log.debug("the traceback of this error", exc_info=error)
        return 1
    log.info("the worker has ended as requested")
    return 0


async def _reach_broker(settings: EngineSettings, stop: asyncio.Event) -> None:
    """Return once a broker answers or `stop` is set. Raises FatalError if none answers within the broker timeout.

    If Faust's consumer were started without a broker, it would end with several tracebacks.
    """
    deadline_s = time.monotonic() + settings.broker_timeout_ms / 1000
    while not stop.is_set():
        broker = AiokafkaBroker(settings)
        try:
            await broker.start()
            return
        except (KafkaError, OSError, TimeoutError) as error:
            refused = await refusal(settings.brokers)
            if refused is not None:
                raise FatalError(f"Kafka at {settings.brokers} does not let us in: {explained(refused)}") from refused
            if time.monotonic() > deadline_s:
                raise FatalError(
                    f"no broker answers at {settings.brokers}: is Kafka running, and is this its address (RATER_BOOTSTRAP)?"
                ) from error
        finally:
            await broker.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(_BROKER_RETRY_S):
                await stop.wait()


def _on_stray_error(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Don't report errors of aiokafka's abandoned futures: they have already been raised where the call was awaited."""
    if isinstance(context.get("exception"), KafkaError):
        log.debug("%s", context["message"], exc_info=context["exception"])
    else:
        loop.default_exception_handler(context)


class _Deadline(threading.Thread):
    """Ends the process if shutting down takes too long. It is a thread, because the loop itself may hang."""

    def __init__(self, app: EngineApp) -> None:
        super().__init__(name="shutdown deadline", daemon=True)
        self._app = app

    def run(self) -> None:
        self._app.closing.wait()
        time.sleep(self._app.settings.shutdown_ms_max / 1000)
        failure = self._app.failure.error
        why = "" if failure is None else f"{type(failure).__name__}: {failure}; "
        log.critical("the worker ends: %sshutting down took over %s ms", why, self._app.settings.shutdown_ms_max)
        logging.shutdown()
        sys.stderr.flush()
        os._exit(1)
