"""The recharge agent: takes the money for the top-ups that accounts ask for, and reports the outcome to them.

A request becomes a row of the agent's state in the transaction that moves the input past it (`retry_queue`). From then on it is
due work: it is tried until its outcome is known, over restarts and for as long as the gateway is away. The outcome leaves as a
command, in the transaction that removes the row. If a process dies between the charge and that transaction, the next one
repeats the charge under the same key, which takes no money a second time (see `adapters/payments/gateway`).

A request is named by its recharge_id and attempt. The remembered result is the command: a request that is repeated is answered
from it, without the card.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterable, Mapping, Sequence
from datetime import datetime

import msgspec

from rater.adapters.payments.circuit_breaker import CircuitBreaker
from rater.adapters.payments.gateway import Declined, Outcome, Unresolved, command_of
from rater.agents.retry_queue import RetryQueue
from rater.domain import moments
from rater.domain.money import parse_micros
from rater.domain.outputs import RechargeRequest
from rater.engine.api import MemoryFactory, Metric, Record, Sink, State
from rater.engine.app import EngineApp
from rater.engine.batches import Batch, BatchChannel, Tick
from rater.engine.stats import MetricDefinition
from rater.kafka.topics import Topics

log = logging.getLogger(__name__)

FIRST_GAP_MS = 1_000
GAP_MS_MAX = 300_000
#: How often to ask the circuit breaker again while it permits no charge.
BREAKER_POLL_MS = 1_000

METRICS = (
    MetricDefinition(
        key="recharges",
        name="rater_recharges",
        meaning="Attempts to top up that ended.",
        kind="counter",
        labels=("outcome",),
        begins_at_0=(("succeeded", "soft_decline", "hard_decline"),),
    ),
    MetricDefinition(
        key="recharge_tries_unresolved",
        name="rater_recharge_tries_unresolved",
        meaning="Tries whose outcome is unknown.",
        kind="counter",
        begins_at_0=(),
    ),
    MetricDefinition(
        key="recharges_pending",
        name="rater_recharges_pending",
        meaning="Attempts to top up without an outcome.",
        kind="gauge",
    ),
    MetricDefinition(
        key="recharges_pending_oldest_timestamp_seconds",
        name="rater_recharges_pending_oldest_timestamp_seconds",
        meaning="When the oldest of them was requested.",
        kind="gauge",
    ),
)

#: Of the circuit breaker, which a process has once.
GATEWAY_METRICS = (
    MetricDefinition(
        key="payment_gateway_open", name="rater_payment_gateway_open", meaning="1 while charges may be begun.", kind="gauge"
    ),
)


class WaitingRequest(msgspec.Struct, array_like=True):
    """A request whose outcome is not known; `tries` have been made of this attempt."""

    request: RechargeRequest
    due_ms: int
    tries: int = 0


_decode_request = msgspec.json.Decoder(RechargeRequest).decode
_decode_row = msgspec.msgpack.Decoder(WaitingRequest).decode


def define_recharge(app: EngineApp, batches: BatchChannel) -> None:
    """Add the agent to the app. The memory of `batches` is `PartitionRecharges`."""

    @app.agent(batches, name="recharge")
    async def recharge(stream: AsyncIterable[Batch]) -> None:
        """Takes the money for top-ups."""
        async for batch in stream:
            async with batch as transaction:
                partition: PartitionRecharges = transaction.memory
                if isinstance(batch, Tick):
                    await partition.charge_due(batch.now_ms)
                else:
                    partition.accept(transaction.records)


class PartitionRecharges:
    """The requests of one partition."""

    def __init__(self, command_topic: str, breaker: CircuitBreaker, state: State, sink: Sink, not_before_us: int = 0) -> None:
        self._command_topic = command_topic
        self._breaker = breaker
        self._sink = sink
        self._not_before_us = not_before_us
        self._blocked_until_ms = 0
        self._counts: Counter[Metric] = Counter()
        self._queue = RetryQueue(state, _decode_row, _waiting_since_ms, FIRST_GAP_MS, GAP_MS_MAX)

    def accept(self, records: Sequence[Record]) -> None:
        """Accept requests; one that has been answered before is answered again."""
        for record in records:
            request = _read(record)
            if request is None or self._is_too_old(request):
                continue
            name = _name(request)
            known = self._queue.result(name)
            if known is not None:
                self._publish(request.org_id, known, record.timestamp)
            elif not self._queue.is_waiting(name):
                self._queue.wait(name, WaitingRequest(request, due_ms=0))

    def next_due_ms(self) -> int | None:
        """When the next try is due, in ms since the epoch."""
        due_ms = self._queue.next_due_ms()
        return None if due_ms is None else max(due_ms, self._blocked_until_ms)

    async def charge_due(self, now_ms: int) -> None:
        """Charge what is due, as many at once as the circuit breaker permits."""
        permits = self._breaker.permits()
        if not permits:
            self._blocked_until_ms = now_ms + BREAKER_POLL_MS
            return
        due = self._queue.take_due(now_ms, permits)
        outcomes = await asyncio.gather(*(self._breaker.charge(waiting.request) for _, waiting in due))
        for (name, waiting), outcome in zip(due, outcomes, strict=True):
            if isinstance(outcome, Unresolved):
                self._put_off(name, waiting, outcome, now_ms)
            else:
                self._settle(name, waiting.request, outcome, now_ms)
        self._queue.forget(now_ms)

    def take_counts(self) -> Mapping[Metric, int]:
        """`recharges` by outcome, and `recharge_tries_unresolved`."""
        counts, self._counts = self._counts, Counter()
        return counts

    def gauges(self) -> Mapping[Metric, float]:
        """`recharges_pending`, and since when the oldest of them is."""
        return self._queue.gauges("recharges_pending")

    def _is_too_old(self, request: RechargeRequest) -> bool:
        too_old = _requested_us(request) < self._not_before_us
        if too_old:
            log.warning("%s attempt %d is older than RATER_PAYMENT_NOT_BEFORE: ignored", request.recharge_id, request.attempt)
        return too_old

    def _settle(self, name: bytes, request: RechargeRequest, outcome: Outcome, now_ms: int) -> None:
        command = command_of(request, outcome)
        self._counts["recharges", _outcome_name(outcome)] += 1
        self._publish(request.org_id, command, now_ms)
        self._queue.settle(name, command, now_ms)

    def _put_off(self, name: bytes, waiting: WaitingRequest, why: Unresolved, now_ms: int) -> None:
        gap_ms = self._queue.put_off(name, waiting, now_ms)
        log.warning(
            "%s attempt %d: outcome unknown after %d tries, next try in %d ms: %s",
            *(waiting.request.recharge_id, waiting.request.attempt, waiting.tries, gap_ms, why),
        )
        self._counts["recharge_tries_unresolved",] += 1

    def _publish(self, org_id: str, command: bytes, timestamp_ms: int) -> None:
        self._sink.emit(self._command_topic, org_id.encode(), command, timestamp_ms)


def recharge_memory(topics: Topics, breaker: CircuitBreaker, not_before_us: int = 0) -> MemoryFactory:
    """Makes the requests of each partition. Requests from before `not_before_us` belong to the previous payment system."""

    def make(partition: int, state: State, sink: Sink) -> PartitionRecharges:
        del partition
        return PartitionRecharges(topics.command, breaker, state, sink, not_before_us)

    return make


def _name(request: RechargeRequest) -> bytes:
    return f"{request.recharge_id}#{request.attempt}".encode()


def _outcome_name(outcome: Outcome) -> str:
    if isinstance(outcome, Declined):
        return "soft_decline" if outcome.retryable else "hard_decline"
    return "succeeded"


def _requested_us(request: RechargeRequest) -> int:
    return moments.to_us(datetime.fromisoformat(request.requested_at))


def _waiting_since_ms(waiting: WaitingRequest) -> int:
    return _requested_us(waiting.request) // 1000


def _read(record: Record) -> RechargeRequest | None:
    """The request; None if the rater did not write it: what it writes is complete and keyed by its organization."""
    try:
        request = _decode_request(record.value or b"")
        parse_micros(request.amount)
        _requested_us(request)
        if record.key != request.org_id.encode():
            raise ValueError("the key is not the org_id")
    except (ValueError, TypeError, OverflowError, RecursionError) as error:  # an instant without a zone, or out of range
        log.error("%s offset %d is not a recharge request, nothing is charged: %s", record.topic, record.offset, error)
        return None
    return request
