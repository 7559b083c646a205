"""The trace of a call (W3C Trace Context): its headers are copied from the CDR to the rated call, byte for byte."""

import re
from collections.abc import Sequence

#: version-trace-parent-flags. Ids of zeros only are invalid, and so is the version ff.
_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_TRACESTATE = re.compile(rb"[\t\x20-\x7e]+")
_TRACESTATE_BYTES_MAX = 512

Headers = Sequence[tuple[str, bytes]]


def trace_of(headers: Headers) -> Headers:
    """The headers among these that name the trace; none if `traceparent` is malformed or there are two of them."""
    parent = _only(headers, "traceparent")
    if parent is None or not _TRACEPARENT.fullmatch(parent):
        return ()
    state = _only(headers, "tracestate")
    if state is None or len(state) > _TRACESTATE_BYTES_MAX or not _TRACESTATE.fullmatch(state):
        return [("traceparent", parent)]
    return [("traceparent", parent), ("tracestate", state)]


def _only(headers: Headers, wanted: str) -> bytes | None:
    found = [value for name, value in headers if name == wanted]
    return found[0] if len(found) == 1 else None
