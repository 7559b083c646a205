"""Clocks: whether this machine's clock is behind the brokers', and whether a time server sets it.

Kafka doesn't tell its time, so only one direction can be checked. A broker writes its own time into the marker that ends a
transaction. A marker in the future shows that this machine is behind; one in the past shows nothing, as it may be old. Records
of switches carry the switches' time. The kernel knows whether a time server sets this machine's clock.
"""

import asyncio
import ctypes
import os

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from rater.doctor.cluster_reader import ClusterReader
from rater.doctor.cluster_views import ClusterView, LastBatch
from rater.doctor.findings import DoctorFinding, fault, note, ok, since, warning

_SKEW_MS = 2000
_SKEW_FAULT_MS = 60_000
_UNSYNCHRONIZED = 0x0040  # STA_UNSYNC
_TIMEX_BYTES = 512  # larger than the kernel's struct
_STATUS_OFFSET = 40  # on 64-bit Linux: modes (padded), offset, freq, maxerror, esterror, then status
_TODO = "run chrony or another NTP client on this machine, the brokers and the switches"


async def check(cluster: ClusterReader, view: ClusterView, now_ms: int) -> list[DoctorFinding]:
    """Read the last batch of every partition and compare its timestamp with `now_ms`."""
    bounds = await cluster.bounds(view.partitions(view.present()))
    asked = [_last(cluster, view, tp, end) for tp, (begin, end) in bounds.items() if begin < end]
    batches = [batch for batch in await asyncio.gather(*asked) if batch is not None]
    marks = [batch.timestamp_ms for batch in batches if batch.is_marker]
    records = [batch.timestamp_ms for batch in batches if not batch.is_marker]
    return judge_clocks(now_ms, marks, records)


def check_here() -> list[DoctorFinding]:
    """Ask the kernel about this machine's own clock."""
    return judge_own_clock(is_synchronized=_is_synchronized())


def judge_clocks(now_ms: int, marks_ms: list[int], records_ms: list[int]) -> list[DoctorFinding]:
    """`marks_ms`: times written by brokers. `records_ms`: times written by switches, tools and workers."""
    findings = []
    ahead_ms = max(marks_ms, default=now_ms) - now_ms
    if ahead_ms > _SKEW_MS:
        what = f"this machine's clock is at least {since(ahead_ms)} behind a broker's clock"
        is_bad = ahead_ms > _SKEW_FAULT_MS
        findings.append(fault("clock.behind_broker", what, _TODO) if is_bad else warning("clock.behind_broker", what, _TODO))
    records_ahead_ms = max(records_ms, default=now_ms) - now_ms
    if records_ahead_ms > _SKEW_MS:
        ahead = since(records_ahead_ms)
        what = f"a record's timestamp is {ahead} in the future: its writer's clock is ahead, or this one is behind"
        findings.append(warning("clock.records_ahead", what, _TODO))
    if findings:
        return findings
    if marks_ms:
        newest = since(now_ms - max(marks_ms))
        return [ok("clock.broker", f"not behind the brokers, judging by their newest timestamp ({newest} ago)")]
    return [note("clock.unknown", "no broker has written a timestamp yet, so there is nothing to compare this clock with")]


def judge_own_clock(*, is_synchronized: bool | None) -> list[DoctorFinding]:
    """`is_synchronized`: None if the kernel doesn't say, as in some containers; then there is no finding."""
    if is_synchronized is None:
        return []
    if is_synchronized:
        return [ok("clock.synchronized", "a time server sets this machine's clock")]
    return [note("clock.not_synchronized", "according to the kernel no time server sets this machine's clock", _TODO)]


async def _last(cluster: ClusterReader, view: ClusterView, tp: TopicPartition, end: int) -> LastBatch | None:
    leader = next(p.leader for p in view.topics[tp.topic].partitions if p.number == tp.partition)
    try:
        return await cluster.last_batch(leader, tp, end)
    except (KafkaError, TimeoutError):
        return None


def _is_synchronized() -> bool | None:
    if os.uname().sysname != "Linux" or ctypes.sizeof(ctypes.c_void_p) != 8:
        return None
    asked = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: read only
    try:
        state = ctypes.CDLL(None).adjtimex(asked)
    except (OSError, AttributeError):
        return None
    if state < 0:
        return None
    status = ctypes.c_int.from_buffer(asked, _STATUS_OFFSET).value
    return not status & _UNSYNCHRONIZED
