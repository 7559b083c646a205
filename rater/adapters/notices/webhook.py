"""Notifications as signed webhooks: one POST each, with the notification as JSON, signed according to Standard Webhooks.

`webhook-id` is the notification's id, so the receiver can recognize repeats. Any 2xx accepts it. 408, 425, 429, any status
outside 2xx and 4xx, or no answer mean "retry later". 410 and every other 4xx refuse it for good.
"""

import time

import aiohttp
import msgspec

from rater.adapters.notices import ChannelName, NotNow, Undeliverable
from rater.adapters.standard_webhooks import signed_headers
from rater.domain.outputs import Notification

_LATER = frozenset({408, 425, 429})


class WebhookChannel:
    """`Channel` to the operator's endpoint at `url`. `key` signs the requests."""

    name: ChannelName = "webhook"

    def __init__(self, url: str, key: bytes, timeout_ms: int) -> None:
        self._url = url
        self._key = key
        self._timeout = aiohttp.ClientTimeout(total=timeout_ms / 1000)
        self._session: aiohttp.ClientSession | None = None

    def recipients(self, note: Notification) -> list[str]:
        """The endpoint's URL, for every notification."""
        return [self._url]

    async def deliver(self, note: Notification, recipient: str) -> None:
        """POST it once. Raises `NotNow` or `Undeliverable`."""
        body = msgspec.json.encode(note)
        headers = {
            "content-type": "application/json",
            **signed_headers(self._key, note.notification_id, int(time.time()), body),
        }
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout)
        try:
            async with self._session.post(recipient, data=body, headers=headers, allow_redirects=False) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NotNow(f"no answer: {error!r}") from error
        if 200 <= status < 300:
            return
        if 400 <= status < 500 and status not in _LATER:
            raise Undeliverable(f"refused with status {status}")
        raise NotNow(f"answered with status {status}")

    async def close(self) -> None:
        """Close the HTTP session."""
        if self._session is not None:
            await self._session.close()
