"""Plans: whether anybody can use them. Pure: plans, rates and who holds what in, findings out.

A plan belongs to users by licence: the calling plan for outbound, audio conferencing for conference dial-out (rules 7, 10). Of
its allowances the first that holds the rate's country and number type is used (rule 10), so one that no rate matches, or whose
every rate an earlier one takes, gives no minute to anyone.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rater.doctor.findings import Finding, counted, fault, listed, note, ok, warning
from rater.domain.deck import PricedRow
from rater.domain.plans import PreparedPlan

#: Licence of a user → the service whose calls take its plan's minutes.
LICENSED = {"calling_plan": "outbound", "audio_conferencing": "conference-dial-out"}
_LOAD = "rater load plans FILE"

Place = tuple[str, str]  # country, number type


@dataclass(slots=True)
class Holders:
    """(licence, plan) → users that hold it so. `is_whole`: all users were looked at."""

    users: Counter[tuple[str, str]] = field(default_factory=Counter)
    is_whole: bool = True


def judge_plans(plans: Mapping[str, PreparedPlan], rows: Iterable[PricedRow], holders: Holders, now_us: int) -> list[Finding]:
    """`rows` that have expired don't count: no call of now on meets them."""
    places: dict[str, set[Place]] = {service: set() for service in LICENSED.values()}
    for row in rows:
        if row.service in places and row.to_us > now_us:
            places[row.service].add((row.country, row.number_type))
    findings = [finding for plan in plans.values() for finding in _use(plan, places.get(plan.service))]
    if plans:
        findings.insert(0, ok("catalog.plans", f"{counted(len(plans), 'plan')} ({listed(sorted(plans))})"))
    return [*findings, *_held(plans, holders)]


def _use(plan: PreparedPlan, places: set[Place] | None) -> Iterable[Finding]:
    """`places`: countries and number types of the service's rates; None: a service for which nobody is licensed."""
    if places is None:
        what = f"plan {plan.plan_id}: calls of service {plan.service} take no user's minutes (rule 7)"
        yield warning("catalog.plan_unusable", what, "its service must be outbound or conference-dial-out: " + _LOAD)
        return
    taken = Counter(allowance.allowance_id for place in places if (allowance := plan.allowance_for(*place)) is not None)
    unused = [allowance for allowance in plan.allowances if not taken[allowance.allowance_id]]
    todo = f"mend its destinations or number types ({_LOAD}), or load the rates it means"
    if places and len(unused) == len(plan.allowances):
        yield warning(
            "catalog.plan_unusable", f"plan {plan.plan_id}: no rate of {plan.service} is of any of its destinations", todo
        )
        return
    for allowance in unused if places else ():
        if any(allowance.covers(*place) for place in places):
            why = "an allowance before it takes every call (rule 10)"
        else:
            why = f"no rate of {plan.service} is of its destinations and number types"
        yield warning("catalog.allowance_unusable", f"plan {plan.plan_id}, allowance {allowance.allowance_id}: {why}", todo)
    countries = {country for country, _ in places}
    unknown = sorted({d for a in plan.allowances if a not in unused for d in a.destinations or () if d not in countries})
    if unknown and places:
        yield note(
            "catalog.destination_without_rate",
            f"plan {plan.plan_id}: no rate of {plan.service} goes to {listed(unknown)}",
            todo,
        )


def _held(plans: Mapping[str, PreparedPlan], holders: Holders) -> Iterable[Finding]:
    gone = {plan_id: users for (_, plan_id), users in sorted(holders.users.items()) if plan_id not in plans}
    if gone:
        plans_gone = listed([f"{plan_id} ({counted(users, 'user')})" for plan_id, users in gone.items()])
        what = f"users hold plans that the catalog has not, and get no minutes: {plans_gone}"
        yield fault("catalog.plan_missing", what, f"{_LOAD}, or give them another (rater users set)")
    for (licence, plan_id), users in sorted(holders.users.items()):
        if plan_id in plans and plans[plan_id].service != LICENSED[licence]:
            what = f"{users} users hold {plan_id} as {licence}, which is for {LICENSED[licence]}: it gives them no minutes"
            yield warning(
                "catalog.plan_in_wrong_licence", what, "rater users set, with the plan under the licence of its service"
            )
    held = {plan_id for _, plan_id in holders.users}
    spare = sorted(plan_id for plan_id in plans if plan_id not in held)
    if spare and holders.is_whole:
        yield note("catalog.plan_not_held", f"no user holds {listed(spare)}")
