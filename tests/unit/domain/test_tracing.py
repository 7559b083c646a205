"""A rated call carries the trace of its CDR."""

import pytest

from rater.kafka.log import LogRecord
from tests.builders import ORG, TOPICS, Desk

PARENT = ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
STATE = ("tracestate", b"vendor=1")


def rated_headers(*headers: tuple[str, bytes | None]) -> list[tuple[str, bytes]]:
    """The headers of the rated call, if its CDR has these headers."""
    desk = Desk()
    desk.organization()
    call = _call(desk)
    call.headers = headers  # type: ignore[assignment]
    return [header for out in desk.give(call) if out.topic == TOPICS.rated for header in out.headers]


def _call(desk: Desk) -> LogRecord:
    cdr = {"cdr_id": "1", "org_id": ORG, "call_type": "user_in", "caller": "+14255550100", "callee": "+14255550101"}
    return desk.record(TOPICS.cdr, ORG, cdr | {"answered_at": "2025-10-01T11:00:00Z", "duration_ms": 1000})


def test_a_trace_is_kept() -> None:
    assert rated_headers(PARENT, STATE) == [PARENT, STATE]
    assert rated_headers(("x", b"1"), PARENT, ("y", b"2")) == [PARENT]


NOT_WELL_FORMED = [
    None,
    b"",
    b"00-0-0-01",
    PARENT[1].replace(b"a", b"g"),
    PARENT[1] + b"-x" * 99,
    b"ff" + PARENT[1][2:],
    b"00-" + b"0" * 32 + PARENT[1][35:],
    PARENT[1][:36] + b"0" * 16 + b"-01",
]


@pytest.mark.parametrize("value", NOT_WELL_FORMED)
def test_a_malformed_traceparent_is_left_out_with_its_tracestate(value: bytes | None) -> None:
    assert rated_headers(("traceparent", value), STATE) == []


@pytest.mark.parametrize("state", [b"x" * 513, b"\x00\xff", b""])
def test_a_tracestate_that_is_too_long_or_not_text_is_left_out(state: bytes) -> None:
    assert rated_headers(PARENT, ("tracestate", state)) == [PARENT]


def test_of_two_traces_neither_is_kept() -> None:
    assert rated_headers(PARENT, PARENT) == []


def test_without_a_trace_there_are_no_headers() -> None:
    assert rated_headers() == []
