"""Delivery of notifications: by mail, or by a signed webhook.

A `Channel` delivers to one recipient at a time. Repeated deliveries of the same notification have the same id. `deliver`
returns once the server has accepted the notification; it raises `NotNow` if a retry may help, `Undeliverable` if it won't.
"""

from typing import Literal, Protocol

from rater.domain.outputs import Notification

__all__ = ["Channel", "ChannelName", "NotNow", "Undeliverable"]

ChannelName = Literal["mail", "webhook"]


class NotNow(Exception):
    """The server is away, busy or undecided. Retrying later may help."""


class Undeliverable(Exception):
    """The server will never accept it: the recipient or the message is wrong. Retrying won't help."""


class Channel(Protocol):
    """One way to deliver notifications."""

    name: ChannelName

    def recipients(self, note: Notification) -> list[str]:
        """The addresses to deliver to on this channel; may be empty."""
        ...

    async def deliver(self, note: Notification, recipient: str) -> None:
        """Deliver to one recipient. Raises `NotNow` or `Undeliverable`."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
