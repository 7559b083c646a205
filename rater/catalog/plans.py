"""Checks JSON files of plans: an array of the contract's plan messages, or one per line."""

import msgspec

from rater.catalog.documents import objects
from rater.catalog.faults import CheckedFile
from rater.domain import reading
from rater.domain.rejection import Rejected


def check_plans(text: str) -> CheckedFile:
    """Check a file of plans. The rows are plan messages."""
    checked = CheckedFile()
    seen: dict[str, int] = {}
    for plan in objects(text, checked.faults):
        try:
            plan_id = reading.read_plan(msgspec.json.encode(plan.fields)).plan_id
        except Rejected as rejected:
            checked.faults.append(plan.fault(rejected.message))
            continue
        if plan_id in seen:
            checked.faults.append(plan.fault(f"plan {plan_id!r} is also on line {seen[plan_id]}"))
        seen[plan_id] = plan.line
        checked.rows.append((plan_id, plan.fields))
    return checked
