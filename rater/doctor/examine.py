"""The whole examination: every area by itself, so that what one can't find out keeps no other from looking."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from rater.bootstrap import topics_of
from rater.doctor import (
    catalog,
    check_acl,
    check_brokers,
    check_clock,
    check_lag,
    check_settings,
    check_topics,
    check_versions,
)
from rater.doctor.cluster_reader import ClusterReader, UnreachableError, connected
from rater.doctor.findings import DoctorFinding, fault, warning
from rater.settings import Settings

AREAS = ("broker", "versions", "settings", "topics", "acl", "lag", "catalog", "clock")
_AREA_S = 30.0
_NOT_ALLOWED = (TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError)


async def examine(given: Settings) -> list[DoctorFinding]:
    """Everything there is to say, area by area. Within seconds where no broker answers, within a minute in any case."""
    here = [
        *_here("versions", check_versions.check),
        *_here("settings", lambda: check_settings.check(given)),
        *_here("clock", check_clock.check_here),
    ]
    try:
        async with connected(given) as cluster:
            there = await _ask(cluster, given)
    except UnreachableError as error:
        todo = "is Kafka up, and is that its address (RATER_BOOTSTRAP)? Topics, ACLs, lag and catalog could not be looked at"
        there = [fault("broker.unreachable", str(error), todo)]
    return _in_order([*there, *here])


async def _ask(cluster: ClusterReader, given: Settings) -> list[DoctorFinding]:
    ours = topics_of(given)
    try:
        view = await cluster.view([topic.name for topic in ours.definitions])
    except (KafkaError, TimeoutError, OSError) as error:
        return [_silent("broker", error)]
    now_ms = time.time_ns() // 1_000_000
    areas: dict[str, Coroutine[Any, Any, list[DoctorFinding]]] = {
        "broker": check_brokers.check(cluster, given, view),
        "topics": check_topics.check(cluster, ours, view),
        "acl": check_acl.check(cluster, given, ours, view),
        "lag": check_lag.check(cluster, given, ours, view, now_ms),
        "catalog": catalog.check(cluster, ours, view),
        "clock": check_clock.check(cluster, view, now_ms),
    }
    found = await asyncio.gather(*(_bounded(area, looking) for area, looking in areas.items()))
    return [finding for findings in found for finding in findings]


async def _bounded(area: str, looking: Coroutine[Any, Any, list[DoctorFinding]]) -> list[DoctorFinding]:
    try:
        async with asyncio.timeout(_AREA_S):
            return await looking
    except Exception as error:  # noqa: BLE001 - whatever it is, it keeps no other area from being looked at
        return [_silent(area, error)]


def _here(area: str, look: Callable[[], list[DoctorFinding]]) -> list[DoctorFinding]:
    try:
        return look()
    except Exception as error:  # noqa: BLE001 - as above
        return [_silent(area, error)]


def _silent(area: str, error: Exception) -> DoctorFinding:
    if isinstance(error, _NOT_ALLOWED):
        what = f"this user may not look: {type(error).__name__}"
        return warning(f"{area}.not_allowed", what, "look as one who may, or see in the area acl what it lacks")
    todo = "look again; if it stays, see the brokers' logs, and what this user may do (area acl)"
    return fault(f"{area}.not_looked_at", f"could not be looked at: {type(error).__name__} {error}".rstrip(), todo)


def _in_order(findings: Iterable[DoctorFinding]) -> list[DoctorFinding]:
    return sorted(findings, key=lambda finding: AREAS.index(finding.area))
