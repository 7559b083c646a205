"""Notifications as e-mail, over SMTP.

A 4xx reply, a connection that fails or breaks, or a failed login mean "retry later". A 5xx reply to the recipient or the
message refuses it for good. If the server accepts a mail but its answer is lost, the mail is sent again with the same
Message-ID, by which mail servers and readers recognize a duplicate.
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
    """The SMTP server. `security`: TLS from the first byte, STARTTLS or none. `ca_file`: CAs to trust, else the system's."""

    host: str
    port: int
    security: Security
    user: str | None
    password: str | None = field(repr=False)
    timeout_ms: int
    ca_file: str | None = None


class MailChannel:
    """`Channel` to the mail addresses of an organization."""

    name: ChannelName = "mail"

    def __init__(self, server: MailServer, templates: MailTemplates) -> None:
        self._server = server
        self._templates = templates

    def recipients(self, note: Notification) -> list[str]:
        """The organization's addresses, without repeats."""
        return list(dict.fromkeys(note.emails))

    async def deliver(self, note: Notification, recipient: str) -> None:
        """Send it once. Raises `NotNow` or `Undeliverable`."""
        server = self._server
        mail = self._templates.render(note, recipient)
        tls = ssl.create_default_context(cafile=server.ca_file) if server.security != "none" else None
        try:
            await aiosmtplib.send(
                mail,
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
            raise _failure(error.recipients[0].code, error.recipients[0].message) from error
        except aiosmtplib.SMTPAuthenticationError as error:
            raise NotNow(f"the mail server does not let us in: {error.code} {error.message}") from error
        except aiosmtplib.SMTPResponseException as error:
            raise _failure(error.code, error.message) from error
        except (aiosmtplib.SMTPException, OSError, ValueError) as error:
            raise NotNow(f"the mail server can't be used: {error!r}") from error

    async def close(self) -> None:
        """Does nothing: each mail uses its own connection."""


def _failure(code: int, message: str) -> NotNow | Undeliverable:
    said = f"{code} {message}"[:200]
    return Undeliverable(said) if 500 <= code < 600 else NotNow(said)
