"""The circuit breaker: what it lets through, what trips it and what resets it; and the kill switch."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from rater.adapters.payments.circuit_breaker import BreakerLimits, CircuitBreaker
from rater.adapters.payments.gateway import Outcome, Taken, Unresolved
from rater.domain.outputs import RechargeRequest
from tests.unit.adapters.payments.requests import request

NOW_MS = 1_767_607_200_000


class Scripted:
    """A gateway that answers as the test says: `fails` makes the exception to raise, `going_on` holds answers back."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS
        self.fails: Callable[[], Exception] | None = None
        self.under_way = self.most_under_way = self.calls = 0
        self.going_on = asyncio.Event()
        self.going_on.set()

    async def charge(self, request: RechargeRequest, age_ms: int) -> Outcome:
        self.calls += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self.going_on.wait()
        self.under_way -= 1
        if self.fails is not None:
            raise self.fails()
        return Taken("r")

    async def close(self) -> None: ...


def breaker_of(gateway: Scripted, stop_file: Path | None = None, **limits: int) -> CircuitBreaker:
    return CircuitBreaker(gateway, BreakerLimits(**limits), stop_file, lambda: gateway.now_ms)


async def test_no_more_charges_run_at_once_than_the_limit() -> None:
    gateway = Scripted()
    breaker = breaker_of(gateway, concurrency_max=3)
    outcomes = await asyncio.gather(*(breaker.charge(request()) for _ in range(10)))
    assert outcomes == [Taken("r")] * 10
    assert gateway.most_under_way <= 3


async def test_a_charge_that_takes_too_long_is_unresolved() -> None:
    gateway = Scripted()
    gateway.going_on.clear()
    assert isinstance(await breaker_of(gateway, timeout_ms=20).charge(request()), Unresolved)


async def test_a_fault_nobody_thought_of_is_unresolved_and_no_failure() -> None:
    gateway = Scripted()
    gateway.fails = lambda: KeyError("surprise")
    assert isinstance(await breaker_of(gateway).charge(request()), Unresolved)


async def test_failures_in_a_row_open_it_then_it_is_half_open_and_an_answer_closes_it() -> None:
    gateway = Scripted()
    breaker = breaker_of(gateway, failures_max=2, open_ms_max=1000, concurrency_max=7)
    gateway.fails = lambda: Unresolved("away")
    for _ in range(2):
        await breaker.charge(request())
    assert breaker.permits() == 0
    gateway.now_ms += 1000
    assert breaker.permits() == 1
    gateway.fails = None
    await breaker.charge(request())
    assert breaker.permits() == 7


async def test_one_answer_in_between_keeps_it_closed() -> None:
    gateway = Scripted()
    breaker = breaker_of(gateway, failures_max=2)
    for fails in (True, False, True, False):
        gateway.fails = (lambda: Unresolved("away")) if fails else None
        await breaker.charge(request())
    assert breaker.permits() > 0


async def test_what_the_gateway_is_not_to_blame_for_does_not_open_it() -> None:
    gateway = Scripted()
    breaker = breaker_of(gateway, failures_max=2)
    gateway.fails = lambda: Unresolved("processing", blames_gateway=False)
    for _ in range(5):
        await breaker.charge(request())
    assert breaker.permits() > 0


async def test_while_the_stop_file_exists_no_charge_starts(tmp_path: Path) -> None:
    gateway = Scripted()
    stop = tmp_path / "stop"
    breaker = breaker_of(gateway, stop)
    stop.touch()
    assert breaker.permits() == 0
    assert isinstance(await breaker.charge(request()), Unresolved)
    assert gateway.calls == 0
    stop.unlink()
    assert await breaker.charge(request()) == Taken("r")
