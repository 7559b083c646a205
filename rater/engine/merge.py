"""Merges the records of a task's topics by timestamp.

A task reads one partition of each of its topics. Of the first records of all queues, the one with the smallest timestamp comes
next; if timestamps are equal, the one of the topic with the lower rank (its index). Within a topic the order never changes,
whatever the timestamps. So the order of complete topics depends only on their contents, not on how they were fetched: a replay
of the same log gives the same order.

This only works if the first record of every queue is known. So the merge stops at an empty queue that may get more records
(`may_have_more`).
"""

from collections.abc import Sequence
from typing import TypeVar

from rater.engine.api import Record

__all__ = ["merge"]

R = TypeVar("R", bound=Record)


def merge(queues: Sequence[Sequence[R]], may_have_more: Sequence[bool], limit: int) -> tuple[list[R], list[int]]:
    """Up to `limit` records of `queues` (in rank order) in processing order, and how many of them come from each queue."""
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
    """The index of the first record of `queue[start:end]` that comes after `bound`; `end` if there is none.

    `bound` is the timestamp and rank of another queue's first record.
    """
    bound_ms, bound_rank = bound
    if rank < bound_rank:
        bound_ms += 1
    for index in range(start, end):
        if queue[index].timestamp >= bound_ms:
            return index
    return end
