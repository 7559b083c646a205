"""The interface of payment gateways, and the outcomes of a charge.

A charge is one attempt at a top-up, identified by organization, recharge_id and attempt. Its key depends on nothing else, and
every gateway uses it as the idempotency key. `Gateway.charge` may be called repeatedly for the same charge, by this process or
a later one; the money is taken once.

Invariants
- `Taken` and `Declined` are final: the gateway answered so.
- Everything else is `Unresolved`: the outcome is unknown, or the payment is still processing. It must not count as a failure,
  because a failure leads to another charge under another key.
- The command for an outcome depends only on the request and the outcome, byte for byte. So both the agent and the gateway's
  webhook may publish it; the account acts on the first and ignores the second.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import msgspec

from rater.domain import command_records
from rater.domain.outputs import RechargeRequest


@dataclass(frozen=True, slots=True)
class Taken:
    """The money was taken. `reference`: the gateway's id of the payment."""

    reference: str


@dataclass(frozen=True, slots=True)
class Declined:
    """The money was not taken and won't be. `retryable`: another attempt may succeed later (rule 22)."""

    code: str
    retryable: bool


class Unresolved(Exception):
    """The outcome of a charge is not known. `blames_gateway`: the gateway is failing, so other charges would fail too."""

    def __init__(self, reason: str, *, blames_gateway: bool = True) -> None:
        super().__init__(reason)
        self.blames_gateway = blames_gateway


Outcome = Taken | Declined


class Gateway(Protocol):
    """Charges cards."""

    async def charge(self, request: RechargeRequest, age_ms: int) -> Outcome:
        """Take the money, or find out that it was taken already. Raises `Unresolved`; any other exception means the same.

        `age_ms`: how long ago the top-up was requested. The first call for this charge can't be older than that.
        """

    async def close(self) -> None:
        """Close all connections."""
        ...


def charge_key(app_id: str, request: RechargeRequest) -> str:
    """The idempotency key of a charge: short ASCII for any organization name. `app_id` keeps deployments apart."""
    name = msgspec.json.encode([app_id, request.org_id, request.recharge_id, request.attempt])
    return f"rater-{sha256(name).hexdigest()[:48]}"


def command_of(request: RechargeRequest, outcome: Outcome) -> bytes:
    """The JSON command that reports an outcome to the account."""
    match outcome:
        case Taken(reference):
            return command_records.recharge_succeeded(request, reference)
        case Declined(code, retryable):
            return command_records.recharge_failed(request, code, retryable=retryable)
