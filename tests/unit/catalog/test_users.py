"""A file of users is checked whole, and each row becomes a command that sets or removes the user."""

import io

import pytest

from rater.catalog import check_users, write_users

HEADER = "user_id,usage_country,phone_system,calling_plan,audio_conferencing,communications_credits"


def faults(*lines: str, remove: bool = False) -> list[str]:
    loaded = check_users(lines, "contoso", "load", remove)
    assert not (loaded.faults and loaded.rows and len(lines) == 2), "a faulty row must not be published"
    return [str(fault) for fault in loaded.faults]


def test_a_row_becomes_a_command_with_its_licences() -> None:
    ((key, command),) = check_users([HEADER, "ann,US,yes,domestic,,TRUE"], "contoso", "load").rows
    assert (key, command["org_id"], command["type"], command["user_id"]) == ("contoso", "contoso", "user.put", "ann")
    assert command["licences"] == {
        "phone_system": True,
        "calling_plan": "domestic",
        "audio_conferencing": None,
        "communications_credits": True,
    }


def test_licences_may_be_left_out() -> None:
    ((_, command),) = check_users(["user_id,usage_country", "ann,US"], "contoso", "load").rows
    assert not any(command["licences"].values())


def test_removing_users_needs_only_their_ids() -> None:
    ((_, command),) = check_users(["user_id", "ann"], "contoso", "load", remove=True).rows
    assert (command["type"], command["user_id"]) == ("user.remove", "ann")


def test_users_read_back_as_they_were_written() -> None:
    held = {"phone_system": True, "calling_plan": None, "audio_conferencing": "world", "communications_credits": False}
    out = io.StringIO()
    write_users([{"user_id": "a, b", "usage_country": "US", "licences": held}], out)
    assert out.getvalue() == HEADER + '\n"a, b",US,yes,,world,no\n'
    ((_, command),) = check_users(io.StringIO(out.getvalue()), "contoso", "load").rows
    assert (command["user_id"], command["usage_country"], command["licences"]) == ("a, b", "US", held)


def test_only_under_the_same_load_id_does_a_file_give_the_same_commands() -> None:
    lines = [HEADER, "ann,US,yes,domestic,,yes", "bob,GB,,,,"]
    first = check_users(lines, "contoso", "load").rows
    assert check_users(lines, "contoso", "load").rows == first
    again = check_users(lines, "contoso", "other").rows
    assert not {c["command_id"] for _, c in first} & {c["command_id"] for _, c in again}


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["user_id,country", "a,US"], "line 1, column 2: unknown column 'country'"),
        (["user_id,user_id,usage_country", "a,b,US"], "line 1, column 2: column 'user_id' appears twice"),
        (["user_id", "a"], "line 1: column 'usage_country' is missing"),
        ([HEADER, "a,US"], "line 2: 2 columns, the header has 6"),
        ([HEADER, "a,US,maybe,,,"], "line 2, column 3: phone_system: 'maybe' is neither yes nor no"),
        ([HEADER, "a,USA,,,,"], "line 2, column 2: usage_country"),
        ([HEADER, ",US,,,,"], "line 2, column 1: user_id"),
        ([HEADER, "a,US,,,,", "a,US,,,,"], "line 3, column 1: user 'a' is also on line 2"),
        ([HEADER], "line 1: the file has no users"),
        ([HEADER, 'a,"US'], "line 2: not CSV"),
    ],
)
def test_a_fault_is_listed_with_its_place(lines: list[str], fault: str) -> None:
    assert any(found.startswith(fault) for found in faults(*lines)), faults(*lines)
