"""What a payment gateway promises, and what comes of a charge.

A charge is one try of a top-up: (organization, recharge_id, attempt). It has one key, fixed by that alone, which every gateway
passes on as its idempotency key. `Gateway.charge` may be called for the same charge again and again, by this process or the one
after it; it takes the money once.

Invariants
- `Taken` and `Declined` are final: the gateway has said so, or was asked and has said so.
- Everything else is `Unresolved`: nobody knows, or the money is on its way. It is never taken for a failure, as a failure leads
  to another charge under another key.
- The command for an outcome follows from the request and the outcome alone, byte for byte, so that whoever learns of it
  first (the gateway's response, its webhook) may publish it, and whoever comes second changes nothing.
"""

from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol

import msgspec

from rater.domain import command_records
from rater.domain.outputs import RechargeRequest


@dataclass(frozen=True, slots=True)
class Taken:
    """The money was taken; `reference` is the gateway's own for it."""

    reference: str


@dataclass(frozen=True, slots=True)
class Declined:
    """The money was not taken and will not be. `retryable`: a later try may be granted (rule 22)."""

    code: str
    retryable: bool


class Unresolved(Exception):
    """What came of the charge is not known. `blames_gateway`: it is out of order, others would fare no better."""

    def __init__(self, reason: str, *, blames_gateway: bool = True) -> None:
        super().__init__(reason)
        self.blames_gateway = blames_gateway


Outcome = Taken | Declined


class Gateway(Protocol):
    """Takes money from cards."""

    async def charge(self, request: RechargeRequest, age_ms: int) -> Outcome:
        """Take the money, or learn that it has been. Raises `Unresolved`; any other exception counts as that.

        `age_ms`: how long ago the top-up was requested, so at most how long ago the first call for it was made.
        """

    async def close(self) -> None: ...


def charge_key(app_id: str, request: RechargeRequest) -> str:
    """The key of a charge: ASCII and short, whatever an organization is called. One `app_id`, one set of accounts."""
    name = msgspec.json.encode([app_id, request.org_id, request.recharge_id, request.attempt])
    return f"rater-{sha256(name).hexdigest()[:48]}"


def command_of(request: RechargeRequest, outcome: Outcome) -> bytes:
    """The command that tells the account of an outcome."""
    match outcome:
        case Taken(reference):
            return command_records.recharge_succeeded(request, reference)
        case Declined(code, retryable):
            return command_records.recharge_failed(request, code, retryable=retryable)
