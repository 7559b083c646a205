"""What a mail says: a template a kind of event, as plain text and, from the same words, as HTML.

A template's first line is the subject, the paragraphs after it are the body. `templates/layout.html` is the HTML around them.
A folder of the operator's own may hold any of them anew.
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
    """Writes mails from `sender`, an address; `folder` holds templates that go before ours."""

    def __init__(self, sender: str, folder: Path | None = None) -> None:
        self._sender = _address(sender)
        folders = [path for path in (folder, _OWN) if path is not None]
        loader = jinja2.FileSystemLoader(folders)
        # Plain text is escaped when it is put into HTML, not before.
        self._texts = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701
        self._pages = jinja2.Environment(loader=loader, undefined=jinja2.StrictUndefined, autoescape=True)

    def render(self, note: Notification, recipient: str) -> EmailMessage:
        """The mail to one recipient, the same at every try. Raises `Undeliverable` when the address is none."""
        subject, text = self._words(note)
        html = self._pages.get_template(_LAYOUT).render(
            subject=subject, paragraphs=text.split("\n\n"), name=_one_line(note.name), org_id=note.org_id
        )
        letter = EmailMessage(policy=SMTP)
        letter["Subject"] = subject
        letter["From"] = self._sender
        letter["To"] = _address(recipient)
        letter["Date"] = format_datetime(datetime.fromisoformat(note.at))
        letter["Message-ID"] = f"<{_digest(note, recipient)}@{self._sender.domain}>"
        letter["Auto-Submitted"] = "auto-generated"
        letter.set_content(text + "\n")
        letter.add_alternative(html, subtype="html")
        return letter

    def _words(self, note: Notification) -> tuple[str, str]:
        """Subject and paragraphs."""
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
    """Nothing in it can begin another header, or be no character at all."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _day(moment: str) -> str:
    """A moment of the data as a date."""
    return f"{datetime.fromisoformat(moment):%d %B %Y}"
