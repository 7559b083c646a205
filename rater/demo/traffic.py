"""Realistic calls of the sample organizations: all call types, some bad records, some duplicates. Deterministic for a seed.

The calls are only for show, so random numbers are fine here.
"""

import random
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

#: Where the sample organizations call: prefix, and number of digits after it.
_CALLEES = {
    "USD": (("1425", 7), ("1242357", 4), ("4420", 8), ("4915", 9), ("3316", 7), ("8131", 8), ("52", 10), ("9198", 8)),
    "EUR": (("4930", 8), ("4915", 9), ("331", 8), ("4420", 8), ("1212", 7)),
    "JPY": (("813", 8), ("8190", 8), ("1415", 7)),
}
_CONFERENCE_CALLEES = (("1425", 7), ("4420", 8), ("4915", 9))
_CALL_TYPES = (
    *["user_out"] * 10,
    *["user_in"] * 6,
    *["conf_out", "conf_in"] * 2,
    *["user_out_conf", "user_out_transfer", "user_out_forwarding", "ucap_in", "ucap_out", "unassigned_in", "emergency_out"],
)
_BAD_SHARE = 0.03
_DUPLICATE_SHARE = 0.02


class Traffic:
    """Generates CDRs. `organizations`: as in samples/organizations.json."""

    def __init__(self, organizations: Sequence[dict[str, Any]], seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 - must be the same each time
        self._organizations = organizations
        self._weights = [sum(group["count"] for group in org["users"]) for org in organizations]
        self._sent: list[tuple[str, dict[str, Any]]] = []
        self._made = 0

    def calls(self, count: int, now_s: float) -> Iterator[tuple[str, bytes]]:
        """`count` records as (key, value), of calls that ended just before `now_s`."""
        for _ in range(count):
            org_id, message = self._next(now_s)
            yield org_id, message if isinstance(message, bytes) else msgspec.json.encode(message)

    def _next(self, now_s: float) -> tuple[str, dict[str, Any] | bytes]:
        draw = self._random
        self._made += 1
        if self._sent and draw.random() < _DUPLICATE_SHARE:
            return draw.choice(self._sent[-500:])
        org = draw.choices(self._organizations, self._weights)[0]
        cdr = self._cdr(org, now_s)
        if draw.random() < _BAD_SHARE:
            return self._bad(org["org_id"], cdr)
        self._sent.append((org["org_id"], cdr))
        return org["org_id"], cdr

    def _cdr(self, org: dict[str, Any], now_s: float) -> dict[str, Any]:
        draw = self._random
        call_type = draw.choice(_CALL_TYPES)
        if call_type == "conf_out" and not any("audio_conferencing" in group for group in org["users"]):
            call_type = "user_out"
        duration_ms = 0 if draw.random() < 0.1 else int(draw.lognormvariate(11.3, 1.1))
        duration_ms = min(duration_ms, 4 * 3_600_000)
        answered = datetime.fromtimestamp(int(now_s), UTC) - timedelta(milliseconds=duration_ms)
        prefix, digits = draw.choice(_CONFERENCE_CALLEES if call_type == "conf_out" else _CALLEES[org["currency"]])
        users = sum(group["count"] for group in org["users"])
        cdr: dict[str, Any] = {
            "cdr_id": f"sbc-1:{self._made:08d}",
            "org_id": org["org_id"],
            "user_id": f"user-{draw.randrange(users) + 1}",
            "call_type": call_type,
            "caller": "+14255550142" if draw.random() < 0.9 else "anonymous",
            "callee": f"+{prefix}{draw.randrange(10**digits):0{digits}d}",
            "answered_at": answered.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "duration_ms": duration_ms,
            "source": "sbc-1",
        }
        if call_type == "emergency_out":
            cdr["callee"] = "911"
        toll_free = [number["number"] for number in org.get("numbers", []) if number["kind"] == "toll-free"]
        if call_type in ("user_in", "unassigned_in") and toll_free and draw.random() < 0.5:
            del cdr["user_id"]
            cdr |= {"number_type": "toll-free", "callee": toll_free[0]}
        elif call_type == "user_out" and org.get("numbers") and draw.random() < 0.05:
            cdr["callee"] = org["numbers"][0]["number"]
        return cdr

    def _bad(self, org_id: str, cdr: dict[str, Any]) -> tuple[str, dict[str, Any] | bytes]:
        """A record with one of all the faults there can be."""
        out = cdr | {"call_type": "user_out", "number_type": "subscriber", "duration_ms": 65_000, "user_id": "user-1"}
        deep: Any = []
        for _ in range(9):
            deep = [deep]
        kinds: list[tuple[str, dict[str, Any] | bytes]] = [
            (org_id, b"<cdr>this switch speaks XML</cdr>"),
            (org_id, cdr | {"padding": "x" * 70_000}),
            (org_id, cdr | {"vendor": deep}),
            (org_id, cdr | {"duration_ms": "65000"}),
            (org_id, out | {"callee": "sip:reception@example.org"}),
            (org_id, out | {"callee": "+9995551234567"}),
            (org_id, out | {"user_id": "user-of-another-town"}),
            (org_id, out | {"answered_at": "2024-02-29T12:00:00Z"}),
            ("initech", cdr | {"org_id": "initech"}),
        ]
        if self._sent:
            owner, sent = self._sent[-1]
            kinds.append((owner, sent | {"duration_ms": sent["duration_ms"] + 1000}))
        return self._random.choice(kinds)
