"""Plans as JSON: an array of the contract's plan messages, or one a line."""

import json
from typing import Any

import msgspec

from rater.domain import messages
from rater.domain.rejection import Rejected
from rater.loading.faults import Fault, Loaded


def check_plans(text: str) -> Loaded:
    """Check a file of plans."""
    loaded = Loaded()
    seen: dict[str, int] = {}
    for line, plan in objects(text, loaded.faults):
        try:
            plan_id = messages.read_plan(msgspec.json.encode(plan)).plan_id
        except Rejected as rejected:
            loaded.faults.append(Fault(line, 0, rejected.message))
            continue
        if plan_id in seen:
            loaded.faults.append(Fault(line, 0, f"plan {plan_id!r} stands on line {seen[plan_id]} too"))
        seen[plan_id] = line
        loaded.rows.append((plan_id, plan))
    return loaded


def objects(text: str, faults: list[Fault]) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a JSON array, or of JSON lines, each with the line it begins on; what is no object is a fault."""
    decoder = json.JSONDecoder()
    found: list[tuple[int, dict[str, Any]]] = []
    at = 0
    between = " \t\r\n,[" if text.lstrip().startswith("[") else " \t\r\n"
    while True:
        while at < len(text) and text[at] in between:
            at += 1
        if at >= len(text) or (text[at] == "]" and "[" in between and not text[at + 1 :].strip()):
            break
        line = text.count("\n", 0, at) + 1
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError as error:
            position = getattr(error, "pos", at)
            column = position - text.rfind("\n", 0, position)
            faults.append(Fault(text.count("\n", 0, position) + 1, column, f"not JSON: {getattr(error, 'msg', error)}"))
            return found
        if isinstance(value, dict):
            found.append((line, value))
        else:
            faults.append(Fault(line, at - text.rfind("\n", 0, at), "not an object"))
    if not found and not faults:
        faults.append(Fault(1, 0, "the file is empty"))
    return found
