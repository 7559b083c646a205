"""Organizations as JSON: each with its users, numbers, funds and auto-recharge, turned into the commands that make it so.

`users` are groups: {count, calling_plan?, audio_conferencing?, communications_credits?, phone_system?}, or single ones with a
`user_id`. A command's id is made of what it says, so that a file loaded twice does nothing the second time.
"""

import hashlib
import json
from typing import Any

import msgspec

from rater.domain import messages
from rater.domain.rejection import Rejected
from rater.loading.faults import Fault, Loaded
from rater.loading.plans import objects

_LICENCES = ("phone_system", "calling_plan", "audio_conferencing", "communications_credits")
_OWN = ("name", "country", "currency", "offer", "emails", "time_zone", "rate_card", "low_balance_amount")
_KNOWN = {"org_id", "users", "numbers", "funds", "auto_recharge", *_OWN}
ISSUED_AT = "2025-01-01T00:00:00Z"  # part of what a command says, so the same at every load


def check_organizations(text: str) -> Loaded:
    """Check a file of organizations; the rows are commands, in the order they must be given."""
    loaded = Loaded()
    seen: dict[str, int] = {}
    for line, organization in objects(text, loaded.faults):
        org_id = str(organization.get("org_id", ""))
        loaded.faults += [Fault(line, 0, f"unknown field {name!r}") for name in organization if name not in _KNOWN]
        if org_id in seen:
            loaded.faults.append(Fault(line, 0, f"organization {org_id!r} stands on line {seen[org_id]} too"))
        seen[org_id] = line
        for command in _commands(organization):
            row = {"org_id": org_id, "issued_at": ISSUED_AT} | command
            row["command_id"] = "load:" + hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:24]
            try:
                _, payload = messages.read_envelope(msgspec.json.encode(row))
                messages.read_command(payload)
            except Rejected as rejected:
                loaded.faults.append(Fault(line, 0, f"{org_id} {row['type']}: {rejected.message}"))
                continue
            loaded.rows.append((org_id, row))
    return loaded


def _commands(organization: dict[str, Any]) -> list[dict[str, Any]]:
    own = {name: organization[name] for name in _OWN if name in organization}
    commands = [{"type": "organization.put", **own}]
    for group in organization.get("users", []):
        licences = {name: group[name] for name in _LICENCES if name in group}
        country = group.get("usage_country", organization.get("country"))
        named = [group["user_id"]] if "user_id" in group else [f"user-{i + 1}" for i in range(group.get("count", 0))]
        commands += [
            {"type": "user.put", "user_id": user_id, "usage_country": country, "licences": licences} for user_id in named
        ]
    commands += [{"type": "number.put", **number} for number in organization.get("numbers", [])]
    funds = organization.get("funds", "0")
    if funds not in ("0", "0.00"):
        purchase = {"amount": funds, "currency": organization.get("currency"), "purchase_channel": "web-direct"}
        commands.append({"type": "funds.add", **purchase, "payment_reference": "opening balance"})
    if "auto_recharge" in organization:
        commands.append({"type": "auto_recharge.put", **organization["auto_recharge"]})
    return commands
