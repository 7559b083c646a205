"""The demo's mail server: an SMTP server on this machine that writes each mail into a folder, where you can read it."""

import asyncio
import email.policy
from email import message_from_bytes
from email.message import EmailMessage
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from aiosmtpd.smtp import SMTP

HOST = "127.0.0.1"
_ACCEPTED = "250 OK"


class Mailbox:
    """Context manager: an SMTP server on `port`. Writes each mail into `folder`: `001-TO.eml` and its HTML, `001-TO.html`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = 0
        self.subjects: list[str] = []
        self._server: asyncio.Server | None = None

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """aiosmtpd calls this for each mail."""
        del server, session
        mail = message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(mail, EmailMessage)
        self.subjects.append(str(mail["subject"]))
        name = f"{len(self.subjects):03d}-{envelope.rcpt_tos[0].replace('/', '_')}"
        (self.folder / f"{name}.eml").write_bytes(envelope.content)
        html = mail.get_body(("html",))
        if html is not None:
            (self.folder / f"{name}.html").write_text(html.get_content())
        return _ACCEPTED

    async def __aenter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        for old in [*self.folder.glob("*.eml"), *self.folder.glob("*.html")]:
            old.unlink()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: SMTP(self, enable_SMTPUTF8=True, loop=loop), HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
