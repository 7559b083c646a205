"""Plans as JSON: an array of the contract's plan messages, or one a line."""

import msgspec

from rater.catalog.documents import objects
from rater.catalog.faults import Loaded
from rater.domain import reading
from rater.domain.rejection import Rejected


def check_plans(text: str) -> Loaded:
    """Check a file of plans."""
    loaded = Loaded()
    seen: dict[str, int] = {}
    for plan in objects(text, loaded.faults):
        try:
            plan_id = reading.read_plan(msgspec.json.encode(plan.fields)).plan_id
        except Rejected as rejected:
            loaded.faults.append(plan.fault(rejected.message))
            continue
        if plan_id in seen:
            loaded.faults.append(plan.fault(f"plan {plan_id!r} stands on line {seen[plan_id]} too"))
        seen[plan_id] = plan.line
        loaded.rows.append((plan_id, plan.fields))
    return loaded
