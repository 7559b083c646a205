"""The log: its form, its levels, and that personal data and secrets are masked."""

import io
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.contextvars import bound_contextvars

from rater.ops.logging import mask, set_up
from rater.settings import Settings

NUMBERS = st.from_regex(r"\+[1-9]\d{6,14}", fullmatch=True)
MAILS = st.from_regex(r"[a-z0-9][a-z0-9._+-]{0,20}@[a-z0-9]{1,10}(\.[a-z]{2,5})?", fullmatch=True)
TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)
SECRETS = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "sk_live_51H8abc", "rk_test_51H8abc"]

log = logging.getLogger("rater.tests")


def said(act: Callable[[], object], level: str = "info") -> list[dict[str, Any]]:
    """The JSON lines that `act` logs."""
    out = io.StringIO()
    set_up(level, "json", out)
    act()
    return [json.loads(line) for line in out.getvalue().splitlines()]


def test_a_json_line_begins_with_timestamp_level_logger_and_event() -> None:
    (line,) = said(lambda: log.warning("%d of %d", 1, 2, extra={"partition": 3}))
    assert list(line)[:4] == ["timestamp", "level", "logger", "event"]
    assert (line["level"], line["logger"], line["event"], line["partition"]) == ("warning", "rater.tests", "1 of 2", 3)
    assert line["timestamp"].endswith("Z")


def test_console_format_is_one_line_of_text() -> None:
    out = io.StringIO()
    set_up("info", "console", out)
    log.error("no room", extra={"partition": 3})
    assert "no room" in out.getvalue()
    assert "partition=3" in out.getvalue()
    assert len(out.getvalue().splitlines()) == 1


def test_without_a_terminal_the_default_is_json() -> None:
    out = io.StringIO()
    set_up("info", "auto", out)
    log.info("x")
    assert json.loads(out.getvalue())["event"] == "x"


def test_lines_below_the_level_are_dropped_and_libraries_only_log_warnings() -> None:
    def act() -> None:
        log.debug("x")
        logging.getLogger("aiokafka.consumer").info("x")
        logging.getLogger("aiokafka.consumer").warning("y")

    assert [line["event"] for line in said(act)] == ["y"]


def test_the_steps_of_fausts_services_are_only_logged_at_debug() -> None:
    def act() -> None:
        logging.getLogger("rater.engine.engine").info("[^-Engine]: Starting...")

    assert said(act) == []
    assert len(said(act, "debug")) == 1


def test_bound_fields_are_in_every_line_of_the_block() -> None:
    def act() -> None:
        with bound_contextvars(recharge_id="r:1"):
            log.info("x")
        log.info("y")

    first, second = said(act)
    assert first["recharge_id"] == "r:1"
    assert "recharge_id" not in second


def test_an_exception_is_a_field_of_its_line() -> None:
    def act() -> None:
        try:
            raise ValueError("callee +493012345678")
        except ValueError:
            log.exception("failed")

    (line,) = said(act)
    assert "ValueError" in line["exception"]
    assert "+493012345678" not in json.dumps(line)


@given(NUMBERS, TEXT, TEXT)
def test_no_phone_number_is_logged(number: str, before: str, after: str) -> None:
    assert number not in mask(before + number + after)


@given(MAILS, TEXT, TEXT)
def test_no_mail_address_is_logged(mail: str, before: str, after: str) -> None:
    assert mail not in mask(before + mail + after)


@pytest.mark.parametrize("secret", SECRETS)
def test_no_key_is_logged(secret: str) -> None:
    assert secret not in mask(f"refused: {secret}.")


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer abc.def",
        "{'Authorization': 'Basic abc.def'}",
        "https://user:hunter2@pay.example/x",
        "password=hunter2",
        '{"api_key": "hunter2"}',
    ],
)
def test_no_credentials_are_logged(text: str) -> None:
    assert "hunter2" not in mask(text)
    assert "abc.def" not in mask(text)


@pytest.mark.parametrize(
    "text",
    [
        "rating[0]: open, reading from {'telephony.cdr.v1': 6216000000}",
        "2026-11-24T07:25:47.916571+00:00 offset 1795500000000",
        "recharge:contoso:17 attempt 2: again in 1500 ms",
        "balance 12.345678 USD, 1e+16",
        "a basic plan, its bearer",
    ],
)
def test_offsets_timestamps_ids_and_amounts_are_not_masked(text: str) -> None:
    assert mask(text) == text


def test_arguments_and_fields_are_masked_too() -> None:
    def act() -> None:
        log.info("%s", {"callee": "+493012345678"}, extra={"to": ["a.user@example.com"], "caller": "0301234567"})

    (line,) = said(act)
    assert line["event"] == "{'callee': '+4…78'}"
    assert line["to"] == ["a…@example.com"]
    assert line["caller"] == "…"


def test_settings_never_show_their_secrets() -> None:
    secrets = {"stripe_api_key": "sk_live_51H8abc", "http_token": "correct-horse-battery"}
    settings = Settings.model_validate({"payment_gateway": "stripe", **secrets})
    (line,) = said(lambda: log.info("%r %s", settings, settings.model_dump()))
    assert "51H8abc" not in json.dumps(line)
    assert "correct-horse" not in json.dumps(line)


def test_addresses_without_a_space_between_them_are_masked() -> None:
    assert mask("x@0@0") == "x…@0"
