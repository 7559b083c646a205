import json
from typing import Any

import pytest

from rater.catalog import check_organizations, check_plans
from rater.resources import resource

ACME = {"org_id": "acme", "name": "Acme", "country": "US", "currency": "USD", "offer": "commercial"}


def commands(**fields: Any) -> list[dict[str, Any]]:
    loaded = check_organizations(json.dumps([ACME | fields]))
    assert not loaded.faults, loaded.faults
    return [row for _, row in loaded.rows]


def faults(**fields: Any) -> list[str]:
    return [fault.message for fault in check_organizations(json.dumps([ACME | fields])).faults]


def test_the_sample_files_have_no_faults() -> None:
    assert not check_plans(resource("samples", "plans.json").read_text()).faults
    assert not check_organizations(resource("samples", "organizations.json").read_text()).faults


def test_commands_come_in_the_order_organization_users_numbers_funds_auto_recharge() -> None:
    made = commands(
        funds="5.00",
        numbers=[{"number": "+14255550100", "kind": "service"}],
        users=[{"count": 2}],
        auto_recharge={"enabled": True, "trigger_amount": "1", "recharge_amount": "5", "payment_method": "card"},
    )
    types = ["organization.put", "user.put", "user.put", "number.put", "funds.add", "auto_recharge.put"]
    assert [command["type"] for command in made] == types


def test_loading_a_file_again_gives_the_same_commands() -> None:
    assert commands(funds="5.00", users=[{"count": 2}]) == commands(funds="5.00", users=[{"count": 2}])


def test_commands_with_different_content_have_different_ids() -> None:
    made = commands(users=[{"count": 9}]) + commands(name="Acme Ltd")[:1]
    assert len({command["command_id"] for command in made}) == len(made)


def test_users_are_numbered_through_all_groups() -> None:
    made = commands(users=[{"count": 2, "communications_credits": True}, {"count": 2}])
    users = {c["user_id"]: c["licences"] for c in made if c["type"] == "user.put"}
    assert users == {
        "user-1": {"communications_credits": True},
        "user-2": {"communications_credits": True},
        "user-3": {},
        "user-4": {},
    }


def test_a_user_who_appears_twice_is_a_fault() -> None:
    assert faults(users=[{"user_id": "user-1"}, {"count": 1}]) == ["acme: user 'user-1' appears twice"]


def test_a_number_of_an_unknown_user_is_a_fault() -> None:
    number = {"number": "+14255550100", "kind": "subscriber", "user_id": "bob"}
    assert faults(numbers=[number]) == ["acme: numbers: there is no user 'bob'"]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("users", "many"),
        ("users", [{"count": "12"}]),
        ("users", [{}]),
        ("users", [{"count": 1, "licence": "x"}]),
        ("numbers", [{"number": "555", "kind": "service"}]),
        ("funds", 5.0),
        ("funds", "5.0000001"),
        ("currency", "ABC"),
        ("time_zone", "Mars/Olympus"),
        ("offer", "friends"),
        ("auto_recharge", {"enabled": True}),
        ("colour", "red"),
    ],
)
def test_a_wrong_value_is_a_fault_and_not_a_crash(field: str, value: object) -> None:
    assert len(faults(**{field: value})) >= 1


def test_an_organization_that_appears_twice_is_a_fault_with_its_place() -> None:
    loaded = check_organizations(f"[\n  {json.dumps(ACME)},\n  {json.dumps(ACME)}\n]")
    assert [str(fault) for fault in loaded.faults] == ["line 3, column 3: acme: is also on line 2"]


def test_json_lines_are_read_like_an_array() -> None:
    other = ACME | {"org_id": "other"}
    lines = check_organizations(json.dumps(ACME) + "\n" + json.dumps(other) + "\n")
    assert lines == check_organizations(json.dumps([ACME, other]))


@pytest.mark.parametrize(
    ("text", "place"),
    [("", (1, 0)), ("[]", (1, 0)), ('[{}\n"x"]', (2, 1)), ("[1]", (1, 2)), ("[{}] {}", (1, 6)), ('{"a":\n tru}', (2, 2))],
)
def test_anything_but_a_list_of_objects_is_a_fault_with_its_place(text: str, place: tuple[int, int]) -> None:
    found = check_plans(text).faults
    assert place in [(fault.line, fault.column) for fault in found]


def test_a_plan_that_appears_twice_is_a_fault() -> None:
    plan = {"plan_id": "p", "name": "P", "service": "outbound"}
    plan |= {"allowances": [{"allowance_id": "a", "minutes_per_user": 1, "destinations": "*"}]}  # type: ignore[dict-item]
    loaded = check_plans(json.dumps(plan) + "\n" + json.dumps(plan))
    assert [str(fault) for fault in loaded.faults] == ["line 2, column 1: plan 'p' is also on line 1"]
