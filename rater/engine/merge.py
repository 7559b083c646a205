"""Merging the records of one task's topics by their timestamps.

A task reads one partition of each of its topics, in rank order. The next record is the head with the
smallest timestamp; on a tie the topic of the lower rank goes first. Within a topic the order is never
changed, whatever its timestamps. So the merge of complete topics depends on their contents alone, not on
how they were fetched: replaying the same log gives the same order.

For that, every head must be known. A topic that has run dry but may have more (`may_have_more`) stops the
merge.
"""

from collections.abc import Sequence
from typing import TypeVar

from rater.engine.api import Record

__all__ = ["merge"]

R = TypeVar("R", bound=Record)


def merge(queues: Sequence[Sequence[R]], may_have_more: Sequence[bool], limit: int) -> tuple[list[R], list[int]]:
    """Up to `limit` records of `queues` (rank order) in processing order, and how many were taken of each
    queue."""
    taken = [0] * len(queues)
    filled = [rank for rank, queue in enumerate(queues) if queue]
    if not filled or any(more and not queue for queue, more in zip(queues, may_have_more, strict=True)):
        return [], taken
    merged: list[R] = []
    while len(merged) < limit:
        rank = min(filled, key=lambda r: (queues[r][taken[r]].timestamp, r))
        others = [(queues[r][taken[r]].timestamp, r) for r in filled if r != rank]
        start = taken[rank]
        end = min(len(queues[rank]), start + limit - len(merged))
        if others:
            end = _run_end(queues[rank], start, end, rank, min(others))
        merged += queues[rank][start:end]
        taken[rank] = end
        if end == len(queues[rank]):
            if may_have_more[rank]:
                break
            filled.remove(rank)
            if not filled:
                break
    return merged, taken


def _run_end(queue: Sequence[Record], start: int, end: int, rank: int, bound: tuple[int, int]) -> int:
    """Where, from `start` on, the first record of `queue` stands that comes after `bound`, another queue's
    head."""
    bound_ms, bound_rank = bound
    if rank < bound_rank:
        bound_ms += 1
    for index in range(start, end):
        if queue[index].timestamp >= bound_ms:
            return index
    return end
