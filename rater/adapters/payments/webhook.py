"""The operator's own payment service, called through a signed webhook.

Each charge is one POST with the recharge request as JSON, signed according to Standard Webhooks. `webhook-id` is the charge's
key, the same for every call for the same charge. The service must take the money once per id, and answers 200 with one of

    {"status": "succeeded", "payment_reference": "…"}
    {"status": "failed", "code": "…", "retryable": true}
    {"status": "pending"}

After any other answer, or none, the outcome is unknown: the call is repeated under the same id until the service answers
`succeeded` or `failed`.
"""

import time
from typing import Literal

import aiohttp
import msgspec

from rater.adapters.payments.gateway import Declined, Outcome, Taken, Unresolved, charge_key
from rater.adapters.standard_webhooks import signed_headers
from rater.domain.outputs import RechargeRequest
from rater.domain.recharge import HARD_CODES

_ANSWER_BYTES_MAX = 64 * 1024
_OK = 200


class _Answer(msgspec.Struct):
    status: Literal["succeeded", "failed", "pending"]
    payment_reference: str = ""
    code: str = "declined"
    retryable: bool = True


class WebhookGateway:
    """`Gateway` to the operator's payment service at `url`. `key` signs the requests; `app_id` is part of the charge's key."""

    def __init__(self, url: str, key: bytes, app_id: str) -> None:
        self._url = url
        self._key = key
        self._app_id = app_id
        self._session: aiohttp.ClientSession | None = None

    async def charge(self, request: RechargeRequest, age_ms: int) -> Outcome:
        del age_ms  # the service must remember an id for as long as we ask about it
        body = msgspec.json.encode(request)
        headers = signed_headers(self._key, charge_key(self._app_id, request), int(time.time()), body)
        if self._session is None:
            self._session = aiohttp.ClientSession()
        try:
            async with self._session.post(
                self._url, data=body, headers={"content-type": "application/json", **headers}, allow_redirects=False
            ) as response:
                answer = await response.content.read(_ANSWER_BYTES_MAX)
                status = response.status
        except aiohttp.ClientError as error:
            raise Unresolved(f"no answer: {error!r}") from error
        if status != _OK:
            raise Unresolved(f"answered with status {status}")
        return _read(answer)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _read(answer: bytes) -> Outcome:
    try:
        said = msgspec.json.decode(answer, type=_Answer)
    except msgspec.DecodeError as error:
        raise Unresolved(f"can't parse the answer: {error}") from error
    match said.status:
        case "succeeded":
            return Taken(said.payment_reference)
        case "failed":
            return Declined(said.code, said.retryable and said.code not in HARD_CODES)
        case "pending":
            raise Unresolved("the payment service is still processing it", blames_gateway=False)
