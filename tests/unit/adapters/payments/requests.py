"""A recharge request for tests."""

from typing import Any

import msgspec

from rater.domain.outputs import RechargeRequest

_REQUEST = RechargeRequest("contoso:1", "contoso", 1, 1, "20.00", "USD", "cus_1/pm_1", "2026-01-05T10:00:00Z")


def request(**fields: Any) -> RechargeRequest:
    """A valid request, with these fields replaced."""
    return msgspec.structs.replace(_REQUEST, **fields)
