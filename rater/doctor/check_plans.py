"""Plans: whether users can use their minutes. Pure: plans, rates and holders in, findings out.

Users hold plans through a licence: the calling plan for outbound, audio conferencing for conference dial-out (rules 7, 10). A
call uses the first allowance of the plan that covers the rate's country and number type (rule 10). So an allowance gives no
minutes if no rate matches it, or if earlier allowances cover all its rates.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rater.doctor.findings import DoctorFinding, counted, fault, listed, note, ok, warning
from rater.domain.deck import PricedRow
from rater.domain.plans import PreparedPlan

#: Licence of a user → the service whose calls use the minutes of its plan.
LICENSED = {"calling_plan": "outbound", "audio_conferencing": "conference-dial-out"}
_LOAD = "rater load plans FILE"

CountryAndType = tuple[str, str]  # country, number type


@dataclass(slots=True)
class Holders:
    """`users`: (licence, plan id) → number of users. `is_whole`: whether all users were read."""

    users: Counter[tuple[str, str]] = field(default_factory=Counter)
    is_whole: bool = True


def judge_plans(
    plans: Mapping[str, PreparedPlan], rows: Iterable[PricedRow], holders: Holders, now_us: int
) -> list[DoctorFinding]:
    """All findings about these plans as of `now_us`. Expired `rows` don't count."""
    priced: dict[str, set[CountryAndType]] = {service: set() for service in LICENSED.values()}
    for row in rows:
        if row.service in priced and row.to_us > now_us:
            priced[row.service].add((row.country, row.number_type))
    findings = [finding for plan in plans.values() for finding in _usable(plan, priced.get(plan.service))]
    if plans:
        findings.insert(0, ok("catalog.plans", f"{counted(len(plans), 'plan')} ({listed(sorted(plans))})"))
    return [*findings, *_holders(plans, holders)]


def _usable(plan: PreparedPlan, priced: set[CountryAndType] | None) -> Iterable[DoctorFinding]:
    """`priced`: what the rates of the plan's service cover; None if no licence belongs to that service."""
    if priced is None:
        what = f"plan {plan.plan_id}: calls of service {plan.service} never use a user's minutes (rule 7)"
        yield warning("catalog.plan_unusable", what, "set its service to outbound or conference-dial-out: " + _LOAD)
        return
    taken = Counter(allowance.allowance_id for kind in priced if (allowance := plan.allowance_for(*kind)) is not None)
    unused = [allowance for allowance in plan.allowances if not taken[allowance.allowance_id]]
    todo = f"correct its destinations or number types ({_LOAD}), or load the rates for them"
    if priced and len(unused) == len(plan.allowances):
        yield warning(
            "catalog.plan_unusable", f"plan {plan.plan_id}: there is no {plan.service} rate for any of its destinations", todo
        )
        return
    for allowance in unused if priced else ():
        if any(allowance.covers(*kind) for kind in priced):
            why = "an allowance before it covers all its calls (rule 10)"
        else:
            why = f"there is no {plan.service} rate for its destinations and number types"
        yield warning("catalog.allowance_unusable", f"plan {plan.plan_id}, allowance {allowance.allowance_id}: {why}", todo)
    countries = {country for country, _ in priced}
    unknown = sorted({d for a in plan.allowances if a not in unused for d in a.destinations or () if d not in countries})
    if unknown and priced:
        yield note(
            "catalog.destination_without_rate",
            f"plan {plan.plan_id}: there is no {plan.service} rate for {listed(unknown)}",
            todo,
        )


def _holders(plans: Mapping[str, PreparedPlan], holders: Holders) -> Iterable[DoctorFinding]:
    missing = {plan_id: users for (_, plan_id), users in sorted(holders.users.items()) if plan_id not in plans}
    if missing:
        named = listed([f"{plan_id} ({counted(users, 'user')})" for plan_id, users in missing.items()])
        what = f"users hold plans that are not in the catalog, so they get no minutes: {named}"
        yield fault("catalog.plan_missing", what, f"{_LOAD}, or give the users another plan (rater users set)")
    for (licence, plan_id), users in sorted(holders.users.items()):
        if plan_id in plans and plans[plan_id].service != LICENSED[licence]:
            what = f"{users} users hold {plan_id} as {licence}, which is for {LICENSED[licence]}: they get no minutes"
            yield warning(
                "catalog.plan_in_wrong_licence", what, "move the plan to the licence of its service (rater users set)"
            )
    held = {plan_id for _, plan_id in holders.users}
    spare = sorted(plan_id for plan_id in plans if plan_id not in held)
    if spare and holders.is_whole:
        yield note("catalog.plan_not_held", f"no user holds {listed(spare)}")
