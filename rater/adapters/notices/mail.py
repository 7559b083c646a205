"""Notifications as e-mail, by SMTP.

A refusal with a 4xx code, a connection that can't be made or breaks, a login that fails: later. A refusal of the recipient or
of the message with a 5xx code: never. The server may take a mail and its answer be lost; the mail is then sent again under the
same Message-ID, by which mail readers and servers know a duplicate.
"""

import ssl
from dataclasses import dataclass, field
from typing import Literal

import aiosmtplib

from rater.adapters.notices import ChannelName, NotNow, Undeliverable
from rater.adapters.notices.mail_templates import MailTemplates
from rater.domain.outputs import Notification

Security = Literal["starttls", "tls", "none"]


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail is handed in. `security`: TLS from the first byte, by STARTTLS, or none at all."""

    host: str
    port: int
    security: Security
    user: str | None
    password: str | None = field(repr=False)
    timeout_ms: int
    ca_file: str | None = None


class MailChannel:
    """`Channel` to the addresses of the organization."""

    name: ChannelName = "mail"

    def __init__(self, server: MailServer, templates: MailTemplates) -> None:
        self._server = server
        self._templates = templates

    def recipients(self, note: Notification) -> list[str]:
        """Each address once."""
        return list(dict.fromkeys(note.emails))

    async def deliver(self, note: Notification, recipient: str) -> None:
        """Send it once."""
        server = self._server
        letter = self._templates.render(note, recipient)
        tls = ssl.create_default_context(cafile=server.ca_file) if server.security != "none" else None
        try:
            await aiosmtplib.send(
                letter,
                hostname=server.host,
                port=server.port,
                username=server.user,
                password=server.password,
                use_tls=server.security == "tls",
                start_tls=server.security == "starttls",
                tls_context=tls,
                timeout=server.timeout_ms / 1000,
            )
        except aiosmtplib.SMTPRecipientsRefused as error:
            raise _judged(error.recipients[0].code, error.recipients[0].message) from error
        except aiosmtplib.SMTPAuthenticationError as error:
            raise NotNow(f"the mail server does not let us in: {error.code} {error.message}") from error
        except aiosmtplib.SMTPResponseException as error:
            raise _judged(error.code, error.message) from error
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise NotNow(f"the mail server can't be used: {error!r}") from error

    async def close(self) -> None:
        """A mail has a connection of its own."""


def _judged(code: int, message: str) -> NotNow | Undeliverable:
    said = f"{code} {message}"[:200]
    return Undeliverable(said) if 500 <= code < 600 else NotNow(said)
