"""Notifications as webhooks over real HTTP: the signature, and the meaning of each status."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from aiohttp import web

from rater.adapters.notices import NotNow, Undeliverable
from rater.adapters.notices.webhook import WebhookChannel
from rater.adapters.standard_webhooks import signed_headers
from tests.unit.adapters.notices.test_mail_templates import note

KEY = b"k" * 24


class Endpoint:
    """Answers with `status`. `seen`: headers and body of each POST."""

    def __init__(self, status: int = 204) -> None:
        self.status = status
        self.seen: list[tuple[dict[str, str], bytes]] = []

    async def take(self, request: web.Request) -> web.Response:
        self.seen.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status)


@asynccontextmanager
async def calling(endpoint: Endpoint) -> AsyncIterator[WebhookChannel]:
    app = web.Application()
    app.router.add_post("/notify", endpoint.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    channel = WebhookChannel(f"http://127.0.0.1:{port}/notify", KEY, 5000)
    try:
        yield channel
    finally:
        await channel.close()
        await runner.cleanup()


async def deliver(channel: WebhookChannel) -> None:
    (url,) = channel.recipients(note())
    await channel.deliver(note(), url)


async def test_it_is_posted_whole_and_signed_under_its_own_id() -> None:
    endpoint = Endpoint()
    async with calling(endpoint) as channel:
        await deliver(channel)
    ((headers, body),) = endpoint.seen
    assert msgspec.json.decode(body)["notification_id"] == note().notification_id
    signed = signed_headers(KEY, note().notification_id, int(headers["webhook-timestamp"]), body)
    assert {name: headers[name] for name in signed} == signed


@pytest.mark.parametrize("status", [408, 429, 500, 503, 302])
async def test_an_endpoint_that_is_busy_or_moved_means_later(status: int) -> None:
    async with calling(Endpoint(status)) as channel:
        with pytest.raises(NotNow):
            await deliver(channel)


@pytest.mark.parametrize("status", [400, 404, 410])
async def test_an_endpoint_that_refuses_means_never(status: int) -> None:
    async with calling(Endpoint(status)) as channel:
        with pytest.raises(Undeliverable):
            await deliver(channel)


async def test_no_answer_means_later() -> None:
    channel = WebhookChannel("http://127.0.0.1:9/notify", KEY, 1000)
    with pytest.raises(NotNow):
        await deliver(channel)
    await channel.close()
