"""Renders mails from templates, one per event type: plain text, and HTML from the same words.

The first line of a template is the subject, the paragraphs after it the body. `templates/layout.html` is the HTML around the
paragraphs. Operators can replace any of these files with one of the same name in a folder of their own.
"""

from datetime import datetime
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from hashlib import blake2b
from pathlib import Path

import jinja2

from rater.adapters.notices import Undeliverable
from rater.domain.outputs import Notification

_OWN = Path(__file__).parent / "templates"
_LAYOUT = "layout.html"
_ID_BYTES = 16


class MailTemplates:
    """Renders mails from the address `sender`. `folder`: templates that replace those of the same name here.

    Raises `Undeliverable` if `sender` is not a mail address.
    """

    def __init__(self, sender: str, folder: Path | None = None) -> None:
        self._sender = _address(sender)
        folders = [path for path in (folder, _OWN) if path is not None]
        loader = jinja2.FileSystemLoader(folders)
        # Plain text is escaped when it goes into the HTML, not before.
        self._texts = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701
        self._pages = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=True)

    def render(self, note: Notification, recipient: str) -> EmailMessage:
        """The mail to one recipient, the same at every retry. Raises `Undeliverable` if `recipient` is not a mail address."""
        subject, text = self._words(note)
        html = self._pages.get_template(_LAYOUT).render(
            subject=subject, paragraphs=text.split("\n\n"), name=_one_line(note.name), org_id=note.org_id
        )
        mail = EmailMessage(policy=SMTP)
        mail["Subject"] = subject
        mail["From"] = self._sender
        mail["To"] = _address(recipient)
        mail["Date"] = format_datetime(datetime.fromisoformat(note.at))
        mail["Message-ID"] = f"<{_digest(note, recipient)}@{self._sender.domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(text + "\n")
        mail.add_alternative(html, subtype="html")
        return mail

    def _words(self, note: Notification) -> tuple[str, str]:
        """Subject, and the body with one blank line between paragraphs."""
        at = f"{datetime.fromisoformat(note.at):%d %B %Y, %H:%M} UTC"
        rendered = self._texts.get_template(f"{note.type}.txt").render(
            name=_one_line(note.name), org_id=note.org_id, at=at, day=_day, **note.data
        )
        subject, _, text = rendered.strip().partition("\n")
        paragraphs = [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]
        return _one_line(subject), "\n\n".join(paragraph for paragraph in paragraphs if paragraph)


def _address(text: str) -> Address:
    try:
        return Address(addr_spec=text)
    except (MessageError, ValueError, IndexError) as error:
        raise Undeliverable(f"{text[:100]!r} is no mail address") from error


def _digest(note: Notification, recipient: str) -> str:
    return blake2b(f"{note.notification_id}\n{recipient}".encode(), digest_size=_ID_BYTES).hexdigest()


def _one_line(text: str) -> str:
    """The text without control characters and line breaks, so that it can't start another mail header."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _day(moment: str) -> str:
    """An ISO 8601 instant as a date, like "24 December 2026"; templates call it `day`."""
    return f"{datetime.fromisoformat(moment):%d %B %Y}"
