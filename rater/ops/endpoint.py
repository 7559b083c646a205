"""Where a worker is watched: `/livez`, `/readyz` and `/metrics` over HTTP.

It answers out of the worker's own loop, so a loop that hangs doesn't answer, which is the right answer. Alive means: nothing
fatal has happened, and no partition stands still with records before it. Ready means: assigned, and every partition restored.

It listens on loopback. Elsewhere, or wherever a token is set, every request must bear it.
"""

import hmac
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from rater.engine.app import EngineApp
from rater.engine.errors import FatalError
from rater.ops.metrics import registry_of
from rater.settings import Settings

__all__ = ["PORTS", "Health", "application", "watched"]

log = logging.getLogger(__name__)

#: Tried in turn where no port is set, so that several workers fit on one machine.
PORTS = range(9480, 9500)
_SHUTDOWN_S = 0.5

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Health:
    """What a process has to say of itself: as well as the worst of its apps."""

    def __init__(self, apps: Sequence[EngineApp]) -> None:
        self._apps = apps

    def is_alive(self) -> bool:
        """Whether it can be trusted to go on."""
        return all(app.engine.alive() for app in self._apps)

    def is_ready(self) -> bool:
        """Whether it does its share of the work."""
        return self.is_alive() and not self.missing()

    def troubles(self) -> list[str]:
        """Why it is not alive."""
        return [trouble for app in self._apps for trouble in app.engine.troubles()]

    def missing(self) -> list[str]:
        """Why it is not ready, apart from troubles."""
        return [f"{app.conf.id}: {missing}" for app in self._apps for missing in app.engine.missing()]


@asynccontextmanager
async def watched(settings: Settings, apps: Sequence[EngineApp]) -> AsyncIterator[None]:
    """Answer for the apps until the end of the block. Raises FatalError where a port that was asked for is taken."""
    health = Health(apps)
    token = None if settings.http_token is None else settings.http_token.get_secret_value()
    registry = registry_of(apps, health.is_alive, health.is_ready)
    runner = web.AppRunner(application(health, registry, token), access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        port = await _listen(runner, settings.http_host, settings.http_port)
        log.info("watched at http://%s:%d/metrics, /livez, /readyz", settings.http_host, port)
        yield
    finally:
        await runner.cleanup()


def application(health: Health, registry: CollectorRegistry, token: str | None = None) -> web.Application:
    """The endpoint, without a place to listen at."""

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return web.Response(status=401, text="a bearer token is needed\n", headers={"WWW-Authenticate": "Bearer"})
        return await handler(request)

    async def livez(_: web.Request) -> web.Response:
        return _verdict("alive", health.is_alive(), health.troubles())

    async def readyz(_: web.Request) -> web.Response:
        return _verdict("ready", health.is_ready(), [*health.troubles(), *health.missing()])

    async def metrics(request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(registry), headers={"Content-Type": content_type})

    made = web.Application(middlewares=[guard])
    made.router.add_get("/livez", livez)
    made.router.add_get("/readyz", readyz)
    made.router.add_get("/metrics", metrics)
    return made


def _verdict(what: str, good: bool, reasons: Sequence[str]) -> web.Response:
    text = what if good else "\n".join([f"not {what}", *reasons])
    return web.Response(status=200 if good else 503, text=f"{text}\n")


async def _listen(runner: web.AppRunner, host: str, port: int | None) -> int:
    """Listen; returns the port."""
    for candidate in (*PORTS, 0) if port is None else (port,):
        try:
            await web.TCPSite(runner, host, candidate).start()
        except OSError as error:
            if port is not None:
                raise FatalError(f"http_host {host}, http_port {port}: {error.strerror}") from error
        else:
            return int(runner.addresses[0][1])
    raise AssertionError("port 0 is any free one")
