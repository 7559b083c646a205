"""Runs all checks, each on its own: if one fails, the others still run."""

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
    check_acl,
    check_brokers,
    check_catalog,
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
    """All findings, in the order of `AREAS`. Takes seconds if no broker answers, otherwise a minute at most."""
    local = [
        *_checked_here("versions", check_versions.check),
        *_checked_here("settings", lambda: check_settings.check(given)),
        *_checked_here("clock", check_clock.check_here),
    ]
    try:
        async with connected(given) as cluster:
            remote = await _check_cluster(cluster, given)
    except UnreachableError as error:
        todo = "is Kafka up, and is RATER_BOOTSTRAP its address? Topics, rights, lag and catalog were not checked"
        remote = [fault("broker.unreachable", str(error), todo)]
    return _in_order([*remote, *local])


async def _check_cluster(cluster: ClusterReader, given: Settings) -> list[DoctorFinding]:
    ours = topics_of(given)
    try:
        view = await cluster.view([topic.name for topic in ours.definitions])
    except (KafkaError, TimeoutError, OSError) as error:
        return [_not_checked("broker", error)]
    now_ms = time.time_ns() // 1_000_000
    areas: dict[str, Coroutine[Any, Any, list[DoctorFinding]]] = {
        "broker": check_brokers.check(cluster, given, view),
        "topics": check_topics.check(cluster, ours, view),
        "acl": check_acl.check(cluster, given, ours, view),
        "lag": check_lag.check(cluster, given, ours, view, now_ms),
        "catalog": check_catalog.check(cluster, ours, view),
        "clock": check_clock.check(cluster, view, now_ms),
    }
    found = await asyncio.gather(*(_checked(area, check) for area, check in areas.items()))
    return [finding for findings in found for finding in findings]


async def _checked(area: str, check: Coroutine[Any, Any, list[DoctorFinding]]) -> list[DoctorFinding]:
    try:
        async with asyncio.timeout(_AREA_S):
            return await check
    except Exception as error:  # noqa: BLE001 - one area's failure must not stop the others
        return [_not_checked(area, error)]


def _checked_here(area: str, check: Callable[[], list[DoctorFinding]]) -> list[DoctorFinding]:
    try:
        return check()
    except Exception as error:  # noqa: BLE001 - as above
        return [_not_checked(area, error)]


def _not_checked(area: str, error: Exception) -> DoctorFinding:
    if isinstance(error, _NOT_ALLOWED):
        what = f"this user is not allowed to check this: {type(error).__name__}"
        return warning(f"{area}.not_allowed", what, "run it as another user, or see area acl for the missing rights")
    todo = "run it again; if it still fails, see the brokers' logs, and this user's rights (area acl)"
    return fault(f"{area}.not_looked_at", f"the check failed: {type(error).__name__} {error}".rstrip(), todo)


def _in_order(findings: Iterable[DoctorFinding]) -> list[DoctorFinding]:
    return sorted(findings, key=lambda finding: AREAS.index(finding.area))
