"""An account counts the holders of each plan (rule 11)."""

from rater.domain.account import Account
from rater.domain.rows import AccountState, User
from rater.simulation import MemoryRows


def user(calling_plan: str | None = None, audio_conferencing: str | None = None) -> User:
    return User(
        usage_country="US",
        phone_system=True,
        calling_plan=calling_plan,
        audio_conferencing=audio_conferencing,
        communications_credits=False,
    )


def account() -> Account:
    return Account(AccountState("contoso"), MemoryRows())


def test_a_user_is_counted_under_each_of_its_plans() -> None:
    found = account()
    found.put_user("u1", user("calls", "conferences"))
    found.put_user("u2", user("calls"))
    assert found.state.holders == {"calls": 2, "conferences": 1}


def test_a_user_that_holds_a_plan_under_both_licences_is_counted_once() -> None:
    found = account()
    found.put_user("u1", user("calls", "calls"))
    assert found.state.holders == {"calls": 1}


def test_a_user_that_changes_its_plan_is_counted_under_the_new_one() -> None:
    found = account()
    found.put_user("u1", user("old"))
    found.put_user("u1", user("new"))
    assert found.state.holders == {"new": 1}


def test_a_removed_user_holds_no_plan() -> None:
    found = account()
    found.put_user("u1", user("calls"))
    found.put_user("u1", None)
    assert found.state.holders == {}


def test_the_row_does_not_depend_on_the_process() -> None:
    """Plans are counted in the order of the licences, not in that of a set of texts, which differs from process to process."""
    found = account()
    plans = [f"plan-{i}" for i in range(20)]
    for i in range(0, 20, 2):
        found.put_user(f"u{i}", user(plans[i], plans[i + 1]))
    assert list(found.state.holders) == plans
