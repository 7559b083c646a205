"""Bad input of every kind, the same for the same seed: good messages with altered fields or bytes, odd keys and odd timestamps.

Much of it is still valid (a field that is ignored, a number at its limit), and some of that is trouble all the same (a price
higher than any wallet, a plan removed while users hold it). Every record must be accounted for.
"""

import copy
import json
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rater.domain import moments
from rater.domain.dead_letters import CODE_HEADER, TOPIC_HEADER
from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics

ORGS = ("acme", "müller-ü", "x" * 128)
ZONES = ("America/St_Johns", "Pacific/Kiritimati", "UTC", "Europe/Berlin", "../../etc/passwd", "", "Mars/Base", "UTC\0")
LARGE_BYTES = 70_000


class Raw(str):
    """Text written as it is: numbers that no library would write, or no JSON at all."""

    __slots__ = ()


ODD_VALUES: tuple[Any, ...] = (
    None, True, False, [], {}, [[]], "", " ", "x" * 129, "x" * 300, "\0", "\u2028", "é" * 128, "😀", "NaN", "1e5", "-0", "+1",
    "٣", Raw("NaN"), Raw("Infinity"), Raw("-Infinity"), Raw("-0"), Raw("-0.0"), Raw("0.1"), Raw("1e3"), Raw("1E400"),
    Raw("-1e-400"), Raw("9" * 30), Raw("9" * 5000), Raw("-" + "9" * 30), Raw("01"), Raw("0x10"), Raw("1_000"), Raw("undefined"),
    Raw("'a'"), Raw('"\\ud800"'), Raw('"\\udc00\\ud800"'), Raw('"\\ud83d\\ude00"'), Raw('"\\u0000"'), Raw('"\\x41"'),
    Raw('"\n"'), 2**31, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), -(2**53) - 1, -1, 0, 1, 31 * 86_400_000, 31 * 86_400_000 + 1,
    "9999-12-31T23:59:59Z", "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59",
    "0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "2016-12-31T23:59:60Z", "2025-02-29T00:00:00Z", "2024-02-29T00:00:00Z",
    "2025-10-01T24:00:00Z", "2025-10-01T11:00:00", "2025-10-01", "2025-10-01t11:00:00z", "2025-10-01T11:00:00.123456789Z",
    "2025-10-01T11:00:00+25:00", "2025-10-01T11:00:00-00:00", "1969-12-31T23:59:59.999999Z", "1970-01-01T00:00:00Z",
    "2199-12-31T23:59:59.999Z", "2200-01-01T00:00:00Z", "2009-11-01T02:45:00Z", "2025-09-30T23:59:59Z",
    "0", "0.000001", "999999999999.999999", "-999999999999.999999", "1000000000000", "0.0000001", "00.1", "1.", ".5", "1,5",
    "5", "USD", "XXX", "usd", "EUR", "US", "*", ["US"], ["us"], "+442079460000", "+0123", "+" + "9" * 15,
    "+" + "9" * 16, "tel:+4420", "44", "4" * 15, "4" * 16, "outbound", "toll-free", "plan", "user_out", "funds.add", *ZONES,
)  # fmt: skip

ODD_BYTES: tuple[bytes | None, ...] = (
    None, b"", b" ", b"\n", b"\0", b"\0\0\0", b"\0\0\0\0\7", b"\0\0\0\0\7{}", b"{", b"}", b"{}", b"[]", b"[{}]", b"null",
    b"true", b"0", b'""', b'"', b"NaN", b"\xff", b"\xfe\xff\0{", b"\xef\xbb\xbf{}", b"{}{}", b"{}\0", b"//\n{}", b"<xml/>",
    b"a,b,c\n1,2,3", b"[" * 9 + b"]" * 9, b"[" * 100_000, b"[" * 30_000 + b"]" * 30_000,
    b'{"a":' * 9 + b"1" + b"}" * 9, b'{"a":' * 10_000, b'{"a":"' + b"[" * 60_000 + b'"}', b"\0" * LARGE_BYTES,
    b'"' + b"x" * LARGE_BYTES + b'"',
)  # fmt: skip

#: None that are in the future and valid: the topics refuse those.
ODD_TIMES_MS = (-1, 0, 1, -2, 2**62, -(2**62), 2**63 - 1, 7_258_118_400_000)

ODD_HEADERS: tuple[Any, ...] = (
    (),
    [("", b"")],
    [("trace", None)],
    [(TOPIC_HEADER, b"forged"), (CODE_HEADER, b"forged")],
    [("é😀\0", b"\xff\0")],
    [("same", b"1"), ("same", b"2")],
    [("large", b"x" * 10_000)],
    [(f"h{i}", b"") for i in range(300)],
)


class Poison:
    """Draws records, each later than the last by one of `steps_ms`, except for odd `times_ms`."""

    def __init__(
        self,
        topics: Topics,
        seed: int,
        start_ms: int,
        steps_ms: Sequence[int] = (0, 1, 10, 1000),
        times_ms: Sequence[int] = ODD_TIMES_MS,
    ) -> None:
        self._topics = topics
        self._draw = random.Random(seed)
        self._now_ms = start_ms
        self._steps_ms = steps_ms
        self._times_ms = times_ms
        self._answered_at = moments.to_text((start_ms - 3_600_000) * 1000)
        self._count = 0

    def stage(self) -> Iterator[LogRecord]:
        """The accounts and the catalog that the good records need."""
        for org in ORGS:
            for message in (_organization(org), _user(org), _funds(org)):
                yield self._record(self._topics.command, org, _json(self._named(message)))
        yield self._record(self._topics.rate, "r44", _json(_rate()))
        yield self._record(self._topics.plan, "plan", _json(_plan()))

    def catalog(self) -> Iterator[LogRecord]:
        """A catalog row with each of the odd values, and many altered rows; each with a key of its own."""
        draw, topics = self._draw, self._topics
        for topic, good, name in ((topics.rate, _rate, "rate_id"), (topics.plan, _plan, "plan_id")):
            for number in range(2 * len(ODD_BYTES)):
                row = good() | {name: f"{name}-{number}"}
                self._alter(row)
                value = draw.choice((_json(row), self._bytes(_json(row)))) if number >= len(ODD_BYTES) else ODD_BYTES[number]
                yield self._record(topic, f"{name}-{number}", value)

    def traffic(self) -> LogRecord:
        """The next record of a CDR or command topic."""
        while True:
            record = self.record()
            if record.topic in (self._topics.cdr, self._topics.command):
                return record

    def record(self) -> LogRecord:
        """The next record."""
        draw = self._draw
        topic, key, message = self._good()
        value: bytes | None = _json(message)
        for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
            self._alter(message)
            value = _json(message)
        kind = draw.random()
        if kind < 0.05:
            value = draw.choice(ODD_BYTES)
        elif kind < 0.15:
            value = self._bytes(value or b"")
        named = message.get("org_id" if topic in (self._topics.cdr, self._topics.command) else f"{topic.split('.')[-2]}_id")
        if isinstance(named, str) and not isinstance(named, Raw) and draw.random() < 0.9:
            key = named
        record = self._record(topic, key, value)
        if draw.random() < 0.03:
            record.key = draw.choice((None, b"", b"\xff", b"acme ", b"\0acme", b"k" * 10_000))
        if draw.random() < 0.03:
            record.timestamp = draw.choice(self._times_ms)
        if draw.random() < 0.1:
            record.headers = draw.choice(ODD_HEADERS)
        return record

    def _good(self) -> tuple[str, str, dict[str, Any]]:
        draw, topics = self._draw, self._topics
        org = draw.choice(ORGS)
        kind = draw.random()
        if kind < 0.5:
            return topics.cdr, org, self._named(_cdr(org, self._answered_at, draw.choice(("user_out", "user_in", "conf_out"))))
        if kind < 0.8:
            return topics.command, org, self._named(draw.choice(_COMMANDS)(org))
        if kind < 0.9:
            return topics.plan, "plan", _plan()
        return topics.rate, "r44", _rate()

    def _named(self, message: dict[str, Any]) -> dict[str, Any]:
        """The message with an id of its own, or with the id of one of the last few."""
        self._count += self._draw.random() < 0.9
        for name in ("cdr_id", "command_id"):
            if name in message:
                message[name] = f"{name}-{self._count - self._draw.choice((0, 0, 0, 0, 1, 2))}"
        if message.get("type") == "call.void":
            message["cdr_id"] = f"cdr_id-{self._count - self._draw.randrange(20)}"
        return message

    def _alter(self, message: dict[str, Any]) -> None:
        """Change one field, at any depth: remove, rename, nest it, or give it another type or size."""
        draw = self._draw
        holder: Any = message
        while True:
            inner = [
                value for value in (holder.values() if isinstance(holder, dict) else holder) if isinstance(value, dict | list)
            ]
            if not inner or draw.random() < 0.6:
                break
            holder = draw.choice(inner)
        if isinstance(holder, list):
            holder.append(self._odd())
            return
        names = list(holder)
        name = draw.choice([*names, "extra"]) if names else "extra"
        kind = draw.random()
        if kind < 0.15:
            holder.pop(name, None)
        elif kind < 0.25:
            holder[name.upper()] = holder.pop(name, None)
        elif kind < 0.35:
            holder[name] = [holder.get(name)] if draw.random() < 0.5 else {name: holder.get(name)}
        elif kind < 0.4:
            holder[name] = Raw("[" * draw.choice((7, 8, 9, 60)) + "1" + "]" * draw.choice((7, 8, 9, 60)))
        elif kind < 0.43:
            holder["extra"] = "x" * draw.choice((65_000, LARGE_BYTES))
        else:
            holder[name] = self._odd()

    def _odd(self) -> Any:
        return copy.deepcopy(self._draw.choice(ODD_VALUES))

    def _bytes(self, value: bytes) -> bytes:
        """The same bytes, damaged."""
        draw = self._draw
        place = draw.randrange(len(value) + 1)
        choices: tuple[Callable[[], bytes], ...] = (
            lambda: value[:place],
            lambda: value[:place] + bytes([draw.randrange(256)]) + value[place:],
            lambda: value[:place] + bytes([draw.randrange(256)]) + value[place + 1 :],
            lambda: b"\xef\xbb\xbf" + value,
            lambda: value + draw.choice((b"\0", b"\n", b"}", value)),
            lambda: b"\0" + draw.randbytes(draw.randrange(6)) + value,
            lambda: b"\0\0\0\0\1" + value,
            lambda: value.decode().encode("utf-16"),
            lambda: value.replace(b'"', b"'"),
            lambda: value[:-1] + b"," + value[1:],  # every field twice
            lambda: value[:-1] + b',"org_id":"acme","duration_ms":1}',
        )
        return draw.choice(choices)()

    def _record(self, topic: str, key: str, value: bytes | None) -> LogRecord:
        self._now_ms += self._draw.choice(self._steps_ms)
        return LogRecord(topic, self._now_ms, key.encode(errors="replace"), value)


def _json(value: Any) -> bytes:
    """JSON, except for `Raw`."""
    return _text(value).encode()


def _text(value: Any) -> str:
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name)}:{_text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def _cdr(org: str, answered_at: str, call_type: str) -> dict[str, Any]:
    cdr: dict[str, Any] = {"cdr_id": "", "org_id": org, "user_id": "u1", "call_type": call_type, "number_type": "subscriber"}
    cdr |= {"caller": "+14255550100", "callee": "+442079460000", "answered_at": answered_at, "duration_ms": 61_000}
    return {**cdr, "conference_id": "c", "source": "sbc", "switch": "s", "trunk": "t"}


def _rate() -> dict[str, Any]:
    rate = {
        "rate_id": "r44",
        "rate_card": "default",
        "service": "outbound",
        "prefix": "44",
        "destination": "GB",
        "country": "GB",
    }
    rate |= {"number_type": "mixed", "currency": "USD", "rate_per_minute": "0.013", "connection_fee": "0.05"}
    rate |= {"minimum_charge": "0.01", "effective_from": "2020-01-01T00:00:00Z", "effective_to": "2030-01-01T00:00:00Z"}
    return {**rate, "initial_increment_s": 60, "increment_s": 6}


def _plan() -> dict[str, Any]:
    home = {"allowance_id": "home", "minutes_per_user": 10, "destinations": ["GB"], "number_types": ["mixed"]}
    abroad = {"allowance_id": "abroad", "minutes_per_user": 5, "destinations": "*"}
    return {"plan_id": "plan", "name": "p", "service": "outbound", "allowances": [home, abroad], "joint_exhaustion": True}


def _command(org: str, type_: str, **fields: Any) -> dict[str, Any]:
    return {"command_id": "", "type": type_, "org_id": org, "issued_at": "2025-10-01T00:00:00Z", **fields}


def _organization(org: str) -> dict[str, Any]:
    more = {"emails": ["a@example.org"], "time_zone": "UTC", "rate_card": "default", "low_balance_amount": "5.00"}
    return _command(org, "organization.put", name="n", country="US", currency="USD", offer="commercial", **more)


def _user(org: str) -> dict[str, Any]:
    licences = {"phone_system": True, "calling_plan": None, "audio_conferencing": None, "communications_credits": True}
    return _command(org, "user.put", user_id="u1", usage_country="US", licences=licences)


def _holder(org: str) -> dict[str, Any]:
    user = _user(org)
    user["licences"]["calling_plan"] = "plan"
    return user


def _funds(org: str) -> dict[str, Any]:
    more = {"purchase_channel": "web-direct", "payment_reference": "r"}
    return _command(org, "funds.add", amount="20.00", currency="USD", **more)


def _wealth(org: str) -> dict[str, Any]:
    return {**_funds(org), "amount": "999999999999.999999"}


def _auto_recharge(org: str) -> dict[str, Any]:
    amounts = {"trigger_amount": "999999999999", "recharge_amount": "999999999999", "max_amount_per_month": "999999999999"}
    return _command(org, "auto_recharge.put", enabled=True, payment_method="card", max_per_day=5, **amounts)


_COMMANDS: tuple[Callable[[str], dict[str, Any]], ...] = (
    _organization,
    _user,
    _holder,
    _funds,
    _wealth,
    _auto_recharge,
    lambda org: _command(org, "user.remove", user_id="u1"),
    lambda org: _command(org, "number.put", number="+442079460000", kind="toll-free", user_id="u1"),
    lambda org: _command(org, "number.remove", number="+442079460000"),
    lambda org: _command(org, "funds.adjust", amount="-999999999999.999999", reason="r", currency="USD"),
    lambda org: _command(org, "funds.expire", as_of="2026-10-01T00:00:00Z"),
    lambda org: _command(
        org, "recharge.succeeded", recharge_id=f"{org}:1", amount="0.01", payment_reference="p", currency="USD"
    ),
    lambda org: _command(org, "recharge.failed", recharge_id=f"{org}:1", code="declined", retryable=True, attempt=1),
    lambda org: _command(org, "recharge.retry", recharge_id=f"{org}:1", attempt=2),
    lambda org: _command(org, "funds.warn", as_of="2026-09-10T00:00:00Z"),
    lambda org: _command(org, "call.void", cdr_id="", reason="r"),
    lambda org: _command(org, "notification.sent", notification_id="n", channel="pigeon", recipient="r"),
)
