"""A worker's health and metrics over HTTP: `/livez`, `/readyz` and `/metrics`.

The endpoint runs in the worker's own event loop, so a worker whose loop hangs doesn't answer, and the probe fails as it should.

- Alive: no fatal error has happened, and no partition with records waiting has stopped moving.
- Ready: alive, partitions are assigned, and each of them is restored.

By default it listens on loopback. Other addresses need a token; if one is set, every request must carry it.
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

#: If no port is set, the first free one of these is used, so that several workers can run on one machine.
PORTS = range(9480, 9500)
_SHUTDOWN_S = 0.5

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Health:
    """Process health: healthy only if every app is."""

    def __init__(self, apps: Sequence[EngineApp]) -> None:
        self._apps = apps

    def is_alive(self) -> bool:
        """Whether no app has failed or stalled."""
        return all(app.engine.alive() for app in self._apps)

    def is_ready(self) -> bool:
        """Whether the process is alive and processes all partitions assigned to it."""
        return self.is_alive() and not self.missing()

    def troubles(self) -> list[str]:
        """Reasons why the process isn't alive, one line each; empty if it is."""
        return [trouble for app in self._apps for trouble in app.engine.troubles()]

    def missing(self) -> list[str]:
        """Other reasons why the process isn't ready, one line each."""
        return [f"{app.conf.id}: {missing}" for app in self._apps for missing in app.engine.missing()]


@asynccontextmanager
async def watched(settings: Settings, apps: Sequence[EngineApp]) -> AsyncIterator[None]:
    """Serve health and metrics of the apps until the block ends.

    Raises FatalError if `http_port` is set and can't be listened on.
    """
    health = Health(apps)
    token = None if settings.http_token is None else settings.http_token.get_secret_value()
    registry = registry_of(apps, health.is_alive, health.is_ready)
    runner = web.AppRunner(application(health, registry, token), access_log=None, shutdown_timeout=_SHUTDOWN_S)
    await runner.setup()
    try:
        port = await _listen(runner, settings.http_host, settings.http_port)
        log.info("serving /livez, /readyz and /metrics at http://%s:%d", settings.http_host, port)
        yield
    finally:
        await runner.cleanup()


def application(health: Health, registry: CollectorRegistry, token: str | None = None) -> web.Application:
    """The endpoint as an aiohttp application, for the caller to serve. With a `token`, requests without it get a 401."""

    @web.middleware
    async def guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "")
        if token is not None and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            return web.Response(status=401, text="a bearer token is required\n", headers={"WWW-Authenticate": "Bearer"})
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
    """Listen on `port`, or if it is None on the first free one of `PORTS`. Returns the port.

    Raises FatalError if `port` is given and can't be listened on.
    """
    for candidate in (*PORTS, 0) if port is None else (port,):
        try:
            await web.TCPSite(runner, host, candidate).start()
        except OSError as error:
            if port is not None:
                raise FatalError(f"http_host {host}, http_port {port}: {error.strerror}") from error
        else:
            return int(runner.addresses[0][1])
    raise AssertionError(f"can't listen on http_host {host}")
