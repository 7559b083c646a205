"""What a mail says, and that no name can inject headers or HTML."""

from email.message import EmailMessage
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rater.adapters.notices import Undeliverable
from rater.adapters.notices.mail_templates import MailTemplates
from rater.domain.outputs import NOTIFIED, Notification

MONEY = {"amount": "20.00", "currency": "EUR", "balance": "31.40", "command_id": "c"}
BALANCE = {"balance": "-0.25", "currency": "EUR"}
LOT = {"lot_id": "purchase:1", "expires_at": "2026-12-24T10:00:00Z", **MONEY}
FAILED = {"recharge_id": "contoso:1", "code": "insufficient_funds", "attempt": 1, **MONEY}
POOL = {"plan_id": "dom", "allowance_id": "near", "month": "2026-11", "minutes_total": 6900, "minutes_used": 5520}
#: Event type, its data as the core writes it, and phrases the mail must contain.
EVENTS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("allowance.exhausted", POOL | {"minutes_used": 6900}, ["6900 minutes", "used up"]),
    ("allowance.low", POOL, ["5520 of 6900", "2026-11"]),
    ("auto_recharge.capped", {"cap": "max_per_day", "balance": "3.00"}, ["3.00", "a day", "Raise the limit"]),
    ("auto_recharge.capped", {"cap": "max_amount_per_month", "balance": "3.00"}, ["a month"]),
    ("auto_recharge.disabled", {"reason": "hard_failure", "code": "expired_card"}, ["expired_card", "payment method"]),
    ("balance.depleted", BALANCE, ["-0.25 EUR", "are off", "Add funds"]),
    ("balance.low", {**BALANCE, "balance": "4.10", "threshold": "5.00"}, ["4.10 EUR", "5.00 EUR", "Add funds"]),
    ("balance.restored", {**BALANCE, "balance": "20.00"}, ["20.00 EUR", "work again"]),
    ("credit.expired", LOT, ["20.00 EUR", "24 December 2026", "31.40 EUR"]),
    ("credit.expiring", {"days": 30, **LOT}, ["20.00 EUR", "24 December 2026"]),
    ("recharge.failed", FAILED | {"final": True}, ["20.00 EUR", "insufficient_funds", "not tried again", "payment method"]),
    ("recharge.failed", FAILED | {"final": False, "next_attempt_at": "2026-11-25T10:00:00Z"}, ["again on 25 November 2026"]),
    (
        "recharge.succeeded",
        {"recharge_id": "contoso:1", "payment_reference": "pi_7", **MONEY},
        ["20.00 EUR", "31.40 EUR", "pi_7"],
    ),
]


def note(type_: str = "balance.low", data: dict[str, Any] | None = None, name: str = "Contoso") -> Notification:
    data = {**BALANCE, "threshold": "5.00"} if data is None else data
    return Notification("contoso:7", "contoso", "contoso:7", type_, name, ["a@contoso.example"], "2026-11-24T10:00:00Z", data)


def written(about: Notification, recipient: str = "a@contoso.example") -> EmailMessage:
    return MailTemplates("credit@rater.example").render(about, recipient)


def text_of(mail: EmailMessage) -> str:
    plain = mail.get_body(("plain",))
    assert plain is not None
    return " ".join(plain.get_content().split())


class Page(HTMLParser):
    """The words of an HTML page; checks that its tags nest properly."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words += data.split()


@pytest.mark.parametrize(("type_", "data", "said"), EVENTS)
def test_it_says_what_happened_how_much_and_what_to_do(type_: str, data: dict[str, Any], said: list[str]) -> None:
    mail = written(note(type_, data))
    words = f"{mail['subject']} {text_of(mail)}"
    assert [phrase for phrase in said if phrase not in words] == []


@pytest.mark.parametrize(("type_", "data", "said"), EVENTS)
def test_its_html_says_the_same_as_its_text(type_: str, data: dict[str, Any], said: list[str]) -> None:
    mail = written(note(type_, data))
    html = mail.get_body(("html",))
    assert html is not None
    assert text_of(mail) in " ".join(Page(html.get_content()).words)


def test_every_event_type_that_is_notified_has_a_template() -> None:
    assert {type_ for type_, _, _ in EVENTS} == NOTIFIED


@pytest.mark.parametrize("name", ["Contoso\r\nBcc: everybody@x.example", "Contoso\nX: 1", "Con\x00toso", "Con\u2028toso"])
def test_no_name_can_add_a_header(name: str) -> None:
    mail = written(note(name=name))
    assert set(mail.keys()) == set(written(note()).keys())
    assert "\n" not in str(mail["subject"])


def test_no_name_can_add_html() -> None:
    html = written(note(name="<script>alert(1)</script> & Sons")).get_body(("html",))
    assert html is not None
    assert "<script>" not in html.get_content()
    assert "&lt;script&gt;" in html.get_content()


@pytest.mark.parametrize("recipient", ["", "nobody", "a@b\r\nBcc: c@d.example", "a@b.example, c@d.example", "<a@b.example>"])
def test_an_invalid_address_is_undeliverable(recipient: str) -> None:
    with pytest.raises(Undeliverable):
        written(note(), recipient)


def test_the_same_mail_has_the_same_id_and_another_has_another() -> None:
    ids = [written(note())["message-id"], written(note())["message-id"], written(note(), "b@contoso.example")["message-id"]]
    assert ids[0] == ids[1] != ids[2]
    assert bytes(written(note())["message-id"], "ascii").endswith(b"@rater.example>")


def test_names_in_any_script_arrive_as_they_are() -> None:
    mail = written(note(name="株式会社テールスピン"))
    assert "株式会社テールスピン" in str(mail["subject"])
    assert "株式会社テールスピン" in text_of(mail)


def test_an_operators_template_replaces_ours(tmp_path: Path) -> None:
    (tmp_path / "balance.low.txt").write_text("Hello {{ name }}\n\nOnly {{ balance }} left.\n")
    mail = MailTemplates("credit@rater.example", tmp_path).render(note(), "a@contoso.example")
    assert (mail["subject"], text_of(mail)) == ("Hello Contoso", "Only -0.25 left.")
