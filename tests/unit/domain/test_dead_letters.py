"""A dead letter says why its record was not rated and where it stood (contract, "Topics")."""

from rater.domain.dead_letters import DEAD_LETTER_BYTES_MAX, dead_letter_of, own_headers, reason_of
from rater.domain.rejection import Rejected
from rater.kafka.log import LogRecord

RECORD = LogRecord("calls", 0, b"contoso", b"{}", [("trunk", b"7")], 5, 3)
NO_RATE = Rejected("no_rate", "no such rate")


def test_the_headers_have_the_names_of_the_contract() -> None:
    assert dead_letter_of(RECORD, NO_RATE).headers == [
        ("trunk", b"7"),
        ("__connect.errors.topic", b"calls"),
        ("__connect.errors.partition", b"3"),
        ("__connect.errors.offset", b"5"),
        ("__connect.errors.exception.message", b"no such rate"),
        ("rater.error.code", b"no_rate"),
        ("rater.error.retryable", b"true"),
    ]


def test_a_record_too_large_to_pass_on_leaves_its_size() -> None:
    large = LogRecord("calls", 0, None, b"x" * (DEAD_LETTER_BYTES_MAX + 1))
    letter = dead_letter_of(large, NO_RATE)
    assert (letter.key, letter.value) == (None, None)
    assert letter.headers[0] == ("rater.error.left_out_bytes", b"%d" % (DEAD_LETTER_BYTES_MAX + 1))


def test_a_reason_reads_back_as_it_was_written() -> None:
    reason = reason_of(dead_letter_of(RECORD, NO_RATE).headers)
    assert (reason.topic, reason.partition, reason.offset) == ("calls", 3, 5)
    assert (reason.code, reason.message, reason.retryable) == ("no_rate", "no such rate", True)


def test_a_forged_header_does_not_hide_the_raters_own() -> None:
    forged = LogRecord("calls", 0, b"contoso", b"{}", [("rater.error.code", b"forged")])
    assert reason_of(dead_letter_of(forged, NO_RATE).headers).code == "no_rate"


def test_malformed_headers_are_read_without_an_error() -> None:
    reason = reason_of([("__connect.errors.offset", b"five"), ("rater.error.code", None)])
    assert (reason.topic, reason.offset, reason.code, reason.retryable) == ("", -1, "unknown", False)


def test_own_headers_are_those_the_record_came_with() -> None:
    assert own_headers(dead_letter_of(RECORD, NO_RATE).headers) == [("trunk", b"7")]
