"""A random log of everything the rater reads: catalog, commands, calls of every kind, bad records and repeats.

The same seed gives the same log, except for its timestamps: they must be recent, because brokers delete records that are too
old and refuse records from the future.
"""

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from rater.kafka.log import LogRecord
from rater.kafka.topics import Topics

_CALL_TYPES = (
    *["user_out"] * 10,
    *["user_in", "conf_out", "user_out_conf"] * 2,
    *["conf_in", "ucap_in", "unassigned_in", "user_out_transfer", "user_out_forwarding", "ucap_out", "emergency_out"],
)
_PREFIXES = {"1425": "US", "44": "GB", "4420": "GB", "4477": "GB", "49": "DE", "33": "FR", "81": "JP", "1242357": "BS"}
_USERS = 6
_JUMPS = 8  # about how often time jumps by hours, so that work with long delays falls due


class RandomLog:
    """`catalog` must be published and read before `traffic`."""

    def __init__(self, topics: Topics, seed: int, cdrs: int, organizations: int) -> None:
        self._topics = topics
        self._random = random.Random(seed)
        self._latest = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=12)
        self._now = self._latest - timedelta(days=4)
        self._orgs = [f"org-{seed}-{i}" for i in range(organizations)]
        self._commands = 0
        self._cdrs = cdrs
        self._episodes: dict[str, int] = {}
        self._sent: list[tuple[str, dict[str, Any]]] = []
        self.catalog = list(self._catalog())
        self.traffic = list(self._traffic())

    def _catalog(self) -> Iterator[LogRecord]:
        common = {"currency": "USD", "effective_from": "2020-01-01T00:00:00Z", "number_type": "mixed"}
        for service in ("outbound", "conference-dial-out"):
            for i, (prefix, country) in enumerate(_PREFIXES.items()):
                rate_id = f"{service}-{prefix}"
                price = f"0.{self._random.randrange(1, 400_000):06d}"
                rate: dict[str, Any] = {
                    "rate_id": rate_id,
                    "rate_card": "default",
                    "service": service,
                    "prefix": prefix,
                    "country": country,
                }
                rate |= {"destination": f"{country} {prefix}", "rate_per_minute": price, "increment_s": 1 + i * 7, **common}
                rate |= {"connection_fee": "0.01" if i % 2 else "0", "initial_increment_s": i * 6}
                yield self._record(self._topics.rate, rate_id, rate)
        toll_free = {"rate_id": "tf", "service": "toll-free-inbound", "prefix": "1800", "destination": "Toll-free"}
        yield self._record(self._topics.rate, "tf", toll_free | {"country": "US", "rate_per_minute": "0.03"} | common)
        for plan_id, service, joint in (
            ("dom", "outbound", False),
            ("joint", "outbound", True),
            ("conf", "conference-dial-out", False),
        ):
            allowances = [
                {"allowance_id": "home", "minutes_per_user": 40, "destinations": ["US", "CA"]},
                {"allowance_id": "abroad", "minutes_per_user": 15, "destinations": "*"},
            ]
            plan = {
                "plan_id": plan_id,
                "name": plan_id,
                "service": service,
                "allowances": allowances,
                "joint_exhaustion": joint,
            }
            yield self._record(self._topics.plan, plan_id, plan)

    def _traffic(self) -> Iterator[LogRecord]:
        for org in self._orgs:
            yield self._organization(org)
            for user in range(_USERS):
                yield self._user(org, user)
            yield self._command(org, "number.put", number="+14255550199", kind="service")
            yield self._funds(org)
            yield self._auto_recharge(org)
        for i in range(self._cdrs):
            if self._random.random() < _JUMPS / self._cdrs:
                self._now = min(self._latest, self._now + timedelta(hours=self._random.choice((1, 7, 25))))
            if self._random.random() < 0.05:
                yield self._any_command()
            yield self._cdr(i)

    def _cdr(self, i: int) -> LogRecord:
        draw = self._random
        org = draw.choice(self._orgs)
        kind = draw.random()
        if kind < 0.02 and self._sent:  # a repeat, or a repeated id with different content
            org, sent = draw.choice(self._sent)
            return self._record(self._topics.cdr, org, sent if kind < 0.01 else sent | {"duration_ms": 77})
        call_type = draw.choice(_CALL_TYPES)
        prefix = draw.choice(list(_PREFIXES))
        duration_ms = draw.choice((0, int(draw.expovariate(1 / 90_000)), int(draw.expovariate(1 / 300_000))))
        answered = self._now - timedelta(milliseconds=duration_ms)
        cdr = {
            "cdr_id": f"sbc:{i}",
            "org_id": org,
            "user_id": f"u{draw.randrange(_USERS)}",
            "call_type": call_type,
            "caller": draw.choice(("+14255550100", "anonymous", None)),
            "callee": "+" + prefix + str(draw.randrange(10**5, 10**6)),
            "answered_at": answered.isoformat().replace("+00:00", "Z"),
            "duration_ms": duration_ms,
            "source": "sbc",
        }
        if call_type.endswith("_in") and draw.random() < 0.4:
            cdr |= {"number_type": "toll-free", "callee": "+18005550100"}
        if kind < 0.06:
            return self._bad(org, cdr)
        self._sent.append((org, cdr))
        return self._record(self._topics.cdr, org, cdr)

    def _bad(self, org: str, cdr: dict[str, Any]) -> LogRecord:
        draw = self._random
        deep: Any = 1
        for _ in range(9):
            deep = [deep]
        bad: Any = draw.choice(
            (
                b"\xff\xfe not json",
                b"",
                None,
                b'{"cdr_id": NaN}',
                cdr | {"duration_ms": "60"},
                cdr | {"duration_ms": 1.5},
                cdr | {"padding": "x" * 70_000},
                cdr | {"deep": deep},
                cdr | {"call_type": "fax"},
                cdr | {"answered_at": "yesterday"},
                cdr | {"answered_at": "2021-01-01T00:00:00Z"},
                cdr | {"call_type": "user_out", "user_id": "nobody", "duration_ms": 1000},
                cdr | {"call_type": "user_out", "callee": "sip:alice", "duration_ms": 1000},
                cdr | {"call_type": "user_out", "callee": "+99955512345", "duration_ms": 1000},
            )
        )
        if draw.random() < 0.1:
            bad, org = cdr | {"org_id": "nobody"}, "nobody"
        return self._record(self._topics.cdr, org, bad)

    def _any_command(self) -> LogRecord:
        draw = self._random
        org = draw.choice(self._orgs)
        if draw.random() < 0.3:
            return self._payment(org)
        as_of = (self._now + timedelta(days=draw.choice((-1, 340, 360)))).isoformat()
        return draw.choice(
            (
                lambda: self._funds(org),
                lambda: self._auto_recharge(org),
                lambda: self._organization(org),
                lambda: self._user(org, draw.randrange(_USERS)),
                lambda: self._command(org, "user.remove", user_id=f"u{draw.randrange(_USERS)}"),
                lambda: self._command(org, "funds.adjust", amount=draw.choice(("-3.5", "2", "-0.000001")), reason="test"),
                lambda: self._command(org, "funds.expire", as_of=as_of),
                lambda: self._command(org, "funds.warn", as_of=as_of),
                lambda: self._command(org, "call.void", cdr_id=f"sbc:{draw.randrange(self._cdrs)}", reason="test"),
                lambda: self._void_sent(org),
                lambda: self._command(org, "notification.sent", notification_id="n", channel="mail", recipient="a@b.example"),
                lambda: self._command(org, "funds.add", amount=5, currency="USD"),
                lambda: self._command(org, "no.such.type"),
                lambda: self._command("nobody", "funds.expire", as_of=as_of),
                lambda: self._record(self._topics.command, org, b"{not json"),
            )
        )()

    def _void_sent(self, org: str) -> LogRecord:
        org, cdr = self._random.choice(self._sent) if self._sent else (org, {"cdr_id": "none"})
        return self._command(org, "call.void", cdr_id=cdr["cdr_id"], reason="test")

    def _organization(self, org: str) -> LogRecord:
        more = {"name": org, "country": "US", "currency": "USD", "offer": "commercial", "low_balance_amount": "5.00"}
        return self._command(org, "organization.put", emails=["ops@example.org"], time_zone="Europe/Berlin", **more)

    def _user(self, org: str, user: int) -> LogRecord:
        draw = self._random
        licences = {
            "phone_system": True,
            "calling_plan": draw.choice((None, "dom", "joint", "dom", "gone" if draw.random() < 0.1 else "dom")),
            "audio_conferencing": draw.choice((None, "conf")),
            "communications_credits": draw.random() < 0.8,
        }
        return self._command(org, "user.put", user_id=f"u{user}", usage_country="US", licences=licences)

    def _funds(self, org: str) -> LogRecord:
        channel = "csp" if self._random.random() < 0.1 else "web-direct"
        amount = f"{self._random.randrange(1, 60)}.00"
        more = {"amount": amount, "currency": "USD", "purchase_channel": channel, "payment_reference": "r"}
        return self._command(org, "funds.add", **more)

    def _auto_recharge(self, org: str) -> LogRecord:
        caps = self._random.choice(({}, {"max_per_day": 2}, {"max_amount_per_month": "30.00"}))
        trigger = self._random.choice(("8.00", "100.00"))
        more = {"trigger_amount": trigger, "recharge_amount": "15.00", "payment_method": "card", **caps}
        return self._command(org, "auto_recharge.put", enabled=self._random.random() < 0.8, **more)

    def _payment(self, org: str) -> LogRecord:
        """A command about a top-up, as the payment side or a timer would send it; its recharge_id may be wrong or old."""
        draw = self._random
        episode = self._episodes.setdefault(org, 1)
        recharge_id = f"{org}:{episode if draw.random() < 0.9 else draw.randrange(1, 6)}"
        kind = draw.choice(("succeeded", "hard", "soft", "soft", "soft", "retry", "retry"))
        if kind == "soft":
            return self._command(org, "recharge.failed", recharge_id=recharge_id, code="declined", retryable=True)
        if kind == "retry":
            return self._command(org, "recharge.retry", recharge_id=recharge_id, attempt=draw.randrange(2, 5))
        self._episodes[org] = episode + (draw.random() < 0.4)
        if kind == "hard":
            return self._command(org, "recharge.failed", recharge_id=recharge_id, code="expired_card", retryable=False)
        return self._command(org, "recharge.succeeded", recharge_id=recharge_id, amount="15.00", payment_reference="p")

    def _command(self, org: str, type_: str, **fields: Any) -> LogRecord:
        if self._random.random() > 0.05:  # otherwise the previous command's id is used again
            self._commands += 1
        command = {"command_id": f"c{self._commands}", "type": type_, "org_id": org, "issued_at": "2025-01-01T00:00:00Z"}
        return self._record(self._topics.command, org, command | fields)

    def _record(self, topic: str, key: str, value: Any) -> LogRecord:
        """Make a record with a later timestamp than the previous one, so that timestamps alone define the order."""
        self._now += timedelta(milliseconds=self._random.randrange(1, 400))
        raw = value if value is None or isinstance(value, bytes) else msgspec.json.encode(value)
        return LogRecord(topic, int(self._now.timestamp()) * 1000 + self._now.microsecond // 1000, key.encode(), raw)
