"""The one way to the gateway: bounded, timed, and shut while the gateway is out of order or an operator says so.

Circuit breaker. After so many charges in a row that the gateway failed, the breaker shuts; after a wait it lets one charge at a
time through, until one of them is answered. Kill switch: while the file it is given exists, nothing is begun; what is under way
is finished. A shut breaker loses nothing: charges wait where they are.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from structlog.contextvars import bound_contextvars

from rater.adapters.payments.gateway import Gateway, Outcome, Unresolved
from rater.domain import moments
from rater.domain.outputs import RechargeRequest

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """How many charges at once, how long each may take, when the circuit breaker opens and for how long."""

    concurrency_max: int = 32
    timeout_ms: int = 10_000
    failures_max: int = 5
    shut_ms: int = 30_000


class CircuitBreaker:
    """Charges through one gateway, for all tasks of a process."""

    def __init__(self, gateway: Gateway, limits: BreakerLimits, stop_file: Path | None, clock_ms: Callable[[], int]) -> None:
        self._gateway = gateway
        self._limits = limits
        self._stop_file = stop_file
        self._clock_ms = clock_ms
        self._places = asyncio.Semaphore(limits.concurrency_max)
        self._failures = 0
        self._shut_until_ms = 0
        self._stopped = False

    def room(self) -> int:
        """How many charges may be begun now."""
        if self._is_stopped() or self._clock_ms() < self._shut_until_ms:
            return 0
        return 1 if self._failures >= self._limits.failures_max else self._limits.concurrency_max

    def gauges(self) -> dict[tuple[str, ...], float]:
        """`payment_gateway_open`: whether charges may be begun."""
        return {("payment_gateway_open",): 1 if self.room() else 0}

    async def charge(self, request: RechargeRequest) -> Outcome | Unresolved:
        """Charge, or say what kept it from being known. Never raises."""
        about = {"org_id": request.org_id, "recharge_id": request.recharge_id, "attempt": request.attempt}
        with bound_contextvars(**about):
            return await self._charge(request)

    async def _charge(self, request: RechargeRequest) -> Outcome | Unresolved:
        async with self._places:
            if not self.room():
                return Unresolved("the breaker has been shut", blames_gateway=False)
            try:
                async with asyncio.timeout(self._limits.timeout_ms / 1000):
                    outcome = await self._gateway.charge(request, self._age_ms(request))
            except TimeoutError:
                return self._failed(Unresolved(f"no answer within {self._limits.timeout_ms} ms"))
            except Unresolved as unresolved:
                return self._failed(unresolved)
            except Exception as error:
                # A fault of the gateway's or of ours: whether money was taken is unknown, which is safe to ask again.
                log.exception("charge %s attempt %d", request.recharge_id, request.attempt)
                return self._failed(Unresolved(repr(error)))
        self._answered()
        return outcome

    async def start(self, on_fatal: Callable[[BaseException], None]) -> None:
        """The gateway connects when it is first asked."""

    async def stop(self) -> None:
        await self._gateway.close()

    def _age_ms(self, request: RechargeRequest) -> int:
        return self._clock_ms() - moments.to_us(datetime.fromisoformat(request.requested_at)) // 1000

    def _is_stopped(self) -> bool:
        stopped = self._stop_file is not None and self._stop_file.exists()
        if stopped != self._stopped:
            self._stopped = stopped
            log.warning("payments are %s: %s", "stopped" if stopped else "going on", self._stop_file)
        return stopped

    def _answered(self) -> None:
        if self._failures >= self._limits.failures_max:
            log.warning("the payment gateway answers again")
        self._failures = 0

    def _failed(self, unresolved: Unresolved) -> Unresolved:
        if not unresolved.blames_gateway:
            self._answered()
            return unresolved
        self._failures += 1
        if self._failures == self._limits.failures_max:
            log.error("the payment gateway is out of order, charges wait: %d failed in a row: %s", self._failures, unresolved)
        if self._failures >= self._limits.failures_max:
            # Jitter, so that many workers don't come back at once.
            self._shut_until_ms = self._clock_ms() + round(self._limits.shut_ms * random.uniform(0.5, 1.0))  # noqa: S311
        return unresolved
