"""How somebody is told of an event: by mail, or by a signed webhook.

A `Channel` delivers to one recipient at a time, under an id that is the same however often it is sent again. It returns when
the other side has taken it, and raises otherwise: `NotNow` when another try may help, `Undeliverable` when none will.
"""

from typing import Literal, Protocol

from rater.domain.outputs import Notification

__all__ = ["Channel", "ChannelName", "NotNow", "Undeliverable"]

ChannelName = Literal["mail", "webhook"]


class NotNow(Exception):
    """The other side is away, busy or unsure; it may take it later."""


class Undeliverable(Exception):
    """The other side will never take it: the recipient or the message is at fault."""


class Channel(Protocol):
    """One way of telling."""

    name: ChannelName

    def recipients(self, note: Notification) -> list[str]:
        """Who is to be told this way; nobody at all, perhaps."""
        ...

    async def deliver(self, note: Notification, recipient: str) -> None:
        """Tell one of them. Raises `NotNow` or `Undeliverable`."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
