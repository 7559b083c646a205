"""The directory says who an organization's users are and which numbers it has."""

from typing import Any

from rater.kafka.log import LogRecord
from tests.builders import ORG, TOPICS, Desk, messages


def listed(records: list[LogRecord]) -> dict[str, Any]:
    """The users and numbers there are now: the latest entry of each, without those removed."""
    latest = {entry.get("number") or entry["user_id"]: entry for entry in messages(records, TOPICS.directory, ORG)}
    return {name: entry for name, entry in latest.items() if entry["change"] == "put"}


def test_a_user_is_listed_with_the_licences_it_has_now() -> None:
    desk = Desk().ready()
    desk.user(paid=False)
    entry = listed(desk.outputs)["u1"]
    assert entry["licences"]["communications_credits"] is False
    assert (entry["entry"], entry["org_id"], entry["usage_country"]) == ("user", ORG, "US")


def test_a_number_is_listed_with_its_kind_and_user() -> None:
    desk = Desk().ready()
    desk.command("number.put", number="+14255550199", kind="service", user_id="u1")
    entry = listed(desk.outputs)["+14255550199"]
    assert (entry["entry"], entry["kind"], entry["user_id"]) == ("number", "service", "u1")


def test_a_removed_user_or_number_is_not_listed_any_more() -> None:
    desk = Desk().ready()
    desk.command("number.put", number="+14255550199", kind="service")
    desk.command("number.remove", number="+14255550199")
    desk.command("user.remove", user_id="u1")
    assert listed(desk.outputs) == {}


def test_a_refused_command_lists_nothing() -> None:
    desk = Desk().ready()
    before = listed(desk.outputs)
    desk.user("u2", plan="no such plan")
    assert listed(desk.outputs) == before
