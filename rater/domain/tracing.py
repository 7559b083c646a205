"""The trace a call belongs to (W3C Trace Context): kept from the call-detail record to the rated call, byte for byte."""

import re
from collections.abc import Sequence

_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE_BYTES_MAX = 512

Headers = Sequence[tuple[str, bytes]]


def trace_of(headers: Headers) -> Headers:
    """Of a record's headers those that say which trace it is of; none where `traceparent` is not well-formed."""
    parent = _first(headers, "traceparent")
    if parent is None or not _TRACEPARENT.fullmatch(parent):
        return ()
    state = _first(headers, "tracestate")
    if state is None or len(state) > _TRACESTATE_BYTES_MAX:
        return [("traceparent", parent)]
    return [("traceparent", parent), ("tracestate", state)]


def _first(headers: Headers, wanted: str) -> bytes | None:
    return next((value for name, value in headers if name == wanted), None)
