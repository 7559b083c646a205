"""Mail through a real SMTP server: encryption, login, and the meaning of its replies."""

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, LoginPassword
from pydantic import SecretStr

from rater.adapters.notices import NotNow, Undeliverable
from rater.adapters.notices.mail import MailChannel, MailServer, Security
from rater.adapters.notices.mail_templates import MailTemplates
from rater.demo.mailbox import Mailbox
from rater.settings import Settings
from tests.unit.adapters.notices.test_mail_templates import note

HOST = "127.0.0.1"
TIMEOUT_MS = 5000
LOGIN = ("rater", "secret")


class Server:
    """SMTP handler: `rcpt` and `data` are its replies, `mails` what it accepted."""

    def __init__(self) -> None:
        self.rcpt = "250 OK"
        self.data = "250 OK"
        self.mails: list[bytes] = []
        self.logins: list[tuple[bytes, bytes]] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:  # noqa: N802
        envelope.rcpt_tos.append(address)
        return self.rcpt

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802
        if self.data.startswith("250"):
            self.mails.append(envelope.content)
        return self.data

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, login: LoginPassword) -> AuthResult:
        self.logins.append((login.login, login.password))
        return AuthResult(success=login.password == b"secret", handled=False)


@asynccontextmanager
async def serving(server: Server, **options: Any) -> AsyncIterator[int]:
    """Gives the port."""
    loop = asyncio.get_running_loop()
    made = await loop.create_server(lambda: SMTP(server, hostname="localhost", loop=loop, **options), HOST, 0)
    try:
        yield made.sockets[0].getsockname()[1]
    finally:
        made.close()


def channel(
    port: int, security: Security = "none", login: tuple[str, str] | None = None, ca: Path | None = None
) -> MailChannel:
    user, password = login or (None, None)
    host = HOST if security == "none" else "localhost"
    server = MailServer(host, port, security, user, password, TIMEOUT_MS, None if ca is None else str(ca))
    return MailChannel(server, MailTemplates("credit@rater.example"))


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost and its key."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "cert.pem", folder / "key.pem"
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(made, check=True, capture_output=True)
    return certificate, key


def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


async def test_a_mail_arrives_with_its_text_and_html() -> None:
    server = Server()
    async with serving(server) as port:
        await channel(port).deliver(note(), "a@contoso.example")
    (mail,) = server.mails
    assert b"To: a@contoso.example" in mail
    assert b"text/plain" in mail
    assert b"text/html" in mail


async def test_the_demos_mailbox_keeps_each_mail_and_its_page(tmp_path: Path) -> None:
    async with Mailbox(tmp_path) as mailbox:
        await channel(mailbox.port).deliver(note(), "a@contoso.example")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["001-a@contoso.example.eml", "001-a@contoso.example.html"]
    assert len(mailbox.subjects) == 1


async def test_it_logs_in_after_the_connection_is_encrypted(certificate: tuple[Path, Path]) -> None:
    server = Server()
    options = {"tls_context": tls(certificate), "require_starttls": True, "auth_required": True}
    async with serving(server, authenticator=server.authenticate, **options) as port:
        await channel(port, "starttls", LOGIN, certificate[0]).deliver(note(), "a@contoso.example")
    assert server.logins == [(b"rater", b"secret")]
    assert len(server.mails) == 1


async def test_an_untrusted_certificate_is_refused(certificate: tuple[Path, Path]) -> None:
    server = Server()
    async with serving(server, tls_context=tls(certificate)) as port:
        with pytest.raises(NotNow):
            await channel(port, "starttls").deliver(note(), "a@contoso.example")
    assert server.mails == []


async def test_a_server_without_starttls_gets_no_unencrypted_mail() -> None:
    server = Server()
    async with serving(server) as port:
        with pytest.raises(NotNow):
            await channel(port, "starttls").deliver(note(), "a@contoso.example")
    assert server.mails == []


async def test_a_login_that_fails_is_tried_again_later(certificate: tuple[Path, Path]) -> None:
    server = Server()
    options = {"tls_context": tls(certificate), "require_starttls": True, "auth_required": True}
    async with serving(server, authenticator=server.authenticate, **options) as port:
        with pytest.raises(NotNow, match="does not let us in"):
            await channel(port, "starttls", ("rater", "wrong"), certificate[0]).deliver(note(), "a@contoso.example")


@pytest.mark.parametrize(("where", "said"), [("rcpt", "450 mailbox busy"), ("data", "451 try later")])
async def test_a_4xx_means_later(where: str, said: str) -> None:
    server = Server()
    setattr(server, where, said)
    async with serving(server) as port:
        with pytest.raises(NotNow, match=said[:3]):
            await channel(port).deliver(note(), "a@contoso.example")


@pytest.mark.parametrize(("where", "said"), [("rcpt", "550 no such user"), ("data", "554 refused")])
async def test_a_5xx_means_never(where: str, said: str) -> None:
    server = Server()
    setattr(server, where, said)
    async with serving(server) as port:
        with pytest.raises(Undeliverable, match=said[:3]):
            await channel(port).deliver(note(), "a@contoso.example")


async def test_no_server_means_later() -> None:
    async with serving(Server()) as port:
        pass
    with pytest.raises(NotNow):
        await channel(port).deliver(note(), "a@contoso.example")


def test_mail_does_not_leave_the_machine_unencrypted_unless_allowed() -> None:
    far: dict[str, Any] = {"mail_host": "mail.example", "mail_from": "credit@rater.example", "mail_security": "none"}
    with pytest.raises(ValueError, match="mail_plaintext_allowed"):
        Settings(**far)
    assert Settings(**far, mail_plaintext_allowed=True).mail_host == "mail.example"


def test_a_password_is_never_shown() -> None:
    server = MailServer("h", 587, "starttls", "rater", "hunter2", TIMEOUT_MS)
    settings = Settings(mail_host="h", mail_from="a@b.example", mail_user="rater", mail_password=SecretStr("hunter2"))
    assert "hunter2" not in f"{server!r} {settings!r}"
