"""The demo's payment service: stands in for the operator's own behind the signed webhook. It accepts all cards but one.

Like a real one it checks the signature first, and takes the money once per id, no matter how often it is called.
"""

import asyncio
import hmac
import secrets
from base64 import b64encode
from collections import Counter
from types import TracebackType
from typing import Any, Self

import msgspec
from aiohttp import web

from rater.adapters.standard_webhooks import SECRET_PREFIX, read_secret, signed_headers

ANSWER_S = 0.4
DECLINED_CARD = "card-declined"


class PaymentService:
    """Context manager around the service. `url` and `secret` are for the recharge agent's settings."""

    def __init__(self) -> None:
        self.url = ""
        self.secret = SECRET_PREFIX + b64encode(secrets.token_bytes(24)).decode()
        self.taken: Counter[str] = Counter()  # counted by payment method
        self.declined: Counter[str] = Counter()
        self._answers: dict[str, dict[str, Any]] = {}
        app = web.Application()
        app.router.add_post("/charges", self._charge)
        self._runner = web.AppRunner(app, access_log=None)

    async def __aenter__(self) -> Self:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0]
        self.url = f"http://{host}:{port}/charges"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._runner.cleanup()

    async def _charge(self, request: web.Request) -> web.Response:
        body = await request.read()
        id_, at = request.headers.get("webhook-id", ""), request.headers.get("webhook-timestamp", "")
        if not at.isdigit() or not self._is_signed(request, id_, int(at), body):
            return web.Response(status=401)
        if id_ not in self._answers:
            self._answers[id_] = self._take(msgspec.json.decode(body))
            await asyncio.sleep(ANSWER_S)  # banks take their time
        return web.json_response(self._answers[id_])

    def _is_signed(self, request: web.Request, id_: str, at_s: int, body: bytes) -> bool:
        wanted = signed_headers(read_secret(self.secret), id_, at_s, body)["webhook-signature"]
        return hmac.compare_digest(request.headers.get("webhook-signature", "").encode(), wanted.encode())

    def _take(self, charge: dict[str, Any]) -> dict[str, Any]:
        card = charge["payment_method"]
        if card == DECLINED_CARD:
            self.declined[card] += 1
            return {"status": "failed", "code": "expired_card", "retryable": False}
        self.taken[card] += 1
        return {"status": "succeeded", "payment_reference": f"demo-{charge['recharge_id']}"}
