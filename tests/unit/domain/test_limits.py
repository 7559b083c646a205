"""At the limits of what a message may say, nothing raises and nothing is lost."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from rater.domain import moments
from rater.domain.dead_letters import DEAD_LETTER_BYTES_MAX, LEFT_OUT_BYTES_HEADER, reason_of
from rater.kafka.log import LogRecord
from tests.builders import ORG, TOPICS, Desk, dead, events, messages, rated

MOST = "999999999999.999999"
MINUTE_US = 60_000_000


@pytest.mark.parametrize("zone", ["America/St_Johns", "Pacific/Kiritimati", "Pacific/Apia", "Africa/Cairo", "UTC"])
def test_every_instant_has_a_month_and_months_follow_one_another(zone: str) -> None:
    """St John's put its clocks back at 00:01 on 1 November 2009: that midnight came twice."""
    for year, month in ((1994, 12), (1995, 1), (2009, 11), (2011, 12), (2199, 12)):
        begins_us = moments.to_us(datetime(year, month, 1, tzinfo=ZoneInfo(zone)))
        before = None
        for minutes in range(-180, 181, 15):
            found = moments.Calendar(zone).month_of(begins_us + minutes * MINUTE_US)
            assert before in (None, found) or found.start_us == before.end_us
            before = found
        assert before is not None
        assert before.name == f"{year}-{month:02d}"


def test_a_wallet_takes_no_more_than_its_sums_can_hold() -> None:
    desk = Desk().ready(funds=None)
    codes = [events(desk.funds(MOST))[0] for _ in range(6)]
    assert codes == ["funds.added"] * 4 + ["command.refused"] * 2
    assert desk.state()["balance"] == "3999999999999.999996"


def test_a_wallet_goes_no_deeper_into_debt_than_its_sums_can_hold() -> None:
    desk = Desk().ready(funds=None)
    for _ in range(4):
        desk.command("funds.adjust", amount="-" + MOST, reason="r")
    refused = desk.command("funds.adjust", amount="-" + MOST, reason="r")
    assert messages(refused, TOPICS.event)[0]["data"]["code"] == "invalid_field"


def test_a_call_that_costs_more_than_a_wallet_can_owe_can_be_rated_later() -> None:
    desk = Desk().ready()
    desk.rate(MOST)
    letters = desk.call(seconds=30 * 86_400)
    assert dead(letters) == "no_rate"
    assert reason_of(letters[0].headers).retryable
    desk.rate("0.01")
    assert rated(desk.call(seconds=30 * 86_400))["charge"] == "432.00"


def test_a_number_too_large_to_decode_is_an_invalid_field() -> None:
    desk = Desk().ready()
    for number in (b"1E400", b"9" * 5000):
        record = desk.record(TOPICS.cdr, ORG, b'{"cdr_id":"c","org_id":"contoso","duration_ms":%b}' % number)
        assert dead(desk.give(record)) == "invalid_field"


@pytest.mark.parametrize("part", ["key", "value", "headers"])
def test_a_record_too_large_for_the_topic_is_dead_lettered_without_its_content(part: str) -> None:
    """Compressed, such a record fits into its own topic."""
    large: Any = b"x" * DEAD_LETTER_BYTES_MAX
    desk = Desk().ready()
    record = LogRecord(TOPICS.cdr, desk.now_ms, b"k", b"{", [("h", b"v")], 5)
    setattr(record, part, [("h", large)] if part == "headers" else large)
    letters = desk.give(record)
    assert (letters[0].key, letters[0].value) == (None, None)
    headers = dict(letters[0].headers)
    assert int(headers[LEFT_OUT_BYTES_HEADER]) > DEAD_LETTER_BYTES_MAX
    assert reason_of(letters[0].headers).offset == 5
    assert "h" not in headers
