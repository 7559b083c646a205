"""The circuit breaker in front of a payment gateway, with a kill switch for operators.

The breaker is in one of three states:

- closed: charges pass, at most `concurrency_max` at once.
- open: the gateway failed `failures_max` charges in a row, which trips the breaker. No charge passes for up to `open_ms_max`.
- half-open: that time is over. Each task may try one charge at a time. Any answer from the gateway, a decline included, resets
  the breaker to closed; one more failure trips it again.

The kill switch is a file: while it exists no charge starts, and charges under way finish. Neither loses a charge: the recharge
agent keeps every request and tries it later.
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

_HALF_OPEN_PERMITS = 1


@dataclass(frozen=True, slots=True)
class BreakerLimits:
    """How many charges run at once, how long each may take, how many failures in a row trip the breaker, and for how long."""

    concurrency_max: int = 32
    timeout_ms: int = 10_000
    failures_max: int = 5
    open_ms_max: int = 30_000


class CircuitBreaker:
    """Passes charges to one gateway, for all tasks of a process. `stop_file` is the kill switch."""

    def __init__(self, gateway: Gateway, limits: BreakerLimits, stop_file: Path | None, clock_ms: Callable[[], int]) -> None:
        self._gateway = gateway
        self._limits = limits
        self._stop_file = stop_file
        self._clock_ms = clock_ms
        self._running = asyncio.Semaphore(limits.concurrency_max)
        self._failures = 0
        self._open_until_ms = 0
        self._stopped = False

    def permits(self) -> int:
        """How many charges a task may start now; 0 while the breaker is open or the stop file exists."""
        if self._is_stopped() or self._clock_ms() < self._open_until_ms:
            return 0
        return _HALF_OPEN_PERMITS if self._is_tripped() else self._limits.concurrency_max

    def gauges(self) -> dict[tuple[str, ...], float]:
        """`payment_gateway_open`: 1 while charges may start, so while the breaker is *not* open; else 0."""
        return {("payment_gateway_open",): 1 if self.permits() else 0}

    async def charge(self, request: RechargeRequest) -> Outcome | Unresolved:
        """Charge; returns `Unresolved` if the outcome is not known. Never raises."""
        about = {"org_id": request.org_id, "recharge_id": request.recharge_id, "attempt": request.attempt}
        with bound_contextvars(**about):
            return await self._charge(request)

    async def _charge(self, request: RechargeRequest) -> Outcome | Unresolved:
        async with self._running:
            if not self.permits():
                return Unresolved("not sent: the circuit breaker is open or the stop file exists", blames_gateway=False)
            try:
                async with asyncio.timeout(self._limits.timeout_ms / 1000):
                    outcome = await self._gateway.charge(request, self._age_ms(request))
            except TimeoutError:
                return self._failed(Unresolved(f"no answer within {self._limits.timeout_ms} ms"))
            except Unresolved as unresolved:
                return self._failed(unresolved)
            except Exception as error:
                # A bug in the gateway's code or in ours. We don't know whether money was taken; trying again is safe.
                log.exception("charge %s attempt %d", request.recharge_id, request.attempt)
                return self._failed(Unresolved(repr(error)))
        self._reset()
        return outcome

    async def start(self, on_fatal: Callable[[BaseException], None]) -> None:
        """Does nothing: the gateway connects at the first charge."""

    async def stop(self) -> None:
        await self._gateway.close()

    def _age_ms(self, request: RechargeRequest) -> int:
        return self._clock_ms() - moments.to_us(datetime.fromisoformat(request.requested_at)) // 1000

    def _is_stopped(self) -> bool:
        stopped = self._stop_file is not None and self._stop_file.exists()
        if stopped != self._stopped:
            self._stopped = stopped
            if stopped:
                log.warning("payments stopped: stop file %s exists", self._stop_file)
            else:
                log.warning("payments resumed: stop file %s is gone", self._stop_file)
        return stopped

    def _is_tripped(self) -> bool:
        return self._failures >= self._limits.failures_max

    def _failed(self, unresolved: Unresolved) -> Unresolved:
        """Count a failure of the gateway; trips the breaker if there are too many in a row."""
        if not unresolved.blames_gateway:
            self._reset()
            return unresolved
        self._failures += 1
        if self._failures == self._limits.failures_max:
            log.error(
                "circuit breaker open, charges wait: the payment gateway failed %d charges in a row, last: %s",
                *(self._failures, unresolved),
            )
        if self._is_tripped():
            # Jitter, so that many workers don't come back at once.
            self._open_until_ms = self._clock_ms() + round(self._limits.open_ms_max * random.uniform(0.5, 1.0))  # noqa: S311
        return unresolved

    def _reset(self) -> None:
        if self._is_tripped():
            log.warning("circuit breaker closed: the payment gateway answers again")
        self._failures = 0
