"""The recharge agent: takes the money of the top-ups that accounts ask for, and tells them what came of it.

A request becomes a row of the agent's state in the transaction that moves the input past it. From then on it is due work: it is
tried until its outcome is known, with growing gaps, over restarts and for as long as the gateway is away. The outcome leaves as
a command in the transaction that takes the row away. A process may die between the charge and that transaction: the next one
repeats the charge under the same key, which takes no money a second time (see `adapters/payments/gateway`).

State
    w + name   Waiting      put, deleted when the outcome is known
    r + name   the command  appended: a request that is repeated within `REMEMBERED_DAYS` is answered from it, without the card

where name is recharge_id and attempt.
"""

import asyncio
import heapq
import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from rater.adapters.payments.circuit_breaker import CircuitBreaker
from rater.adapters.payments.gateway import Declined, Outcome, Unresolved, command_of
from rater.agents.retry_queue import OldestFirst
from rater.domain import moments
from rater.domain.money import parse_micros
from rater.domain.outputs import RechargeRequest
from rater.engine.api import Metric, Processor, ProcessorFactory, Record, Sink, State
from rater.kafka.topics import Topics

log = logging.getLogger(__name__)

#: Longer than the request topic is kept, so that no request can be read again that is not remembered.
REMEMBERED_DAYS = 40
FIRST_GAP_MS = 1_000
GAP_MS_MAX = 300_000
#: How often a shut breaker is looked at.
SHUT_POLL_MS = 1_000

_WAITING = b"w"
_RESULT = b"r"


class Waiting(msgspec.Struct, array_like=True):
    """A request whose outcome is not known; `tries` have been made of this attempt."""

    request: RechargeRequest
    due_ms: int
    tries: int = 0


_decode_request = msgspec.json.Decoder(RechargeRequest).decode
_decode_row = msgspec.msgpack.Decoder(Waiting).decode
_encode_row = msgspec.msgpack.Encoder().encode


class RechargeProcessor:
    """The requests of one partition."""

    def __init__(self, command_topic: str, breaker: CircuitBreaker, state: State, sink: Sink, not_before_us: int = 0) -> None:
        self._command_topic = command_topic
        self._breaker = breaker
        self._state = state
        self._sink = sink
        self._not_before_us = not_before_us
        self._shut_until_ms = 0
        self._counts: Counter[Metric] = Counter()
        self._queue: list[tuple[int, bytes]] = []
        self._since = OldestFirst()
        for key, row in state.scan(_WAITING):
            waiting = _decode_row(row)
            self._since.add(key[1:], _requested_us(waiting.request) // 1000)
            heapq.heappush(self._queue, (waiting.due_ms, key[1:]))

    async def process(self, records: Sequence[Record]) -> None:
        """Take requests in; one that has been answered before is answered again."""
        for record in records:
            request = _read(record)
            if request is None or self._is_anothers(request):
                continue
            name = _name(request)
            known = self._state.get(_RESULT + name)
            if known is not None:
                self._tell(request.org_id, known, record.timestamp)
            elif self._state.get(_WAITING + name) is None:
                self._wait(name, Waiting(request, due_ms=0))

    def next_due_ms(self) -> int | None:
        """When the first of those that wait is to be tried."""
        return max(self._queue[0][0], self._shut_until_ms) if self._queue else None

    async def tick(self, now_ms: int) -> None:
        """Try what is due, as many at once as there is room for."""
        permits = self._breaker.permits()
        if not permits:
            self._shut_until_ms = now_ms + SHUT_POLL_MS
            return
        due: list[tuple[bytes, Waiting]] = []
        while self._queue and len(due) < permits and self._queue[0][0] <= now_ms:
            name = heapq.heappop(self._queue)[1]
            row = self._state.get(_WAITING + name)
            assert row is not None, name
            due.append((name, _decode_row(row)))
        outcomes = await asyncio.gather(*(self._breaker.charge(waiting.request) for _, waiting in due))
        for (name, waiting), outcome in zip(due, outcomes, strict=True):
            if isinstance(outcome, Unresolved):
                self._put_off(name, waiting, outcome, now_ms)
            else:
                self._settle(name, waiting.request, outcome, now_ms)
        self._state.expire(moments.day_of(now_ms * 1000) - REMEMBERED_DAYS)

    def take_counts(self) -> Mapping[Metric, int]:
        """`recharges` by outcome, and `recharge_tries_unresolved`."""
        counts, self._counts = self._counts, Counter()
        return counts

    def gauges(self) -> Mapping[Metric, float]:
        """`recharges_pending`, and since when the oldest of them is."""
        return self._since.gauges("recharges_pending")

    def _is_anothers(self, request: RechargeRequest) -> bool:
        anothers = _requested_us(request) < self._not_before_us
        if anothers:
            log.warning("%s attempt %d is from before this agent's time: left out", request.recharge_id, request.attempt)
        return anothers

    def _settle(self, name: bytes, request: RechargeRequest, outcome: Outcome, now_ms: int) -> None:
        command = command_of(request, outcome)
        self._counts["recharges", _outcome_name(outcome)] += 1
        self._since.remove(name)
        self._tell(request.org_id, command, now_ms)
        self._state.delete(_WAITING + name)
        self._state.append(moments.day_of(now_ms * 1000), _RESULT + name, command)

    def _put_off(self, name: bytes, waiting: Waiting, why: Unresolved, now_ms: int) -> None:
        gap_ms = min(FIRST_GAP_MS << min(waiting.tries, 20), GAP_MS_MAX)
        gap_ms = round(gap_ms * random.uniform(0.5, 1.0))  # noqa: S311 - jitter: those put off together don't come together
        log.warning(
            "%s attempt %d: tried %d times, again in %d ms: %s",
            *(waiting.request.recharge_id, waiting.request.attempt, waiting.tries + 1, gap_ms, why),
        )
        self._counts["recharge_tries_unresolved",] += 1
        self._wait(name, Waiting(waiting.request, now_ms + gap_ms, waiting.tries + 1))

    def _wait(self, name: bytes, waiting: Waiting) -> None:
        self._state.put(_WAITING + name, _encode_row(waiting))
        self._since.add(name, _requested_us(waiting.request) // 1000)
        heapq.heappush(self._queue, (waiting.due_ms, name))

    def _tell(self, org_id: str, command: bytes, timestamp_ms: int) -> None:
        self._sink.emit(self._command_topic, org_id.encode(), command, timestamp_ms)


def recharge_factory(topics: Topics, breaker: CircuitBreaker, not_before_us: int = 0) -> ProcessorFactory:
    """Makes the processor of each partition. Requests from before `not_before_us` are somebody else's."""

    def make(partition: int, state: State, sink: Sink) -> Processor:
        del partition
        return RechargeProcessor(topics.command, breaker, state, sink, not_before_us)

    return make


def _name(request: RechargeRequest) -> bytes:
    return f"{request.recharge_id}#{request.attempt}".encode()


def _outcome_name(outcome: Outcome) -> str:
    if isinstance(outcome, Declined):
        return "soft_decline" if outcome.retryable else "hard_decline"
    return "succeeded"


def _requested_us(request: RechargeRequest) -> int:
    return moments.to_us(datetime.fromisoformat(request.requested_at))


def _read(record: Record) -> RechargeRequest | None:
    """A request; None where somebody else has written there: what the rater writes is whole and keyed by its organization."""
    try:
        request = _decode_request(record.value or b"")
        parse_micros(request.amount)
        _requested_us(request)
        if record.key != request.org_id.encode():
            raise ValueError("the key is not the org_id")
    except (ValueError, TypeError, OverflowError, RecursionError) as error:  # an instant without a zone, or out of range
        log.error("%s offset %d is no recharge request, nothing is charged for it: %s", record.topic, record.offset, error)
        return None
    return request
